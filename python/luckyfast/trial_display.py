"""Draw a search while it runs: a live panel on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from luckyfast.config import format_duration, format_size
from luckyfast.terminal import console, draw, stop_drawing

if TYPE_CHECKING:
    from rich.console import Group
    from rich.live import Live

    from luckyfast.search.study import Status

__all__ = ["LinePrinter", "LivePanel", "make_search_display", "render"]


def make_search_display(*, quiet: bool) -> Sequence[Callable[[Status], None]]:
    """What suits where standard error goes."""
    if quiet:
        return ()
    return (LivePanel(),) if sys.stderr.isatty() else (LinePrinter(),)


class LinePrinter:
    """A line for each thing worth telling, and one every half minute."""

    interval_s = 30.0

    def __init__(self) -> None:
        self._printed_s = -math.inf

    def __call__(self, status: Status) -> None:
        """Print what there is to tell of a search."""
        if status.single:
            return  # its progress is told as any other
        if status.message:
            print(f"[{format_duration(status.elapsed_s)}] {status.message}", file=sys.stderr, flush=True)
        elif status.elapsed_s - self._printed_s < self.interval_s:
            return
        self._printed_s = status.elapsed_s
        print(f"[{format_duration(status.elapsed_s)}] {_summary(status)}", file=sys.stderr, flush=True)


class LivePanel:
    """Budget, workers, memory, rungs and the best so far, redrawn four times a second at most."""

    interval_s = 0.25

    def __init__(self) -> None:
        self._live: Live | None = None
        self._drawn = 0.0

    def __call__(self, status: Status) -> None:
        """Draw; the panel is left as it stands when the search ends."""
        from rich.live import Live

        if status.single:
            return
        if self._live is None:
            self._live = Live(console=console(), auto_refresh=False, transient=False)
            draw(self._live)
        if status.ended or time.monotonic() - self._drawn > self.interval_s:
            self._drawn = time.monotonic()
            self._live.update(render(status), refresh=True)
        if status.ended:
            stop_drawing()
            self._live = None


def render(status: Status) -> Group:
    """The panel as rich draws it."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    top = Table.grid(padding=(0, 2))
    if math.isfinite(status.budget_s):
        share = min(status.elapsed_s / status.budget_s, 1.0)
        until = format_duration(max(status.ends_in_s, 0.0))
        text = f"{format_duration(status.elapsed_s)} of {format_duration(status.budget_s)}, search ends in {until}"
        top.add_row("time", ProgressBar(total=1.0, completed=share, width=24), text)
    else:
        top.add_row("time", "", format_duration(status.elapsed_s))
    if status.memory_bytes:
        share = min(status.used_bytes / status.memory_bytes, 1.0)
        text = f"{format_size(status.used_bytes)} of {format_size(status.memory_bytes)}"
        top.add_row("memory", ProgressBar(total=1.0, completed=share, width=24), text)
    rungs = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("rung", "customers", "passes", "done"):
        rungs.add_column(name, justify="right")
    for index, (customers, epochs, done) in enumerate(status.rungs):
        rungs.add_row(str(index), f"{customers:.0%}", f"x{epochs:g}", str(done))
    workers = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("trial", "rung", "", "running"):
        workers.add_column(name, justify="right")
    for running in status.running:
        took = status.elapsed_s - running.began_s
        text = f"{format_duration(took)} of about {format_duration(running.estimate_s)}"
        bar = ProgressBar(total=1.0, completed=min(running.share, 1.0), width=16)
        workers.add_row(str(running.job.number), str(running.job.rung), bar, text)
    return Group(top, rungs, workers, Text(_best(status)))


def _summary(status: Status) -> str:
    done = sum(count for _, _, count in status.rungs)
    parts = [f"{status.n_trials} configurations, {done} trainings"]
    if status.memory_bytes:
        parts.append(f"memory {format_size(status.used_bytes)} of {format_size(status.memory_bytes)}")
    if math.isfinite(status.ends_in_s):
        parts.append(f"search ends in {format_duration(max(status.ends_in_s, 0.0))}")
    return ", ".join([*parts, _best(status)])


def _best(status: Status) -> str:
    best = status.best
    if best is None:
        return "no model yet"
    text = f"best: trial {best.number}, loss {best.loss:.4f}"
    hit1: Any = best.figures.get("valid_hit1")
    if hit1 is not None:
        text += f", hit@1 by score {hit1:.3f}"
        if status.habit_hit1 is not None:
            text += f" ({100 * (hit1 - status.habit_hit1):+.1f} points over decayed personal frequency)"
    changed = {name: value for name, value in best.settings.items() if status.start.get(name) != value}
    shown = ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}" for name, value in changed.items()
    )
    return f"{text}; {shown or 'the default configuration'}"
