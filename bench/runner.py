"""Run benchmark tasks: every run in a process of its own, the systems in turn (A B C A B C), every result checked."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luckyfast.config import available_cores
from luckyfast.errors import UserError
from luckyfast.progress import NullProgress

from .machine import describe_machine
from .process import Usage, measure
from .report import BenchReport, Run, SystemResult, SystemStatus, TaskResult
from .task import TASKS, Inputs, Settings, Task, find_task, is_installed

if TYPE_CHECKING:
    from luckyfast.progress import Progress

__all__ = ["run_bench"]


def run_bench(
    tasks: Sequence[str] = (),
    *,
    quick: bool = False,
    systems: Sequence[str] | None = None,
    runs: int | None = None,
    scale: int = 1,
    memory_bytes: int | None = None,
    n_threads: int | None = None,
    timeout_s: float = 3600.0,
    out: Path = Path(".bench"),
    progress: Progress | None = None,
) -> BenchReport:
    """Run benchmark tasks and write what came out to `out/results/`.

    Args:
        tasks: names of tasks (default: all).
        quick: the small form of each task.
        systems: only these systems (default: all of each task).
        runs: measured runs of each system (default: the task's own number).
        scale: how many times over the task's log is written.
        memory_bytes: memory limit for every system that takes one.
        n_threads: cores to use (default: all that this process may).
        timeout_s: a run that takes longer is ended and counts as failed.
        out: folder for results (`results/`), prepared inputs (`cache/`) and passing files (`scratch/`, removed).
        progress: told about each run.

    Returns:
        The report. A failed or wrong run is part of it and raises nothing.

    Raises:
        UserError: no such task or system, no run, or an input cannot be prepared.
    """
    progress = progress or NullProgress()
    settings = Settings(quick, scale, memory_bytes, n_threads or available_cores())
    chosen = {name: find_task(name) for name in (tasks or TASKS)}
    started, start = datetime.now(UTC), time.perf_counter()
    machine = describe_machine()
    if runs is not None and runs < 1:
        raise UserError(f"runs is {runs}", hint="give --runs a whole number of at least 1, or leave it out")
    known = list(dict.fromkeys(system for task in chosen.values() for system in task.systems))
    for system in systems or ():
        if system not in known:
            raise UserError(f"no such system: {system!r}", hint=f"the systems are: {', '.join(known)}")
    results = []
    for address, task in chosen.items():
        names = [name for name in task.systems if systems is None or name in systems]
        if names:
            bench = _TaskBench(address, task, settings, out.absolute(), timeout_s, progress)
            results.append(bench.run(names, runs or task.default_runs[quick], every=systems is not None))
    progress.finish()
    path = out / "results" / f"{started:%Y%m%dT%H%M%SZ}.json"
    shown = asdict(settings) | {"runs": runs}
    report = BenchReport(
        machine, shown, f"{started:%Y-%m-%dT%H:%M:%SZ}", time.perf_counter() - start, tuple(results), path
    )
    report.write(path)
    return report


class _TaskBench:
    """One task with its input, ready to run systems on it."""

    def __init__(
        self, address: str, task: Task, settings: Settings, out: Path, timeout_s: float, progress: Progress
    ) -> None:
        self.address = address
        self.task = task
        self.settings = settings
        self.timeout_s = timeout_s
        self.progress = progress
        self.environments: Mapping[str, Mapping[str, str]] = {}
        self.scratch = out / "scratch" / f"{task.name}-{os.getpid()}"
        self.cache = out / "cache"

    def run(self, names: Sequence[str], n_runs: int, *, every: bool) -> TaskResult:
        """Run the systems in turn, `n_runs` times over; unless `every` one was asked for, those that the task wants."""
        self.progress.start(f"bench {self.task.name}: preparing", None, "")
        self.cache.mkdir(parents=True, exist_ok=True)
        inputs = self.task.prepare(self.cache, self.settings)
        self.environments = inputs.environments
        if inputs.systems is not None and not every:
            names = [name for name in names if name in inputs.systems]
        installed = [name for name in names if is_installed(self.task.systems[name])]
        self.scratch.mkdir(parents=True, exist_ok=True)
        try:
            first_s = {name: self._warm_up(name, inputs) for name in installed}
            measured: dict[str, list[Run]] = {name: [] for name in installed}
            self.progress.start(f"bench {self.task.name}", n_runs * len(installed), "runs")
            for _ in range(n_runs):
                for name in installed:
                    run = self._run_once(name, inputs)
                    measured[name].append(run)
                    self.progress.advance(1)
                    self.progress.note(f"{name} {run.status if run.wall_s is None else f'{run.wall_s:.2f}s'}")
        finally:
            shutil.rmtree(self.scratch, ignore_errors=True)
        results = tuple(
            SystemResult(name, _status(measured[name]), tuple(measured[name]), first_s[name])
            if name in measured
            else SystemResult(name, "not installed")
            for name in names
        )
        shown = {name: value for name, value in inputs.values.items() if isinstance(value, int | float | bool)}
        return TaskResult(self.task.name, self.task.title, shown, inputs.expected, inputs.n_bytes, results)

    def _warm_up(self, system: str, inputs: Inputs) -> float | None:
        """Let a system fill its caches of compiled code on a small input."""
        if inputs.warm_up is None:
            return None
        usage, _ = self._call("run", system, inputs.warm_up, None)
        return usage.wall_s

    def _run_once(self, system: str, inputs: Inputs) -> Run:
        os.sync()  # what the run before left to be written would slow this one
        usage, result = self._call("run", system, inputs.values, inputs.warm_up)
        if result is None:
            error = f"ended after {self.timeout_s:.0f} s" if usage.timed_out else _last_words(usage)
            return Run("failed", None, None, usage.wall_s, usage.peak_rss_bytes, usage.other_cpu_s, error=error)
        checked, verdict = self._call("check", system, inputs.values, None)
        peak = max(usage.peak_rss_bytes, result["peak_rss_bytes"])
        measured = (result["wall_s"], result["cpu_s"], usage.wall_s - result["wall_s"], peak, usage.other_cpu_s)
        if verdict is None:
            return Run("failed", *measured, error=f"the result cannot be read: {_last_words(checked)}")
        checksum, error = verdict["checksum"], verdict["error"]
        if error is None and inputs.expected is not None and checksum != inputs.expected:
            error = f"the result is {checksum}, not {inputs.expected}"
        return Run("wrong" if error else "ok", *measured, checksum, result["metrics"], error)

    def _call(
        self, action: str, system: str, values: Mapping[str, Any], warm_up: Mapping[str, Any] | None
    ) -> tuple[Usage, dict[str, Any] | None]:
        """Run the worker; None for the result when it did not end well."""
        folder, request, result = (self.scratch / name for name in ("out", "request.json", "result.json"))
        if action == "run":
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        content = {
            "task": self.address,
            "system": system,
            "values": dict(values),
            "warm_up": None if warm_up is None else dict(warm_up),
            "out": str(folder),
            "environment": dict(self.environments.get(system, {})),
            "n_threads": values.get("n_threads", self.settings.n_threads),
        }
        request.write_text(json.dumps(content), encoding="utf-8")
        result.unlink(missing_ok=True)
        command = [sys.executable, "-m", "luckyfast.bench.worker", action, str(request), str(result)]
        usage = measure(command, log=self.scratch / "stderr.txt", timeout_s=self.timeout_s)
        if usage.returncode != 0 or not result.exists():
            return usage, None
        return usage, json.loads(result.read_text(encoding="utf-8"))


def _status(runs: Sequence[Run]) -> SystemStatus:
    """The worst that happened to a system."""
    states = {run.status for run in runs}
    return "wrong" if "wrong" in states else "failed" if "failed" in states else "ok"


def _last_words(usage: Usage) -> str:
    """Why a process ended badly, in one line."""
    how = f"signal {-usage.returncode}" if usage.returncode < 0 else f"exit code {usage.returncode}"
    lines = usage.stderr.splitlines()
    return f"{how}: {lines[-1]}" if lines else how
