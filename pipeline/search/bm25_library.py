"""bm25s, imported so that it leaves the GPUs alone.

Where JAX is installed, bm25s tries it while it is imported: JAX then takes three quarters of every
GPU, for as long as the process lives, and fails where others hold it. Nothing here needs JAX.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def _hidden(name: str) -> Iterator[None]:
    """Within the block a module cannot be imported, unless it was before."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]


with _hidden("jax"):
    import bm25s as bm25s
    from bm25s.tokenization import Tokenized as Tokenized
