"""Run a command in a process of its own and measure it together with all its descendants.

Peak memory is that of the process *tree*: every 20 ms the resident sizes (`/proc/PID/statm`) of the process and of all
its descendants (`/proc/PID/task/*/children`) are added up, and the largest sum is kept. Pages that several of them
share are counted once for each, and mapped files count as far as they are resident, so the figure errs on the high
side. What rises and falls between two samples is not seen by this; therefore a process can report its own kernel
high-water mark at its end (`own_peak_rss`), which is exact for one process, and the larger of the two is taken.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Usage", "measure", "own_peak_rss", "tree_rss"]

_INTERVAL_S = 0.02
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Usage:
    """What a process and its descendants used.

    Args:
        returncode: exit status; negative is the signal that ended it.
        wall_s: seconds from start to end.
        cpu_s: user and system seconds of the process and of all descendants that were waited for.
        other_cpu_s: seconds that everything else on the machine was busy meanwhile; 0 where there is no `/proc`.
        peak_rss_bytes: the largest sampled resident size of the tree; 0 where there is no `/proc`.
        timed_out: whether it was killed for taking too long.
        stderr: the end of what it wrote to standard error.
    """

    returncode: int
    wall_s: float
    cpu_s: float
    other_cpu_s: float
    peak_rss_bytes: int
    timed_out: bool
    stderr: str


def tree_rss(pid: int) -> int:
    """Add up the resident sizes of a process and its descendants, in bytes; 0 when it is gone.

    Example:
        >>> import os
        >>> tree_rss(os.getpid()) > 1_000_000
        True
    """
    total, waiting = 0, [pid]
    while waiting:
        folder = f"/proc/{waiting.pop()}"
        try:
            with open(f"{folder}/statm", "rb") as statm:  # noqa: PTH123 (this runs 50 times a second)
                total += int(statm.read().split()[1]) * _PAGE
            for thread in os.listdir(f"{folder}/task"):  # noqa: PTH208
                with open(f"{folder}/task/{thread}/children", "rb") as children:  # noqa: PTH123
                    waiting.extend(int(child) for child in children.read().split())
        except (OSError, IndexError):
            continue  # ended between two looks
    return total


def own_peak_rss() -> int:
    """The high-water mark of this process, or of its largest ended child if that was larger, in bytes.

    Example:
        >>> own_peak_rss() > 1_000_000
        True
    """
    # ru_maxrss of the process itself would include its parent's memory at the time of the fork; VmHWM does not.
    status = Path("/proc/self/status")
    if not status.exists():
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    own = next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    return max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) * 1024


def measure(command: Sequence[str], *, log: Path, timeout_s: float | None = None) -> Usage:
    """Run a command to its end and measure it.

    Args:
        command: program and arguments. It gets a session of its own, no standard input, and no standard output.
        log: file for its standard error.
        timeout_s: kill it and its descendants after that many seconds.

    Returns:
        What it used. A failure is a return code, never an exception.
    """
    with log.open("wb") as stderr:
        busy_before, start = _machine_busy_s(), time.perf_counter()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            start_new_session=True,
        )
    watch = _Watch(process.pid, None if timeout_s is None else start + timeout_s)
    watch.start()
    try:
        _, status, usage = os.wait4(process.pid, 0)
    except BaseException:
        _kill_group(process.pid)
        process.wait()
        raise
    finally:
        watch.ended.set()
        watch.join()
    wall_s, busy_s = time.perf_counter() - start, _machine_busy_s() - busy_before
    process.returncode = os.waitstatus_to_exitcode(status)
    _kill_group(process.pid)
    text = log.read_bytes()[-4000:].decode(errors="replace").strip()
    cpu_s = usage.ru_utime + usage.ru_stime
    other_cpu_s = max(0.0, busy_s - cpu_s)
    return Usage(process.returncode, wall_s, cpu_s, other_cpu_s, watch.peak_rss_bytes, watch.timed_out, text)


class _Watch(threading.Thread):
    """Samples the tree's memory until `ended` is set, and ends the tree when its time is over."""

    def __init__(self, pid: int, deadline: float | None) -> None:
        super().__init__(daemon=True)
        self.pid = pid
        self.deadline = deadline
        self.ended = threading.Event()
        self.peak_rss_bytes = 0
        self.timed_out = False

    def run(self) -> None:
        while True:
            self.peak_rss_bytes = max(self.peak_rss_bytes, tree_rss(self.pid))
            if self.deadline is not None and time.perf_counter() > self.deadline and not self.timed_out:
                self.timed_out = True
                _kill_group(self.pid)
            if self.ended.wait(_INTERVAL_S):
                return


def _machine_busy_s() -> float:
    """Seconds that all cores together have been busy since the machine started."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return 0.0
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, stat.read_text().split()[1:9])
    return float(user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _kill_group(pid: int) -> None:
    """End whatever is left of the session that a process led."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return
