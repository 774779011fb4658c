"""Draw progress, tables and errors on a terminal, or as plain lines where there is none."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from luckyfast.config import format_duration, format_size
from luckyfast.progress import NullProgress, Progress

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as RichBars
    from rich.progress import TaskID

__all__ = [
    "PlainProgress",
    "RichProgress",
    "console",
    "draw",
    "make_progress",
    "plain_text",
    "print_error",
    "print_facts",
    "print_table",
    "say",
    "stop_drawing",
]

_drawn: list[Drawing] = []


class Drawing(Protocol):
    """What rich redraws in place, with the cursor hidden meanwhile."""

    def start(self) -> None:
        """Begin."""

    def stop(self) -> None:
        """Leave it as it stands; may be called again."""


def draw(drawing: Drawing) -> None:
    """Begin to draw something, until it is stopped or `stop_drawing` is called."""
    stop_drawing()
    _drawn.append(drawing)
    drawing.start()


def stop_drawing() -> None:
    """Leave whatever is being drawn as it stands; the cursor comes back."""
    while _drawn:
        _drawn.pop().stop()


def console(*, stderr: bool = True) -> Console:
    """A rich console that respects NO_COLOR, pipes and the terminal's width."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, soft_wrap=not (sys.stderr if stderr else sys.stdout).isatty())


def make_progress(*, quiet: bool) -> Progress:
    """The listener that suits where standard error goes."""
    if quiet:
        return NullProgress()
    return RichProgress() if sys.stderr.isatty() else PlainProgress()


class RichProgress:
    """One bar per stage on standard error, with rate, time left, and a short note."""

    def __init__(self) -> None:
        self._bars: RichBars | None = None
        self._task: TaskID | None = None
        self._unit = ""

    def start(self, stage: str, total: float | None, unit: str) -> None:
        """Begin a stage; ends the one before it."""
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            ProgressColumn,
            SpinnerColumn,
            TaskProgressColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )
        from rich.progress import Progress as RichBars

        self.finish()
        amount: list[ProgressColumn] = []
        if unit == "bytes":
            amount = [DownloadColumn(), TransferSpeedColumn()]
        elif unit == "share":
            amount = [TaskProgressColumn()]
        elif total is not None:
            amount = [TextColumn("{task.completed:,.0f}/{task.total:,.0f} " + unit)]
        self._bars = RichBars(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            *amount,
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("[dim]{task.fields[note]}"),
            console=console(),
        )
        self._task = self._bars.add_task(stage, total=total, note="")
        draw(self._bars)

    def advance(self, amount: float) -> None:
        """Move the bar."""
        if self._bars is not None and self._task is not None:
            self._bars.advance(self._task, amount)

    def note(self, text: str) -> None:
        """Show a short text beside the bar, or on a line of its own between two stages."""
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, note=text)
        else:
            console().print(text, markup=False)

    def finish(self) -> None:
        """Leave the bar as it stands."""
        if self._bars is not None and self._task is not None:
            total = self._bars.tasks[0].total
            done = self._bars.tasks[0].completed if total is None else total
            self._bars.update(self._task, total=max(done, 1), completed=max(done, 1))
            stop_drawing()
        self._bars = self._task = None


class PlainProgress:
    """A line at the start and end of each stage and every ten seconds between, for logs and pipes."""

    interval_s = 10.0

    def __init__(self) -> None:
        self._stage: str | None = None

    def start(self, stage: str, total: float | None, unit: str) -> None:
        """Begin a stage; ends the one before it."""
        self.finish()
        self._stage, self._total, self._unit = stage, total, unit
        self._done, self._note = 0.0, ""
        self._started = self._printed = time.monotonic()
        print(f"{stage} ...", file=sys.stderr, flush=True)

    def advance(self, amount: float) -> None:
        """Count."""
        self._done += amount
        now = time.monotonic()
        if self._stage is not None and now - self._printed >= self.interval_s:
            self._printed = now
            print(f"{self._stage}: {self._amount()} {self._note}".rstrip(), file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        """Keep a short text for the next line of the stage; between two stages it is one by itself."""
        if self._stage is None:
            print(text, file=sys.stderr, flush=True)
        else:
            self._note = text

    def finish(self) -> None:
        """Print how long the stage took."""
        if self._stage is not None:
            took = format_duration(time.monotonic() - self._started)
            print(f"{self._stage}: done in {took} {self._note}".rstrip(), file=sys.stderr, flush=True)
        self._stage = None

    def _amount(self) -> str:
        share = f"{self._done / self._total:.0%}" if self._total else ""
        if self._unit == "share":
            return share
        done = format_size(self._done) if self._unit == "bytes" else f"{self._done:,.0f} {self._unit}"
        return f"{done} ({share})" if share else done


def say(text: str) -> None:
    """Print on standard error what is no result."""
    print(text, file=sys.stderr)


def plain_text(value: Any) -> str:
    """Bytes of a raw row and paths, as text for JSON.

    Example:
        >>> plain_text(b"caf\\xe9")
        'caf\\\\xe9'
    """
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def print_error(message: str, hint: str | None) -> None:
    """Print one sentence, then the hint, on standard error; long lines are left to the terminal, so that a command in
    them can be copied.
    """
    stop_drawing()
    out = console()
    out.print("[bold red]error:[/] ", end="")
    out.print(message, markup=False, soft_wrap=True)
    if hint:
        out.print("[bold cyan]hint:[/] ", end="")
        out.print(hint, markup=False, soft_wrap=True)


def print_facts(facts: Sequence[tuple[str, str]]) -> None:
    """Print names and what is to be said of them, one a line; on a terminal, long texts fold beside their names."""
    if sys.stdout.isatty():
        from rich.table import Table
        from rich.text import Text

        table = Table(show_header=False, box=None, pad_edge=False)
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
        for name, text in facts:
            table.add_row(Text(name), Text(text))
        console(stderr=False).print(table)
        return
    width = max((len(name) for name, _ in facts), default=0)
    for name, text in facts:
        print(f"{name.ljust(width)}  {text}")


def print_table(
    title: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    text: Sequence[int] = (0,),
    emphasis: int | None = None,
) -> None:
    """Print a table on standard output: rich where it is a terminal, aligned plain text elsewhere.

    Args:
        title: what the table shows.
        header: column names.
        rows: cells as text.
        text: which columns hold text and are left-aligned; the others are numbers.
        emphasis: index of a row to set in bold.
    """
    if sys.stdout.isatty():
        from rich.table import Table
        from rich.text import Text

        table = Table(title=Text(title), title_justify="left", header_style="bold", box=None, pad_edge=False)
        for index, name in enumerate(header):
            table.add_column(name, justify="left" if index in text else "right", overflow="fold")
        for index, row in enumerate(rows):
            table.add_row(*(Text(cell) for cell in row), style="bold" if index == emphasis else None)
        console(stderr=False).print(table)
        return
    widths = [max(len(cell) for cell in column) for column in zip(header, *rows, strict=True)]
    print(title)
    for row in (header, *rows):
        cells = (
            cell.ljust(width) if index in text else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join(cells).rstrip())
