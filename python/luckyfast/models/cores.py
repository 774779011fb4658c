"""How many cores networks use on a CPU: the engine's kernels take them, and PyTorch takes one.

PyTorch's threads wait for the next operation at full speed, some milliseconds long, on the cores that the engine's
threads need by then: with both, two cores were slower than one.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

__all__ = ["n_cores", "set_cores", "use_cores"]

_n_cores: ContextVar[int | None] = ContextVar("n_cores", default=None)
_lock = threading.Lock()
_held: list[int] = []
"""How many threads PyTorch would have, once for each that holds it to one. Its number is that of the thread that sets
it, and of threads that begin later."""


def n_cores() -> int:
    """How many cores the engine's kernels use here: as many as PyTorch would, if nothing else was said.

    Example:
        >>> with use_cores(3):
        ...     n_cores()
        3
    """
    said = _n_cores.get()
    with _lock:
        return said or _n_of_torch()


def set_cores(n: int) -> None:
    """Let networks use so many cores from now on, in this thread.

    Raises:
        ValueError: there is no such number of cores.
    """
    if n < 1:
        raise ValueError(f"{n} cores")
    with _lock:
        _held.append(_n_of_torch())
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
    before = _n_cores.get()
    set_cores(n)
    try:
        yield
    finally:
        _n_cores.set(before)
        with _lock:
            own = _held.pop()
            torch.set_num_threads(own if before is None else 1)


def _n_of_torch() -> int:
    return _held[0] if _held else torch.get_num_threads()
