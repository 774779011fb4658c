"""Jobs for tests of processes: each is imported by name in a process of its own."""

from __future__ import annotations

import os
import resource
import signal
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luckyfast.errors import ModelError
from luckyfast.search import jobs

if TYPE_CHECKING:
    from luckyfast.search.study import Status


def add(a: int, b: int) -> int:
    return a + b


def pid() -> int:
    return os.getpid()


def fill_memory(n_bytes: int) -> int:
    import numpy as np

    return int(np.ones(n_bytes // 8).sum())


def creep_memory(n_bytes: int) -> int:
    """Grow in pieces that no single limit on an allocation would stop."""
    kept = []
    for _ in range(n_bytes // 1_000_000):
        kept.append(b"x" * 1_000_000)
        time.sleep(0.001)
    return len(kept)


def hold(n_bytes: int, seconds: float) -> int:
    held = b"x" * n_bytes
    time.sleep(seconds)
    return len(held) // n_bytes


def wait(seconds: float) -> str:
    try:
        time.sleep(seconds)
    except KeyboardInterrupt:
        return "interrupted"
    return "done"


def mistake() -> None:
    raise ModelError("no such thing", hint="try another")


def fail() -> None:
    raise ValueError("a defect")


def tell() -> None:
    jobs.listener.start("train", 1.0, "share")
    jobs.listener.advance(0.25)
    jobs.listener.note("loss 1")
    jobs.listener.finish()


def write_beyond_limit() -> None:
    """Meet what a full disk gives: an error when a file grows."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    with tempfile.TemporaryFile() as file:
        file.write(bytes(100_000))
        file.flush()


def read(path: str) -> bytes:
    return Path(path).read_bytes()


def meet_ctrl_c() -> None:
    """Press it before, while and after it may end something."""
    from luckyfast.finishing import _CtrlC

    def press() -> None:
        signal.raise_signal(signal.SIGINT)

    ctrl_c = _CtrlC()
    press()
    print("held")
    try:
        ctrl_c.let_through()
    except KeyboardInterrupt:
        print("back")
    try:
        press()
    except KeyboardInterrupt:
        print("through")
    ctrl_c.hold_back()
    press()
    print("again")


def sizes_over_trials(dataset: Path, out: Path, n_trials: int, **settings: Any) -> list[tuple[int, int]]:
    """Trials that have ended and resident bytes of the process that drives the search, which is this one."""
    import luckyfast

    used: list[tuple[int, int]] = []

    def hear(status: Status) -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        used.append((status.n_trials, pages * os.sysconf("SC_PAGE_SIZE")))

    luckyfast.fit(dataset, out=out, trials=n_trials, threads=2, callbacks=[hear], learning_rate=0.01, **settings)
    return used
