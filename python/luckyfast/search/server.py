"""The process that trials are forked from: it has imported all they need, so that one starts in a few milliseconds.

``python -m luckyfast.search.server FD MODULE`` imports the module, takes one channel after another from the socket FD
and forks a child for each; without a module it is such a child itself, for where memory is too tight to keep a process
in reserve. A channel carries one pickled job in, and events and one outcome out. A child that dies says nothing more:
its end of the channel closes.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import os
import pickle
import signal
import socket
import struct
import sys
import threading
import time
import traceback
from typing import Any

from luckyfast.errors import BudgetError, ModelError, UserError, is_disk_full
from luckyfast.search import jobs

__all__ = ["main", "receive", "send"]

_LENGTH = struct.Struct("!Q")
_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> int:
    """Serve until the other end of the socket closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    control = socket.socket(fileno=int(arguments[0]))
    if len(arguments) == 1:
        _run(control)
    importlib.import_module(arguments[1])
    gc.collect()
    gc.freeze()  # children need not look through what was imported for garbage, and share its memory for longer
    # Ended children are not waited for: their channels tell.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        _, descriptors, _, _ = socket.recv_fds(control, 1, 1)
        if not descriptors:
            return 0
        if os.fork() == 0:
            control.close()
            _run(socket.socket(fileno=descriptors[0]))
        os.close(descriptors[0])


def send(channel: socket.socket, message: Any) -> None:
    """Write one pickled message."""
    data = pickle.dumps(message)
    channel.sendall(_LENGTH.pack(len(data)) + data)


def receive(channel: socket.socket) -> Any:
    """Read one pickled message.

    Raises:
        EOFError: the other end closed.
    """
    (length,) = _LENGTH.unpack(_read(channel, _LENGTH.size))
    return pickle.loads(_read(channel, length))


def _read(channel: socket.socket, n_bytes: int) -> bytes:
    parts = bytearray()
    while len(parts) < n_bytes:
        part = channel.recv(min(n_bytes - len(parts), 1 << 20))
        if not part:
            raise EOFError
        parts += part
    return bytes(parts)


def _run(channel: socket.socket) -> None:
    """Do one job and end this process, whatever happens."""
    parent = os.getppid()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    code = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:  # noqa: PTH123
            file.write("900")
        send(channel, ("pid", os.getpid()))
        paths, function, arguments, memory_bytes = receive(channel)
        sys.path[:] = paths
        if os.getppid() == parent:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            jobs.listener = _Relay(channel)
            send(channel, _outcome(function, arguments, memory_bytes))
            code = 0
    except (EOFError, OSError, KeyboardInterrupt):
        pass  # nobody listens any more
    finally:
        os._exit(code)


def _outcome(function: bytes, arguments: bytes, memory_bytes: int | None) -> tuple[str, Any]:
    try:
        call, values = pickle.loads(function), pickle.loads(arguments)
        if memory_bytes is not None:
            _limit_data(memory_bytes)
        return "result", call(*values)
    except UserError as error:
        return "mistake", (type(error), error.message, error.hint)
    except KeyboardInterrupt:
        return "interrupted", None
    except OSError as error:
        if not error.errno:
            return "failed", traceback.format_exc()
        return "mistake", _explain(error)
    except (MemoryError, RuntimeError) as error:
        out = isinstance(error, MemoryError) or "alloc" in str(error)
        return ("memory" if out else "failed"), traceback.format_exc()
    except Exception:
        return "failed", traceback.format_exc()


def _explain(error: OSError) -> tuple[type[UserError], str, str]:
    """What the user is told where the system refuses something, a full disk above all."""
    place = f" ({error.filename})" if error.filename else ""
    if is_disk_full(error):
        return BudgetError, f"the disk is full{place}", "free some space, then go on with the same command and --resume"
    return ModelError, f"{error.strerror}{place}", "check the path and its permissions"


def _limit_data(memory_bytes: int) -> None:
    """Let an allocation that this process has no room for fail in it, where it can still say so."""
    import resource

    with contextlib.suppress(OSError, ValueError):
        status = open("/proc/self/status").read()  # noqa: PTH123, SIM115
        data, resident = (int(status.split(f"{name}:")[1].split()[0]) * 1024 for name in ("VmData", "VmRSS"))
        limit = data + max(memory_bytes - resident, 0)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, resource.getrlimit(resource.RLIMIT_DATA)[1]))


class _Relay:
    """A progress listener whose calls are heard in the process that gave the job; advances go out ten times a second.

    Sends are atomic because a job reports from one thread at a time.
    """

    interval_s = 0.1

    def __init__(self, channel: socket.socket) -> None:
        self.channel, self.lock = channel, threading.Lock()
        self.waiting, self.sent = 0.0, 0.0

    def _send(self, *event: Any) -> None:
        with self.lock:
            send(self.channel, ("event", event))

    def start(self, stage: str, total: float | None, unit: str) -> None:
        self._flush()
        self._send("start", stage, total, unit)

    def advance(self, amount: float) -> None:
        self.waiting += amount
        if time.monotonic() - self.sent > self.interval_s:
            self._flush()

    def note(self, text: str) -> None:
        self._flush()
        self._send("note", text)

    def finish(self) -> None:
        self._flush()
        self._send("finish")

    def _flush(self) -> None:
        if self.waiting:
            self._send("advance", self.waiting)
        self.waiting, self.sent = 0.0, time.monotonic()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
