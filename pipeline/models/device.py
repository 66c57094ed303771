"""The one place that decides on which device, and in which number format, models run."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

from pipeline.models.reservation import wanted

Precision = Literal["float32", "bfloat16"]


def choose_device() -> torch.device:
    """The device of this process: its first visible GPU unless none is reserved, or the CPU.

    Raises:
        RuntimeError: a GPU is reserved and torch sees none.
    """
    use_gpu = wanted()
    if use_gpu is False:
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    if use_gpu:
        raise RuntimeError(
            "a GPU was asked for, but torch sees none (torch.cuda.is_available() is False); check "
            "nvidia-smi, CUDA_VISIBLE_DEVICES and that torch was installed with CUDA, or set "
            "gpus_per_worker: 0"
        )
    return torch.device("cpu")


def resolve_precision(
    wanted: Literal["auto", "float32", "bfloat16"], device: torch.device
) -> Precision:
    """Turn `auto` into bfloat16 where the hardware computes in it natively, else float32.

    An explicit choice is kept, also where the device has to emulate it.
    """
    if wanted != "auto":
        return wanted
    return "bfloat16" if _native_bfloat16(device) else "float32"


def _native_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        found = torch.cpu.get_capabilities()
        return bool(found.get("amx_bf16") or found.get("avx512_bf16"))
    return False


def torch_dtype(precision: Precision) -> torch.dtype:
    """The torch dtype of a precision."""
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """Mixed precision for training: matrix products in bfloat16, weights and sums in float32.

    Does nothing for float32. bfloat16 has float32's range, so no loss scaling is needed.
    """
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def describe(device: torch.device) -> str:
    """The device in words, for manifests and model cards (`cuda: NVIDIA H100`, `cpu: ...`)."""
    if device.type == "cuda":
        return f"cuda: {torch.cuda.get_device_name(device)}"
    return f"cpu: {torch.cpu.get_capabilities().get('cpu_name', 'unknown')}"
