"""From a dataset to a model folder: train, calibrate, measure beside every baseline, export, report."""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luckyfast.config import available_cores, format_duration, parse_duration
from luckyfast.errors import BudgetError, OutputExistsError
from luckyfast.progress import NullProgress, Progress

if TYPE_CHECKING:
    from luckyfast.dataset import Dataset
    from luckyfast.evaluation import Result
    from luckyfast.model import Model
    from luckyfast.windows import Split

__all__ = ["fit"]


def fit(
    dataset: str | Path,
    *,
    arch: str = "lstm-embed",
    budget: str | float | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    habit: bool = True,
    seed: int = 0,
    threads: int | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> Model:
    """Train a network on a dataset, calibrate it on validation visits, and measure it on test visits beside baselines.

    Args:
        dataset: folder that ``luckyfast ingest`` wrote.
        arch: ``mlp``, ``lstm`` or ``lstm-embed``.
        budget: wall time of the whole call, in seconds or as text such as ``20m``; None trains until validation stops
            improving.
        out: model folder to write; ``model-ARCH`` if None.
        overwrite: replace the folder if it exists.
        habit: add the habit residual (decayed personal frequency, cadence); False gives the plain network.
        seed: of initial weights and batch order; the same seed gives the same model on one machine.
        threads: cores to use; all that this process may use if None.
        progress: listener for progress.
        **settings: fields of :class:`luckyfast.models.ModelConfig`, such as ``hidden`` or ``learning_rate``.

    Returns:
        The fitted model, opened from its folder.

    Raises:
        DatasetError: the dataset cannot be read or is too short to be split by time.
        ModelError: a setting is unknown or out of range.
        BudgetError: the budget is too short to train anything.
        OutputExistsError: the model folder exists.

    Example:
        >>> model = luckyfast.fit(dataset_path, arch="mlp", out=model_path, epochs=1)
        >>> model.metrics["systems"][0]["name"]
        'mlp'
    """
    started = time.monotonic()
    budget_s = None if budget is None else parse_duration(budget)
    folder = Path(f"model-{arch}" if out is None else out)
    if folder.exists() and not overwrite:
        raise OutputExistsError(f"{folder} exists already", hint="choose another folder with --out, or add --overwrite")

    from luckyfast import __version__
    from luckyfast.calibration import calibrate
    from luckyfast.dataset import Dataset
    from luckyfast.evaluation import evaluate
    from luckyfast.explorer import write_explorer
    from luckyfast.export import export_onnx
    from luckyfast.inference import MODEL_FORMAT_VERSION
    from luckyfast.model import load
    from luckyfast.models import ModelConfig
    from luckyfast.report import write_report
    from luckyfast.training import train
    from luckyfast.windows import split_by_time

    listener = NullProgress() if progress is None else progress
    config = ModelConfig.from_dict({"arch": arch, "habit": habit, "seed": seed, **settings})
    data = Dataset.open(dataset)
    split = split_by_time(data)

    with _new_folder(folder) as work:
        # Baselines first: what they cost tells what measuring the model will cost, before its training is planned.
        results, scoring_s = _measure_baselines(data, split, listener)
        left_s = None if budget_s is None else _time_to_train(budget_s, time.monotonic() - started, scoring_s)

        epochs: list[dict[str, Any]] = []
        n_threads = threads or available_cores()
        trained = train(
            data, split, config, budget_s=left_s, threads=n_threads, on_epoch=epochs.append, progress=listener
        )

        listener.start("Calibrating and measuring", 2, "steps")
        # Honest only with a model that has not trained on the validation visits.
        calibration = calibrate(trained.blind, data, split)
        listener.advance(1)
        results.insert(0, evaluate(trained, data, split, calibration))
        listener.advance(1)

        listener.start("Writing the model", 3, "files")
        best = min(epochs, key=lambda epoch: epoch["valid_loss"], default=None)
        about = {
            "format": "luckyfast-model",
            "format_version": MODEL_FORMAT_VERSION,
            "luckyfast_version": __version__,
            "arch": arch,
            "habit": habit,
            "seed": seed,
            **trained.save(work),
            "best_epoch": best and best["epoch"],
            "split": asdict(split),
            "calibration": calibration.to_dict(),
            "dataset": _about(data),
            "interrupted": trained.interrupted,
            "elapsed_s": round(time.monotonic() - started, 2),
        }
        _write_json(work / "config.json", about)
        _write_json(work / "metrics.json", {"systems": [result.to_dict() for result in results]})
        _write_json(work / "reliability.json", {"bins": [asdict(entry) for entry in results[0].reliability]})
        _write_lines(work / "curve.jsonl", epochs)
        trial = {"trial": 0, "settings": config.to_dict(), "valid_loss": best and best["valid_loss"]}
        _write_lines(work / "trials.jsonl", [trial])
        shutil.copyfile(data.path / "vocabulary.parquet", work / "vocabulary.parquet")
        write_explorer(work / "explorer.json", trained, calibration, data, split)
        listener.advance(1)
        export_onnx(trained, calibration, work / "model.onnx", vocabulary=data.vocabulary)
        listener.advance(1)
        write_report(work)
        listener.finish()
    return load(folder)


def _measure_baselines(data: Dataset, split: Split, listener: Progress) -> tuple[list[Result], float]:
    """The result of every baseline, and the longest time that measuring one took, in seconds."""
    from luckyfast.baselines import BASELINES, fit_baseline
    from luckyfast.evaluation import evaluate

    listener.start("Measuring baselines", len(BASELINES), "baselines")
    results, longest_s = [], 0.0
    for kind in BASELINES:
        baseline, calibration = fit_baseline(kind, data, split)
        began = time.monotonic()
        results.append(evaluate(baseline, data, split, calibration))
        longest_s = max(longest_s, time.monotonic() - began)
        listener.advance(1)
    return results, longest_s


def _time_to_train(budget_s: float, spent_s: float, scoring_s: float) -> float:
    """What is left of the budget for training after measuring and writing the model are paid for, in seconds."""
    reserve_s = 3 * scoring_s + 5
    left_s = budget_s - spent_s - reserve_s
    if left_s < 1:
        needed_s = math.ceil((budget_s - left_s) * 1.5 / 10) * 10
        raise BudgetError(
            f"a budget of {format_duration(budget_s)} leaves no time to train: reading and measuring take longer",
            hint=f"give at least --budget {needed_s}s",
        )
    return left_s


@contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """A folder that takes its final name only when everything in it is written."""
    work = folder.with_name(f"{folder.name}.partial-{os.getpid()}")
    work.mkdir(parents=True)
    try:
        yield work
        if folder.exists():
            shutil.rmtree(folder)
        work.rename(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _about(data: Dataset) -> dict[str, Any]:
    names = ("counts", "rejects_by_reason", "time", "roles", "order_leak")
    return {"path": str(data.path.resolve()), **{name: data.manifest.get(name) for name in names}}


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
