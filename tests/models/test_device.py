from __future__ import annotations

import pytest
import torch

from pipeline.models import device
from pipeline.models.reservation import reserved

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("gpus", "with_one", "without"),
    [(1, "cuda", None), (0.5, "cuda", None), (0, "cpu", "cpu"), ("auto", "cuda", "cpu")],
)
def test_the_device_is_what_is_reserved(
    monkeypatch: pytest.MonkeyPatch, gpus: float | str, with_one: str, without: str | None
) -> None:
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    with reserved(gpus):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        assert device.choose_device().type == with_one
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        if without is None:
            with pytest.raises(RuntimeError, match="gpus_per_worker: 0"):
                device.choose_device()
        else:
            assert device.choose_device().type == without
    assert device.choose_device() == CPU


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
