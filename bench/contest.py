"""Search methods on the real objective: ``python -m luckyfast.bench.contest``.

Every system gets the same log, the same space around the same default configuration, as many workers, and the same
wall clock; what counts is the least validation loss it has reached by when. Peers train on all customers, as many
passes as the default configuration has, and their pruner hears each pass. Nothing is refitted or tested here.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from luckyfast.config import available_cores, parse_duration
from luckyfast.search import jobs
from luckyfast.search.clock import Clock, CostModel, training_cost
from luckyfast.search.journal import Journal, Record
from luckyfast.search.memory import MemoryModel
from luckyfast.search.process import JobProcesses
from luckyfast.search.proposer import DEFAULT_OPTIMIZER, GP_OPTIMIZER, Proposer
from luckyfast.search.scheduler import RUNGS, Scheduler
from luckyfast.search.space import Space
from luckyfast.search.study import Study

from .machine import describe_machine
from .simulation import CHECKPOINTS
from .task import is_installed
from .tasks.quality import N_TARGETS, prepare_dataset
from .tuners import PEERS, Found

__all__ = ["SYSTEMS", "main", "render_table", "run_system"]

SYSTEMS = ("luckyfast", "luckyfast (bayes)", *PEERS)


def run_system(
    system: str, dataset: Path, space: Space, budget_s: float, *, seed: int, n_workers: int, scratch: Path
) -> Found:
    """Search with one system.

    Args:
        system: one of `SYSTEMS`.
        dataset: folder of the dataset.
        space: what is searched.
        budget_s: wall clock, from when the processes are warm.
        seed: of the system.
        n_workers: trials at a time.
        scratch: folder for weights and journals, which is removed.

    Returns:
        What was found when.
    """
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    start = dict(space.start)
    try:
        with JobProcesses(preload=jobs.FINISH.partition(":")[0]) as processes:
            probed = processes.start(jobs.call, jobs.PROBE, str(dataset), start, 1, "cpu").result()
            if system.startswith("luckyfast"):
                optimizer = GP_OPTIMIZER if "bayes" in system else DEFAULT_OPTIMIZER
                return _search(processes, dataset, space, probed, budget_s, optimizer, seed, n_workers, scratch)
            peer = PEERS[system](processes, dataset, space, probed["split"], budget_s, scratch, system, seed)
            return peer.search(n_workers)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _search(
    processes: JobProcesses,
    dataset: Path,
    space: Space,
    probed: Mapping[str, Any],
    budget_s: float,
    optimizer: str,
    seed: int,
    n_workers: int,
    scratch: Path,
) -> Found:
    journal = Journal(scratch / "trials.jsonl", {"seed": seed})
    study = Study(
        dataset_path=str(dataset),
        split=probed["split"],
        scheduler=Scheduler(Proposer(space, optimizer, seed, training_cost), RUNGS, journal.trials),
        journal=journal,
        executor=processes,
        clock=Clock(budget_s, time.monotonic()),
        costs=_OnlyTrials(RUNGS, journal.trials, probed, space.start),
        memory=MemoryModel(probed["n_actions"], probed["rest_bytes"]),
        folder=scratch,
        n_workers=n_workers,
    )
    study.run()
    journal.close()
    records = [record for trial in journal.trials.values() for record in trial.records.values()]
    return sorted((record.at_s, record.loss) for record in records if record.loss is not None)


class _OnlyTrials(CostModel):
    """Costs where nothing follows the search."""

    def finish_s(self, settings: Mapping[str, Any], left_s: float = math.inf, best: Record | None = None) -> float:
        return 0.0


def render_table(runs: Sequence[dict[str, Any]]) -> str:
    """Render runs as Markdown: the median over the seeds of the least validation loss at shares of the budget.

    Args:
        runs: each with ``system``, ``budget_s`` and ``found``.

    Returns:
        The table, in the order of `SYSTEMS`.
    """
    lines = [
        f"| system | {' | '.join(f'{share:.0%}' for share in CHECKPOINTS)} | runs |",
        f"| --- |{' ---: |' * (len(CHECKPOINTS) + 1)}",
    ]
    for system in SYSTEMS:
        own = [run for run in runs if run["system"] == system]
        if own:
            cells = []
            for share in CHECKPOINTS:
                losses = [
                    min((loss for at_s, loss in run["found"] if at_s <= share * run["budget_s"]), default=math.inf)
                    for run in own
                ]
                middle = median(losses)
                cells.append(f"{middle:.4f}" if math.isfinite(middle) else "-")
            lines.append(f"| {system} | {' | '.join(cells)} | {len(own)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line: the table to stdout, progress to stderr, every run to a JSON file."""
    from luckyfast.models import ModelConfig
    from luckyfast.search.space import default_space

    parser = argparse.ArgumentParser(prog="python -m luckyfast.bench.contest", description=__doc__)
    parser.add_argument("--data", choices=[*N_TARGETS], default="complete-journey", help="log (complete-journey)")
    parser.add_argument("--budget", default="6m", help="of every run (6m)")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=SYSTEMS)
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds (3)")
    parser.add_argument("--workers", type=int, default=available_cores(), help="trials at a time (the cores)")
    parser.add_argument("--cache", type=Path, default=Path(".bench/cache"), help="folder for logs and datasets")
    parser.add_argument("--out", type=Path, default=Path(".bench/contest"), help="folder for the runs")
    options = parser.parse_args(arguments)
    budget_s, dataset = parse_duration(options.budget), prepare_dataset(options.data, options.cache)
    space = default_space(ModelConfig())
    folder = options.out / f"{options.data}-{budget_s:.0f}s"
    folder.mkdir(parents=True, exist_ok=True)
    runs = []
    for seed in range(options.seeds):
        for system in options.systems:
            if "Keras" in system and not is_installed(("keras_tuner",)):
                print(f"{system}: skipped, pip install keras-tuner", file=sys.stderr)
                continue
            file = folder / f"{re.sub('[^a-z]+', '-', system.lower()).strip('-')}-{seed}.json"
            if not file.exists():
                machine = describe_machine()
                found = run_system(
                    system,
                    dataset,
                    space,
                    budget_s,
                    seed=seed,
                    n_workers=options.workers,
                    scratch=folder / "scratch",
                )
                content = {"system": system, "seed": seed, "budget_s": budget_s, "found": found, "machine": machine}
                file.write_text(json.dumps(content), encoding="utf-8")
            runs.append(json.loads(file.read_text(encoding="utf-8")))
            least = min((loss for _, loss in runs[-1]["found"]), default=math.nan)
            print(f"{options.data}, {system}, seed {seed}: least loss {least:.4f}", file=sys.stderr)
    print(render_table(runs))
    return 0


if __name__ == "__main__":
    sys.exit(main())
