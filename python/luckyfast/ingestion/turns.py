"""How long a thread may keep the interpreter from the others: shorter while any run of ingest goes on."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["SWITCH_INTERVAL_S", "short_turns"]

SWITCH_INTERVAL_S = 0.0005


class _Turns:
    """The runs that go on now, and the interval that was set before the first of them."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.n_runs = 0
        self.interval_s = 0.0


_turns = _Turns()


@contextmanager
def short_turns() -> Iterator[None]:
    """Let threads take turns sooner until the last of the runs that overlap has ended.

    PERF: a worker that comes out of a kernel needs the interpreter for microseconds and must not wait for it long.

    Example:
        >>> with short_turns():
        ...     sys.getswitchinterval()
        0.0005
    """
    with _turns.lock:
        if _turns.n_runs == 0:
            _turns.interval_s = sys.getswitchinterval()
            sys.setswitchinterval(min(_turns.interval_s, SWITCH_INTERVAL_S))
        _turns.n_runs += 1
    try:
        yield
    finally:
        with _turns.lock:
            _turns.n_runs -= 1
            if _turns.n_runs == 0:
                sys.setswitchinterval(_turns.interval_s)
