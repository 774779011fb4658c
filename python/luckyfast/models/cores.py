"""How many cores networks use on a CPU: the engine's kernels take them, and PyTorch takes one.

PyTorch's threads wait for the next operation at full speed, some milliseconds long, on the cores that the engine's
threads need by then: with both, two cores were slower than one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

__all__ = ["n_cores", "set_cores", "use_cores"]

_n_cores: ContextVar[int | None] = ContextVar("n_cores", default=None)


def n_cores() -> int:
    """How many cores the engine's kernels use here: as many as PyTorch would, if nothing else was said.

    Example:
        >>> with use_cores(3):
        ...     n_cores()
        3
    """
    return _n_cores.get() or torch.get_num_threads()


def set_cores(n: int) -> None:
    """Let networks use so many cores from now on, in this thread."""
    torch.set_num_threads(1)
    _n_cores.set(n)


@contextmanager
def use_cores(n: int) -> Iterator[None]:
    """A context in which networks use so many cores; the caller's number is put back.

    Example:
        >>> before = n_cores()
        >>> with use_cores(before + 1):
        ...     n_cores() - before
        1
        >>> n_cores() == before
        True
    """
    of_torch, before = torch.get_num_threads(), _n_cores.get()
    set_cores(n)
    try:
        yield
    finally:
        torch.set_num_threads(of_torch)
        _n_cores.set(before)
