"""A small dataset, and models with random weights on it: every weight matters, and nothing has to be trained."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from naive_ingest import Row, write_dataset

from luckyfast.batches import measure
from luckyfast.calibration import Calibration
from luckyfast.dataset import Dataset
from luckyfast.export import export_onnx
from luckyfast.models import ModelConfig, build
from luckyfast.models.trained import TrainedModel
from luckyfast.trend import Trend
from luckyfast.windows import Split, split_by_time

DAY = 86_400_000_000
ACTIONS = ["BREAD", "MILK", "EGGS", "BEER", "ÉPICES", "a <b>", "TEA", "FISH", "RICE"]
TINY = ModelConfig(
    hidden=12,
    embedding=8,
    batch_visits=64,
    epochs=2,
    refit_epochs=2,
    n_half_lives=2,
    visit_spans=(3.0,),
    habit_hidden=3,
)
"""What is trained in a second."""
SMALL: dict[str, Any] = {"hidden": 6, "embedding": 5, "window": 3, "habit_hidden": 4}


def make_rows(*, n_customers: int = 30, clock: bool = True, seed: int = 0) -> list[Row]:
    """Rows of customers with 1 to 25 visits each; the last action appears near the end of the log alone."""
    rng = np.random.default_rng(seed)
    rows: list[Row] = []
    for customer in range(n_customers):
        n_visits = int(rng.integers(1, 26))
        times = np.sort(rng.integers(-20 * DAY, 100 * DAY, n_visits)) if clock else np.arange(n_visits) * 3 + customer
        for number, time in enumerate(times.tolist()):
            n_known = len(ACTIONS) - (time < (90 * DAY if clock else 40))
            chosen = rng.choice(n_known, int(rng.integers(1, 5)))
            rows.extend((f"c{customer}", time, ACTIONS[action], f"{customer}-{number}") for action in chosen)
    return rows


def make_dataset(folder: Path, *, clock: bool = True) -> Dataset:
    """Write those rows as a dataset."""
    return Dataset.open(write_dataset(make_rows(clock=clock), folder, time_kind="clock" if clock else "order"))


def make_trained(
    dataset: Dataset,
    *,
    arch: Literal["mlp", "lstm", "lstm-embed"] = "mlp",
    habit: bool = True,
    layers: int = 1,
    seed: int = 0,
) -> tuple[TrainedModel, Split]:
    """Build a model with random weights on the measured constants of a dataset."""
    config = ModelConfig(arch=arch, habit=habit, layers=layers, **SMALL)
    split = split_by_time(dataset)
    constants = measure(
        dataset,
        split.valid_start,
        n_half_lives=config.n_half_lives,
        visit_spans=config.visit_spans,
        strength=config.habit_strength,
    )
    blank = TrainedModel(config, constants, {}, {})
    rng = np.random.default_rng(seed)
    state = {
        name: rng.normal(0, 0.3, tensor.shape).astype(np.float32)
        for name, tensor in build(blank.config, constants).state_dict().items()
    }
    return TrainedModel(config, constants, state, state), split


def knowing_the_end(trained: TrainedModel) -> TrainedModel:
    """The same model, whose trends are those at the end of the log at any time."""
    trend = trained.constants.trend
    assert trend is not None
    latest = Trend(trend.starts[:1], trend.latest[:, None], trend.end)
    return replace(trained, constants=replace(trained.constants, trend=latest))


def without_trends(trained: TrainedModel) -> TrainedModel:
    """The same model, to which trends mean nothing."""
    state = {name: 0.0 * array if name.startswith("trend.") else array for name, array in trained.state.items()}
    return replace(trained, state=state, blind_state=state)


def make_calibration(dataset: Dataset) -> Calibration:
    """A calibration of which every part changes the chances."""
    offsets = tuple(np.linspace(-0.6, 0.8, dataset.n_actions).tolist())
    return Calibration(1.1, 1.2, 0.3, 0.9, 1.7, 0.9, -0.1, (-2.0, 0.5), (0.4, -0.6), offsets)


def make_model(
    folder: Path,
    dataset: Dataset,
    *,
    arch: Literal["mlp", "lstm", "lstm-embed"] = "mlp",
    trained: TrainedModel | None = None,
) -> Path:
    """Write the folder of such a model, or of another."""
    folder.mkdir()
    made, split = make_trained(dataset, arch=arch)
    trained = made if trained is None else trained
    config = {
        "format": "luckyfast-model",
        "format_version": 2,
        "arch": arch,
        "split": asdict(split),
        "calibration": make_calibration(dataset).to_dict(),
        "dataset": {"path": str(dataset.path)},
        **trained.save(folder),
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "metrics.json").write_text(json.dumps({"systems": []}), encoding="utf-8")
    export_onnx(trained, make_calibration(dataset), folder / "model.onnx", vocabulary=dataset.vocabulary)
    return folder
