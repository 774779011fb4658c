"""One process per job, started from a warm one, watched for memory, and gone with all it held when it is done."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Any

from luckyfast.errors import LuckyfastError
from luckyfast.search.server import receive, send

__all__ = ["JobDiedError", "JobInterruptedError", "JobKilledError", "JobProcesses", "OutOfMemoryError", "resident"]

INTERVAL_S = 0.05
_PAGE = os.sysconf("SC_PAGE_SIZE")
_ENVIRONMENT = {
    # Threads that wait by spinning take the core that another trial needs.
    "OMP_WAIT_POLICY": "PASSIVE",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    # Freed memory goes back to the system, and nobody reserves what he does not use.
    "MALLOC_TRIM_THRESHOLD_": str(64 << 20),
    "MALLOC_ARENA_MAX": "2",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
}


class OutOfMemoryError(LuckyfastError, MemoryError):
    """A job wanted more memory than its share."""


class JobDiedError(LuckyfastError):
    """A job's process ended before the job did, or the job failed with an unforeseen error."""


class JobKilledError(JobDiedError):
    """A job's process was killed from outside, or crashed."""


class JobInterruptedError(LuckyfastError):
    """A job was interrupted and had nothing to show."""


@dataclass(eq=False)
class _Job:
    future: Future[Any]
    channel: socket.socket
    memory_bytes: int | None
    on_event: Callable[[tuple[Any, ...]], None] | None
    first_to_go: bool = False
    killed: bool = False
    pid: int | None = None
    peak_bytes: int = 0
    over_memory: bool = False
    once: subprocess.Popen[bytes] | None = None


class JobProcesses(Executor):
    """Runs each job in a process of its own; a :class:`concurrent.futures.Executor`.

    Functions and arguments are pickled, functions by name; the main script is not imported again. A child dies with
    this process, whatever ends it.

    Args:
        memory_bytes: bound on the sum of resident sizes of this process and all of its own; where it is passed a job is
            killed, the largest of those that are first to go, or else of all. None for no bound.
        preload: module whose import brings all that jobs need: they are forked from a process that has it (20 ms each,
            and some 300 MB for that process). None starts each job anew (3 s each).
    """

    def __init__(self, *, memory_bytes: int | None = None, preload: str | None = None) -> None:
        self.memory_bytes = memory_bytes
        self.preload = preload if hasattr(os, "fork") else None
        self.used_bytes = self.peak_bytes = 0
        self._jobs: dict[Future[Any], _Job] = {}
        self._lock = threading.Lock()
        self._server: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._closed = threading.Event()
        if self.preload is not None:
            self._start_server()
        self._watchdog = threading.Thread(target=self._watch, daemon=True, name="luckyfast-watchdog")
        self._watchdog.start()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run a function; see :meth:`start`."""
        if kwargs:
            raise TypeError("jobs take positional arguments only")
        return self.start(fn, *args)

    def start(
        self,
        fn: Callable[..., Any],
        *args: Any,
        memory_bytes: int | None = None,
        on_event: Callable[[tuple[Any, ...]], None] | None = None,
        first_to_go: bool = False,
    ) -> Future[Any]:
        """Run a function in a process of its own, at once.

        Args:
            fn: a function that its module and name lead to.
            args: its arguments.
            memory_bytes: resident size that the process may reach.
            on_event: receives progress events, such as ``("advance", 0.1)``, in a thread of their own; where it fails
                it hears no more, which is warned of.
            first_to_go: whether it is this job that makes room where all together want too much memory.

        Returns:
            The future. It raises :class:`OutOfMemoryError` where the job wanted too much memory, the job's own error
            where the user can mend it, :class:`JobInterruptedError`, or :class:`JobDiedError`.
        """
        if self._closed.is_set():
            raise RuntimeError("these processes were shut down")
        ours, theirs = socket.socketpair()
        job = _Job(Future(), ours, memory_bytes, on_event, first_to_go)
        job.future.set_running_or_notify_cancel()
        function, arguments = pickle.dumps(fn), pickle.dumps(args)
        with theirs:
            if self.preload is not None:
                self._hand_over(theirs)
            else:
                job.once = self._spawn(theirs)
        with self._lock:
            self._jobs[job.future] = job
        with contextlib.suppress(OSError):  # a process that is dead already shows by the end of its channel
            send(ours, (sys.path, function, arguments, memory_bytes))
        threading.Thread(target=self._listen, args=(job,), daemon=True, name="luckyfast-job").start()
        return job.future

    def interrupt(self, future: Future[Any]) -> None:
        """Send Ctrl-C to a job: a training ends and keeps its best."""
        self.signal(future, signal.SIGINT)

    def kill(self, future: Future[Any]) -> None:
        """End a job now."""
        self.signal(future, signal.SIGKILL)

    def signal(self, future: Future[Any], number: int) -> None:
        """Send a signal to a job's process, if it runs."""
        job = self._jobs.get(future)
        if job is None:
            return
        job.killed = job.killed or number == signal.SIGKILL  # one that has no number yet is killed when it tells it
        if job.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(job.pid, number)

    @property
    def own_bytes(self) -> int:
        """Resident size of this process and the one that jobs are forked from, in bytes."""
        return resident(os.getpid()) + (0 if self._server is None else resident(self._server.pid))

    def peak_of(self, future: Future[Any]) -> int:
        """The largest resident size seen of a job that runs or has just ended, in bytes."""
        job = self._jobs.get(future)
        return 0 if job is None else job.peak_bytes

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End all processes; jobs that still run are killed unless they are waited for."""
        with self._lock:
            jobs = list(self._jobs.values())
        if wait and not cancel_futures:
            for job in jobs:
                with contextlib.suppress(BaseException):
                    job.future.result()
        self._closed.set()
        for job in jobs:
            self.kill(job.future)
        if self._control is not None:
            self._control.close()
        if self._server is not None:
            self._server.wait()
        self._watchdog.join()

    def _start_server(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            assert self.preload is not None
            self._server = self._spawn(theirs, self.preload)
        self._control = ours

    def _spawn(self, end: socket.socket, *arguments: str) -> subprocess.Popen[bytes]:
        # -P: what lies in the current folder must not stand in for a package. A session of its own: Ctrl-C comes to us.
        command = [sys.executable, "-P", "-m", "luckyfast.search.server", str(end.fileno()), *arguments]
        return subprocess.Popen(
            command,
            pass_fds=(end.fileno(),),
            env=os.environ | _ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _hand_over(self, end: socket.socket) -> None:
        assert self._control is not None
        try:
            socket.send_fds(self._control, [b"j"], [end.fileno()])
        except OSError:
            # The server was killed: make another, once.
            self._control.close()
            if self._server is not None:
                self._server.wait()
            self._start_server()
            socket.send_fds(self._control, [b"j"], [end.fileno()])

    def _listen(self, job: _Job) -> None:
        outcome: tuple[str, Any] = ("died", None)
        with job.channel:
            while True:
                try:
                    kind, content = receive(job.channel)
                except (EOFError, OSError):
                    break
                if kind == "pid":
                    job.pid = content
                    if job.killed:
                        self.kill(job.future)
                elif kind == "event":
                    self._hear(job, content)
                else:
                    outcome = (kind, content)
        if job.once is not None:
            job.once.wait()
        with self._lock:
            self._jobs.pop(job.future, None)
        kind, content = outcome
        if kind == "result":
            job.future.set_result(content)
        elif kind == "mistake":
            type_, message, hint = content
            job.future.set_exception(type_(message, hint=hint))
        elif kind == "memory" or job.over_memory:
            job.future.set_exception(OutOfMemoryError(content or "a job outgrew its share of memory and was stopped"))
        elif kind == "interrupted":
            job.future.set_exception(JobInterruptedError("a job was interrupted"))
        elif content is None:
            job.future.set_exception(JobKilledError("a job's process was killed or crashed"))
        else:
            job.future.set_exception(JobDiedError(content))

    @staticmethod
    def _hear(job: _Job, event: tuple[Any, ...]) -> None:
        if job.on_event is None:
            return
        try:
            job.on_event(event)
        except Exception as error:  # it is not the job's fault, whose outcome is still waited for
            job.on_event = None
            with contextlib.suppress(Warning):  # where warnings are errors nobody would hear this one
                warnings.warn(f"progress is no longer shown: {error!r}", stacklevel=1)

    def _watch(self) -> None:
        while not self._closed.wait(INTERVAL_S):
            with self._lock:
                jobs = list(self._jobs.values())
            sizes = {}
            for job in jobs:
                if job.pid is not None:
                    sizes[job.future] = size = resident(job.pid)
                    job.peak_bytes = max(job.peak_bytes, size)
                    if job.memory_bytes is not None and size > job.memory_bytes:
                        self._stop(job)
            self.used_bytes = total = self.own_bytes + sum(sizes.values())
            self.peak_bytes = max(self.peak_bytes, total)
            # What has been stopped may take a moment to go: nobody else has to make that room too.
            there = [job for job in jobs if job.future in sizes and not job.over_memory]
            total -= sum(sizes[job.future] for job in jobs if job.future in sizes and job.over_memory)
            if self.memory_bytes is not None and total > self.memory_bytes and there:
                willing = [job for job in there if job.first_to_go]
                self._stop(max(willing or there, key=lambda job: sizes[job.future]))

    def _stop(self, job: _Job) -> None:
        job.over_memory = True
        self.kill(job.future)


def resident(pid: int) -> int:
    """Resident size of a process in bytes; 0 when it is gone or where there is no ``/proc``.

    Example:
        >>> import os
        >>> resident(os.getpid()) > 1_000_000
        True
    """
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:  # noqa: PTH123 (this runs 20 times a second)
            return int(file.read().split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0
