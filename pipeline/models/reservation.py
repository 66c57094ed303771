"""Whether work may use a GPU of its process: what its stage reserves says so, not what torch sees.

Without torch, so that workers which need none do not load it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_use_gpu: ContextVar[bool | None] = ContextVar("use_gpu", default=None)


@contextmanager
def reserved(gpus: float | str) -> Iterator[None]:
    """Within the block `choose_device` takes what is reserved.

    Args:
        gpus: as a stage's resources have it: 0 is the CPU, also where there is a GPU; more demands
            one; `auto` takes one where there is one.
    """
    token = _use_gpu.set(None if isinstance(gpus, str) else gpus > 0)
    try:
        yield
    finally:
        _use_gpu.reset(token)


def wanted() -> bool | None:
    """True where a GPU is demanded, False where none may be used, None outside of any block."""
    return _use_gpu.get()
