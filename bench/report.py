"""What a benchmark found: records, a JSON file that keeps them, and tables that show them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Literal

from luckyfast.config import format_duration, format_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

__all__ = [
    "BenchReport",
    "Run",
    "SystemResult",
    "TaskResult",
    "render_markdown",
    "render_tables",
]

FORMAT_NAME = "luckyfast-bench"
FORMAT_VERSION = 1
_BUSY = 0.05

RunStatus = Literal["ok", "wrong", "failed"]
SystemStatus = Literal["ok", "wrong", "failed", "not installed"]


@dataclass(frozen=True)
class Run:
    """One measured run in a process of its own.

    Args:
        status: `wrong` is a run that ended well with a result that is not the right one.
        wall_s: seconds of the work itself, after import and warm-up; None when it did not end well.
        cpu_s: user and system seconds of the work, ended children included.
        start_s: seconds of everything else in the process: interpreter, imports, a small first run, exit.
        peak_rss_bytes: largest resident size of the process tree.
        other_cpu_s: seconds that everything else on the machine was busy meanwhile.
        checksum: of the result.
        metrics: figures of the task itself.
        error: why it failed or was wrong.
    """

    status: RunStatus
    wall_s: float | None
    cpu_s: float | None
    start_s: float
    peak_rss_bytes: int
    other_cpu_s: float = 0.0
    checksum: str | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    error: str | None = None


@dataclass(frozen=True)
class SystemResult:
    """All runs of one system; `first_run_s` is the unmeasured first one, which fills caches of compiled code."""

    name: str
    status: SystemStatus
    runs: tuple[Run, ...] = ()
    first_run_s: float | None = None

    def median(self, field_name: str) -> float | None:
        """Median of one field over the runs that were right; None when there is none.

        Example:
            >>> runs = tuple(Run("ok", wall, 1.0, 2.0, 3) for wall in (3.0, 1.0, 2.0))
            >>> SystemResult("luckyfast", "ok", runs).median("wall_s")
            2.0
        """
        values = [getattr(run, field_name) for run in self.runs if run.status == "ok"]
        return float(median(values)) if values else None

    @property
    def peak_rss_bytes(self) -> int:
        """The largest peak of all runs."""
        return max((run.peak_rss_bytes for run in self.runs), default=0)

    @property
    def metrics(self) -> dict[str, float]:
        """The task's own figures: medians over the runs that were right."""
        good = [run.metrics for run in self.runs if run.status == "ok"]
        return {name: median(run[name] for run in good if name in run) for name in (good[0] if good else ())}

    @property
    def error(self) -> str | None:
        """Why the first bad run was bad."""
        return next((run.error for run in self.runs if run.error), None)


@dataclass(frozen=True)
class TaskResult:
    """All systems on one task; the ratios are to the first system."""

    name: str
    title: str
    inputs: dict[str, Any]
    expected: str | None
    n_bytes: int
    systems: tuple[SystemResult, ...]

    def ratio(self, system: SystemResult) -> float | None:
        """How many times the first system's median time another one took."""
        times = [one.median("wall_s") for one in (self.systems[0], system)]
        return times[1] / times[0] if times[0] and times[1] else None


@dataclass(frozen=True)
class BenchReport:
    """A whole benchmark run: where, with what settings, what came out; `path` is its JSON file."""

    machine: dict[str, Any]
    settings: dict[str, Any]
    started: str
    elapsed_s: float
    tasks: tuple[TaskResult, ...]
    path: Path | None = None

    @property
    def foreign_load(self) -> float:
        """Share of the cores that others kept busy during the runs; from a few percent on, times mislead."""
        runs = [run for task in self.tasks for system in task.systems for run in system.runs]
        elapsed = sum(run.start_s + (run.wall_s or 0.0) for run in runs) * self.machine["cores"]
        return sum(run.other_cpu_s for run in runs) / elapsed if elapsed else 0.0

    @property
    def all_right(self) -> bool:
        """Whether no system that is installed failed or gave a wrong result."""
        return all(system.status in ("ok", "not installed") for task in self.tasks for system in task.systems)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as a JSON object."""
        content = {name: value for name, value in asdict(self).items() if name != "path"}
        return {"format": FORMAT_NAME, "format_version": FORMAT_VERSION, **content}

    def write(self, path: Path) -> None:
        """Write the report as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.to_dict(), indent=1) + "\n", encoding="utf-8")


def render_tables(report: BenchReport) -> list[Table]:
    """Render each task as a rich table."""
    from rich.table import Table

    tables = []
    for task in report.tasks:
        header, rows = _table(task)
        table = Table(title=task.title, title_justify="left")
        for at, name in enumerate(header):
            table.add_column(name, justify="left" if at in (0, len(header) - 1) else "right")
        for row, system in zip(rows, task.systems, strict=True):
            table.add_row(*row, style={"ok": "", "not installed": "dim"}.get(system.status, "red"))
        tables.append(table)
    if tables and (warning := _busy_warning(report)):
        tables[-1].caption = warning
    return tables


def render_markdown(report: BenchReport) -> str:
    """Render the report as Markdown: the machine, then a table for each task."""
    machine = report.machine
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    lines = [
        f"{machine['cpu_model']}, {machine['cores']} cores, {format_size(machine['memory_bytes'])} of memory, "
        f"{machine['system']} {machine['kernel']}, Python {machine['python']}; {packages}; {report.started}",
    ]
    for task in report.tasks:
        header, rows = _table(task)
        lines += ["", f"**{task.title}**", "", _markdown_row(header), _markdown_row(["---"] * len(header))]
        lines += [_markdown_row(row) for row in rows]
    if warning := _busy_warning(report):
        lines += ["", warning]
    return "\n".join(lines) + "\n"


def _table(task: TaskResult) -> tuple[list[str], list[list[str]]]:
    """The cells of a task's table: the same for every way of showing it."""
    metric_names = list(dict.fromkeys(name for system in task.systems for name in system.metrics))
    header = [
        "system",
        "time",
        f"x {task.systems[0].name}" if task.systems else "x",
        "CPU",
        "start-up",
        "peak memory",
    ]
    header += [*(["GB/s"] if task.n_bytes else []), *metric_names, "result"]
    rows = []
    for system in task.systems:
        wall_s, ratio = system.median("wall_s"), task.ratio(system)
        cells = [
            system.name,
            _seconds(wall_s),
            f"{ratio:.2f}" if ratio else "",
            _seconds(system.median("cpu_s")),
            _seconds(system.median("start_s")),
            format_size(system.peak_rss_bytes) if system.peak_rss_bytes else "",
        ]
        if task.n_bytes:
            cells.append(f"{task.n_bytes / wall_s / 1e9:.2f}" if wall_s else "")
        cells += [f"{system.metrics[name]:.4g}" if name in system.metrics else "" for name in metric_names]
        rows.append([*cells, _verdict(task, system)])
    return header, rows


def _busy_warning(report: BenchReport) -> str:
    """A sentence for a machine that was not idle; empty for one that was."""
    if report.foreign_load < _BUSY:
        return ""
    return f"other processes kept {report.foreign_load:.0%} of the cores busy during these runs: do not trust the times"


def _verdict(task: TaskResult, system: SystemResult) -> str:
    if system.status == "ok":
        return "right" if task.expected is not None else "done"
    if system.status == "not installed":
        return "not installed"
    detail = (system.error or "").splitlines()[-1:] or [""]
    return f"{'WRONG' if system.status == 'wrong' else 'failed'}: {detail[0][:100]}"


def _seconds(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"{seconds:.2f}s" if seconds < 60 else format_duration(seconds)


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
