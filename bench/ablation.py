"""Measure what each part of the networks is worth: ``python -m luckyfast.bench.ablation``.

Everything happens one split earlier in time than the test, which is never looked at: a model is trained on the first
62 % of the visits, chooses its epoch on the next 8 %, goes on with these, and is measured on the 15 % that follow.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from statistics import fmean
from typing import Any

from .tasks.quality import N_TARGETS, prepare_dataset

__all__ = ["VARIANTS", "main", "measure_variant"]

QUANTILES = (0.62, 0.70, 0.85)
_METRICS = ("hit@1", "hit@3", "recall@10", "ndcg@10")


@contextmanager
def _replaced(owner: Any, name: str, change: Callable[[Any], Any]) -> Iterator[None]:
    """Put another function in the place of one, for a while."""
    original = getattr(owner, name)
    setattr(owner, name, change(original))
    try:
        yield
    finally:
        setattr(owner, name, original)


@contextmanager
def _with_networks(change: Callable[[Any], None]) -> Iterator[None]:
    """Change every network that is built for training or scoring."""
    from luckyfast import course
    from luckyfast.models import trained

    def changed(build: Any) -> Any:
        def build_changed(*arguments: Any, **settings: Any) -> Any:
            network = build(*arguments, **settings)
            change(network)
            return network

        return build_changed

    with _replaced(course, "build", changed), _replaced(trained, "build", changed):
        yield


def _share_action_weights(network: Any) -> None:
    network.residual.per_action.weight.register_hook(lambda grad: grad * 0.0)


def _leave_moments_alone(network: Any) -> None:
    network.residual.gate.weight.register_hook(lambda grad: grad * 0.0)


def _tie_embeddings(network: Any) -> None:
    network.output = network.table


def _without_columns(first: int, stop: int) -> AbstractContextManager[None]:
    """Habits without some of the columns that follow those of half-lives and visit spans."""
    from luckyfast import batches

    def changed(compute_habits: Any) -> Any:
        def compute(*arguments: Any, **settings: Any) -> Any:
            habits = compute_habits(*arguments, **settings)
            n_decays = len(settings["half_lives"]) + len(settings["visit_spans"])
            habits.features[n_decays + first : n_decays + stop] = 0.0
            return habits

        return compute

    return _replaced(batches, "compute_habits", changed)


def _without_calendar() -> AbstractContextManager[None]:
    from luckyfast.batches import Moments

    def changed(of: Any) -> Any:
        def of_nothing(*arguments: Any) -> Any:
            moments = of(*arguments)
            moments.calendar[:] = 0.0
            moments.contexts[:] = 0
            return moments

        return of_nothing

    return _replaced(Moments, "of", changed)


def _without_trends() -> AbstractContextManager[None]:
    from luckyfast import batches

    return _replaced(batches, "measure_trend", lambda measure_trend: lambda *arguments: None)


VARIANTS: dict[str, tuple[dict[str, Any], Callable[[], AbstractContextManager[None]]]] = {
    "everything": ({}, nullcontext),
    "without trends": ({}, _without_trends),
    "without habits": ({"habit": False}, nullcontext),
    "one half-life, no visit spans": ({"n_half_lives": 1, "visit_spans": []}, nullcontext),
    "weights of habits alike for all actions": ({}, lambda: _with_networks(_share_action_weights)),
    "weights of habits alike at all moments": ({}, lambda: _with_networks(_leave_moments_alone)),
    "without cadence": ({}, lambda: _without_columns(5, 9)),
    "without calendar": ({}, _without_calendar),
    "tied embeddings": ({}, lambda: _with_networks(_tie_embeddings)),
    "without dropout": ({"dropout": 0.0}, nullcontext),
    "without averaged weights": ({"ema_decay": 0.0}, nullcontext),
    "old visits weigh the same": ({"recency": 0.0}, nullcontext),
    "without refit": ({"refit_epochs": 0}, nullcontext),
    "mlp": ({"arch": "mlp"}, nullcontext),
    "lstm": ({"arch": "lstm"}, nullcontext),
}
"""What is changed against the defaults: settings, and a context to train and score in."""


def measure_variant(variant: str, dataset_path: Path, *, seed: int = 0) -> dict[str, float]:
    """Train one variant on one core and measure it, one split earlier than the test.

    Args:
        variant: a key of `VARIANTS`.
        dataset_path: the dataset.
        seed: of the model.

    Returns:
        The ranking figures by name, and ``cpu_s`` of training.
    """
    from luckyfast.calibration import calibrate
    from luckyfast.dataset import Dataset
    from luckyfast.evaluation import evaluate
    from luckyfast.models import ModelConfig
    from luckyfast.training import train
    from luckyfast.windows import split_by_time

    settings, context = VARIANTS[variant]
    dataset = Dataset.open(dataset_path)
    valid, test, end = QUANTILES
    split = split_by_time(dataset, valid_quantile=valid, test_quantile=test)
    measured = split_by_time(dataset, valid_quantile=test, test_quantile=end)
    with context():
        started = time.process_time()
        model = train(dataset, split, ModelConfig.from_dict(settings | {"seed": seed}))
        cpu_s = time.process_time() - started
        calibration = calibrate(model.blind, dataset, split, earlier=True)
        figures = evaluate(model, dataset, measured, calibration, part="valid", offers=True).figures
    return {metric: figures[metric].value for metric in _METRICS} | {"cpu_s": cpu_s}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line: one table per log to stdout, each run to stderr."""
    parser = argparse.ArgumentParser(prog="python -m luckyfast.bench.ablation", description=__doc__)
    parser.add_argument("--data", nargs="+", choices=[*N_TARGETS], default=[*N_TARGETS], help="logs (default: all)")
    parser.add_argument("--variants", nargs="+", choices=[*VARIANTS], default=[*VARIANTS], help="(default: all)")
    parser.add_argument("--seeds", type=int, default=2, help="number of seeds (default: 2)")
    parser.add_argument("--cache", type=Path, default=Path(".bench/cache"), help="folder for logs and datasets")
    options = parser.parse_args(arguments)
    for name in options.data:
        path = prepare_dataset(name, options.cache)
        lines = [f"### {name}", "", f"| variant | {' | '.join(_METRICS)} | CPU s |", f"| --- |{' ---: |' * 5}"]
        for variant in options.variants:
            runs = []
            for seed in range(options.seeds):
                runs.append(measure_variant(variant, path, seed=seed))
                print(f"{name} {variant} seed {seed}: {runs[-1]}", file=sys.stderr)
                gc.collect()
            cells = [f"{fmean(run[metric] for run in runs):.4f}" for metric in _METRICS]
            lines.append(f"| {variant} | {' | '.join(cells)} | {fmean(run['cpu_s'] for run in runs):.0f} |")
        print("\n".join(lines), end="\n\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
