"""How long a training step of the whole network takes: ``python -m luckyfast.bench.network``.

The same network, habits, trends and optimiser included, takes the same steps over the same batches with the engine's
operations and with plain PyTorch, which is what a GPU is given; its LSTM is a loop there, as PyTorch's own takes no
inputs that are projected already. Passes over a sample of the customers alternate, each system in a process of its own.
Without dropout the losses must agree.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any, get_args

from .tasks.quality import N_TARGETS, prepare_dataset

__all__ = ["SYSTEMS", "compare_networks", "main", "train_pass"]

SYSTEMS = ("luckyfast", "plain torch")


def train_pass(system: str, dataset_path: Path, arch: str, customers: float, n_threads: int) -> tuple[float, float]:
    """Make one pass over a sample of the customers.

    Args:
        system: one of `SYSTEMS`.
        dataset_path: the dataset.
        arch: of the network.
        customers: share of them.
        n_threads: cores to use.

    Returns:
        Milliseconds of a step, of CPU time with one core and else of wall-clock time, and the mean loss.
    """
    import torch

    from luckyfast.batches import measure
    from luckyfast.course import Course
    from luckyfast.dataset import Dataset
    from luckyfast.models import ModelConfig, ops
    from luckyfast.models.cores import use_cores
    from luckyfast.models.plain import PlainOps
    from luckyfast.progress import NullProgress
    from luckyfast.windows import split_by_time

    dataset = Dataset.open(dataset_path)
    split, config = split_by_time(dataset), replace(ModelConfig(), arch=arch, dropout=0.0)  # type: ignore[arg-type]
    constants = measure(
        dataset,
        split.valid_start,
        n_half_lives=config.n_half_lives,
        visit_spans=config.visit_spans,
        strength=config.habit_strength,
    )
    clock = time.process_time if n_threads == 1 else time.perf_counter
    with ExitStack() as held:
        if system == "luckyfast":
            held.enter_context(use_cores(n_threads))
        else:
            torch.set_num_threads(n_threads)
            ops.ops_for = lambda device: PlainOps()  # this process does nothing else
        torch.manual_seed(config.seed)
        course = Course(dataset.sample(customers), config, constants)
        started = clock()
        (line,) = course.run(split.valid_start, 1, config.learning_rate, 1e9, NullProgress())
        return 1e3 * (clock() - started) / course.optimiser.n_steps, line["train_loss"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line: a table to stdout."""
    from luckyfast.models import Arch

    parser = argparse.ArgumentParser(prog="python -m luckyfast.bench.network", description=__doc__)
    parser.add_argument("--data", nargs="+", choices=[*N_TARGETS], default=[*N_TARGETS], help="logs (default: all)")
    parser.add_argument("--arch", nargs="+", choices=get_args(Arch), default=[*get_args(Arch)], help="(default: all)")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="numbers of cores (default: 1 2)")
    parser.add_argument("--customers", type=float, default=0.1, help="share of them that a pass takes (default: 0.1)")
    parser.add_argument("--passes", type=int, default=5, help="of each system (default: 5)")
    parser.add_argument("--cache", type=Path, default=Path(".bench/cache"), help="folder for logs and datasets")
    options = parser.parse_args(arguments)
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # as where `fit` trains: NumPy's threads would spin beside the one core
    print(f"| log | network | cores |{''.join(f' {name} ms |' for name in SYSTEMS)} ratio | losses differ by |")
    print("| --- | --- |" + " ---: |" * (3 + len(SYSTEMS)), flush=True)
    for name in options.data:
        path = prepare_dataset(name, options.cache)
        for arch in options.arch:
            for n_threads in options.threads:
                found = compare_networks(options.passes, path, arch, options.customers, n_threads)
                ms = {system: median(times for times, _ in runs) for system, runs in found.items()}
                losses = [loss for runs in found.values() for _, loss in runs]
                cells = [name, arch, n_threads, *(f"{ms[system]:.1f}" for system in SYSTEMS)]
                cells += [f"{ms[SYSTEMS[1]] / ms[SYSTEMS[0]]:.2f}", f"{max(losses) - min(losses):.0e}"]
                print(f"| {' | '.join(map(str, cells))} |", flush=True)
    return 0


def compare_networks(n_passes: int, *job: Any) -> dict[str, list[tuple[float, float]]]:
    """Passes of all systems in turn, the first of each not counted; `job` is what `train_pass` takes besides."""
    with ExitStack() as held:
        pools = {
            system: held.enter_context(ProcessPoolExecutor(1, mp_context=get_context("spawn"))) for system in SYSTEMS
        }
        runs: dict[str, list[tuple[float, float]]] = {system: [] for system in SYSTEMS}
        for _ in range(1 + n_passes):
            for system, pool in pools.items():
                runs[system].append(pool.submit(train_pass, system, *job).result())
    return {system: found[1:] for system, found in runs.items()}


if __name__ == "__main__":
    sys.exit(main())
