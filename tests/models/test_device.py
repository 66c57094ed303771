from __future__ import annotations

import pytest
import torch

from pipeline.models import device

CPU = torch.device("cpu")


def test_a_demanded_gpu_is_given_or_refused() -> None:
    if torch.cuda.is_available():
        assert device.choose_device(True).type == "cuda"
    else:
        with pytest.raises(RuntimeError, match="gpus_per_worker: 0"):
            device.choose_device(True)
    assert device.choose_device(False) == CPU


@pytest.mark.parametrize(
    ("capabilities", "precision"),
    [({}, "float32"), ({"amx_bf16": True}, "bfloat16"), ({"avx512_bf16": True}, "bfloat16")],
)
def test_auto_follows_the_cpu(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], precision: str
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert device.resolve_precision("auto", CPU) == precision
    assert device.resolve_precision("bfloat16", CPU) == "bfloat16"
    assert device.resolve_precision("float32", CPU) == "float32"


def test_autocast_changes_products_only_when_asked() -> None:
    one = torch.ones(2, 2)
    with device.autocast(CPU, "float32"):
        assert (one @ one).dtype == torch.float32
    with device.autocast(CPU, "bfloat16"):
        assert (one @ one).dtype == torch.bfloat16
