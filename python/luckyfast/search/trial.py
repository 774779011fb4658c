"""What runs inside a trial's process: a probe of what things cost, and one training."""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from luckyfast.config import peak_memory, resident_memory
from luckyfast.dataset import Dataset
from luckyfast.files import sync_folder, sync_tree
from luckyfast.models import ModelConfig
from luckyfast.models.trained import TrainedModel
from luckyfast.search import jobs
from luckyfast.training import VALIDATION_VISITS, choose_device, sample_customers, train
from luckyfast.windows import Split, split_by_time, target_visits

__all__ = ["count_visits", "load_trial", "probe", "run_trial", "share_holding"]

PROBE_VISITS = 5_000


def probe(dataset_path: str, settings: dict[str, Any], threads: int, device: str) -> dict[str, Any]:
    """Train and validate on a few customers, to learn what a visit costs here and now.

    Returns:
        ``device``, where training will be; ``split`` (its three numbers), ``n_actions``, ``train_s`` of one pass over
        everything, ``valid_seconds`` of a validation, both extrapolated, ``n_valid`` and ``n_test`` (visits to be
        scored), ``n_validated`` (those of one validation), ``rest_bytes`` and ``peak_bytes``.
    """
    device = choose_device(device)
    torch.zeros(1, device=device)  # what a GPU's library takes is taken by every trial
    rest_bytes = resident_memory()
    dataset = Dataset.open(dataset_path)
    split = split_by_time(dataset)
    share = share_holding(dataset, PROBE_VISITS)
    sample = sample_customers(dataset, share, split.valid_start)
    config = replace(ModelConfig.from_dict(settings), epochs=1, refit_epochs=0)
    # The first round loads what is compiled and fills caches.
    train(sample_customers(dataset, share / 20, split.valid_start), split, config, threads=threads, device=device)
    lines: list[dict[str, Any]] = []
    began = time.monotonic()
    train(sample, split, config, threads=threads, device=device, on_epoch=lines.append)
    train_s = time.monotonic() - began - lines[-1]["valid_seconds"]
    few, all_ = count_visits(sample, split), count_visits(dataset, split)
    n_validated = min(all_["valid"], VALIDATION_VISITS)
    return {
        "device": device,
        "split": [split.valid_start, split.test_start, split.min_history],
        "n_actions": dataset.n_actions,
        "train_s": train_s * all_["train"] / max(few["train"], 1),
        "valid_seconds": lines[-1]["valid_seconds"] * n_validated / max(min(few["valid"], VALIDATION_VISITS), 1),
        "n_validated": n_validated,
        "n_valid": all_["valid"],
        "n_test": all_["test"],
        "rest_bytes": rest_bytes,
        "peak_bytes": peak_memory(),
    }


def share_holding(dataset: Dataset, n_visits: int) -> float:
    """The share of the customers, counted from the first, who hold so many visits together.

    Customers of millions of visits make the mean say nothing, and would be the whole probe: where the last of these
    customers more than doubles the number it is left out, unless nobody comes before.

    Args:
        dataset: the dataset.
        n_visits: wanted.

    Example:
        >>> sample = dataset.sample(share_holding(dataset, 100))
        >>> 100 <= sum(histories.n_visits for histories in sample.batches()) <= 200
        True
    """
    n_customers = n_before = 0
    for histories in dataset.batches():
        ends = n_before + histories.visit_start[1:].astype(np.int64)
        needed = int(np.searchsorted(ends, n_visits)) + 1
        if needed <= histories.n_customers:
            n_customers += needed
            if ends[needed - 1] > 2 * n_visits and n_customers > 1:
                n_customers -= 1
            return n_customers / dataset.n_customers
        n_customers += histories.n_customers
        n_before += histories.n_visits
    return 1.0


def run_trial(
    dataset_path: str,
    split: list[int],
    settings: dict[str, Any],
    *limits: Any,
) -> dict[str, Any]:
    """Train one configuration on the time before validation.

    Args:
        dataset_path: folder of the dataset.
        split: its three numbers.
        settings: of the model; its refit is left for later.
        limits: share of the customers; passes, relative to the configuration's own; whether to validate after each;
            seconds (None for no bound); threads; device; folder for the weights.

    Returns:
        ``valid_loss`` (None where it is no number), ``valid_hit1``, ``valid_hit3``, ``valid_seconds``, ``seconds``
        (what an earlier process spent on the same trial included), ``peak_bytes``, ``n_validations`` and
        ``interrupted``. The folder holds weights and ``trial.json``; the checkpoint beside it is left there.
    """
    customers, passes, every_epoch, budget_s, threads, device, folder = limits
    began = time.monotonic()
    config = ModelConfig.from_dict(settings)
    trained = replace(config, epochs=max(round(config.epochs * passes), 1), refit_epochs=0)
    curve: list[dict[str, Any]] = []
    model = train(
        Dataset.open(dataset_path),
        Split(*split),
        trained,
        budget_s=budget_s,
        customers=customers,
        every_epoch=every_epoch,
        threads=threads,
        device=device,
        checkpoint=jobs.checkpoint_of(Path(folder)),
        on_epoch=curve.append,
        progress=jobs.listener,
    )
    lines = [{name: _number(value) for name, value in line.items()} for line in curve]
    _save(replace(model, config=config), lines, Path(folder))
    best = min(curve, key=lambda line: line["valid_loss"], default=None)
    figures = {name: _number(best[name]) for name in ("valid_loss", "valid_hit1", "valid_hit3")} if best else {}
    return {
        "valid_loss": None,
        **figures,
        "valid_seconds": sum(line["valid_seconds"] for line in curve),
        "seconds": max(time.monotonic() - began, curve[-1]["seconds"] if curve else 0.0),
        "peak_bytes": peak_memory(),
        "n_validations": len(curve),
        "interrupted": model.interrupted,
    }


def count_visits(dataset: Dataset, split: Split) -> dict[str, int]:
    """Visits to train on, targets of validation, and all visits of the test."""
    counts = {"train": 0, "valid": 0, "test": 0}
    for histories in dataset.batches():
        counts["train"] += int((histories.visit_time < split.valid_start).sum())
        counts["valid"] += len(target_visits(histories, split, "valid"))
        counts["test"] += int((histories.visit_time >= split.test_start).sum())
    return counts


def load_trial(folder: Path) -> tuple[TrainedModel, list[dict[str, Any]]]:
    """The model that a trial left, and its epochs."""
    content = json.loads((folder / "trial.json").read_text(encoding="utf-8"))
    return TrainedModel.load(folder, content), content["curve"]


def _save(model: TrainedModel, curve: list[dict[str, Any]], folder: Path) -> None:
    """Write the weights so that the folder has its name only when it is whole and on the disk.

    The journal vouches for it from then on, and the weights of the best before it go. Where the study's folder is gone
    nobody wants them any more: it is not made again.
    """
    partial = folder.with_name(f"{folder.name}.partial-{os.getpid()}")
    partial.mkdir()
    (partial / "trial.json").write_text(json.dumps(model.save(partial) | {"curve": curve}), encoding="utf-8")
    sync_tree(partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    sync_folder(folder.parent)


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
