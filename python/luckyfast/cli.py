"""The command line: reads flags, calls the library, and is the only place that prints.

Standard output carries results; progress, notes and errors go to standard error. Exit codes: 0 done, 1 a defect or
a failure of the machine, 2 something the user can mend, 130 stopped by Ctrl-C, 143 by SIGTERM.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from luckyfast import __version__
from luckyfast.commands import logs, models, shows
from luckyfast.errors import LuckyfastError, UserError

__all__ = ["main"]

_EPILOG = """\
examples:
  luckyfast ingest raw/ receipts/                       dirty logs -> sorted histories
  luckyfast inspect raw/                                what ingest would do
  luckyfast fit receipts/ --arch lstm-embed --budget 20m
  luckyfast predict model-lstm-embed/ --top 5
  luckyfast demo                                        all of it on real receipts

exit codes: 0 done, 1 failure, 2 something you can mend, 130 stopped by Ctrl-C"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: the words after ``luckyfast``; those of this process if None.

    Returns:
        The exit code.
    """
    with _signals():
        code = _run(_parser().parse_args(arguments))
    if arguments is None and threading.current_thread() is threading.main_thread():
        # All is said and done: a signal while the interpreter ends changes nothing about it.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
    return code


def _run(options: argparse.Namespace) -> int:
    """Run one command; whatever goes wrong becomes a sentence and an exit code."""
    from luckyfast.terminal import print_error

    try:
        code: int = options.run(options)
        sys.stdout.flush()
        return code
    except UserError as error:
        print_error(error.message, error.hint)
        return 2
    except LuckyfastError as error:
        print_error(str(error), "this is a defect of luckyfast: please report it with the command you ran")
        return 1
    except KeyboardInterrupt as error:
        is_terminated = isinstance(error, _Terminated)
        print_error("stopped by SIGTERM" if is_terminated else "stopped by Ctrl-C", str(error) or None)
        return 143 if is_terminated else 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        print_error(f"{place}{error.strerror or error}", "check the path, its permissions and the free disk space")
        return 1


class _Terminated(KeyboardInterrupt):
    """SIGTERM, handled as Ctrl-C is."""


@contextmanager
def _signals() -> Iterator[None]:
    """Let the first Ctrl-C or SIGTERM end the command in order, and a second one at once."""
    seen = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal seen
        code = 128 + number
        if seen:
            shown = b"\x1b[?25h" if os.isatty(2) else b""  # a progress bar may have hidden the cursor
            os.write(2, shown + b"\nerror: stopped at once, before everything was put in order\n")
            os._exit(code)
        if _is_loading(frame):
            send_again(number)
            return
        seen = True
        raise _Terminated if number == signal.SIGTERM else KeyboardInterrupt

    def send_again(number: int) -> None:
        again = threading.Timer(0.05, os.kill, (os.getpid(), number))
        again.daemon = True
        again.start()

    def hear(unraisable: sys.UnraisableHookArgs) -> None:
        nonlocal seen
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            sys.__unraisablehook__(unraisable)
            return
        # It came up in a callback of the compiler, which cannot pass it on: the signal is sent again a little later.
        seen = False
        send_again(signal.SIGTERM if issubclass(unraisable.exc_type, _Terminated) else signal.SIGINT)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    hook, sys.unraisablehook = sys.unraisablehook, hear
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_loading(frame: FrameType | None) -> bool:
    """Whether a module or a compiled kernel is being loaded: native code that an exception may leave half done."""
    while frame is not None:
        if "importlib" in frame.f_code.co_filename or "llvmlite" in frame.f_code.co_filename:
            return True
        frame = frame.f_back
    return False


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="luckyfast",
        description="From raw purchase logs larger than memory to a calibrated next-action predictor.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"luckyfast {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in (
        logs.add_ingest,
        logs.add_inspect,
        logs.add_rejects,
        models.add_fit,
        models.add_trials,
        models.add_predict,
        models.add_evaluate,
        shows.add_bench,
        shows.add_demo,
    ):
        add(commands)
    return parser
