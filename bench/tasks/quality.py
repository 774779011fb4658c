"""How well each model and baseline predicts the next visit, and what that costs.

Complete Journey: action = product_category, visit = basket_id. Ta-Feng: action = the first four digits of the subclass,
visit = customer and day. Test = visits at or after the 0.85 quantile of visit time of customers with at least three
earlier visits. Every system gets the same dataset, split, calibration and evaluator, and its default settings.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..receipts import COLUMNS, write_receipts
from ..ta_feng import write_ta_feng
from ..task import Inputs, Settings, Task

if TYPE_CHECKING:
    from luckyfast.evaluation import Result

__all__ = ["BASELINE_SYSTEMS", "MODEL_SYSTEMS", "N_TARGETS", "TASK", "Measurement", "measure", "prepare_dataset"]

MODEL_SYSTEMS: dict[str, dict[str, Any]] = {
    "lstm-embed": {"arch": "lstm-embed"},
    "lstm": {"arch": "lstm"},
    "mlp": {"arch": "mlp"},
    "lstm-embed (no habit)": {"arch": "lstm-embed", "habit": False},
    "lstm (no habit)": {"arch": "lstm", "habit": False},
    "mlp (no habit)": {"arch": "mlp", "habit": False},
}
BASELINE_SYSTEMS: dict[str, str] = {
    "TIFU-KNN": "TifuKnn",
    "decayed personal frequency": "DecayedFrequency",
    "personal frequency": "PersonalFrequency",
    "Markov": "Markov",
    "last visit": "LastVisit",
    "popularity": "Popularity",
}
N_TARGETS = {"complete-journey": 23_291, "ta-feng": 12_531}
"""The test visits that every system must be measured on."""

SMALL_SHARE = 0.25
"""Share of the customers that the small form trains on."""

_MODULES = ("torch", "numba", "pyarrow")


@dataclass(frozen=True)
class Measurement:
    """What one system reached, and what it took.

    Args:
        result: the figures.
        fit_cpu_s: CPU seconds to fit, tune and calibrate.
        score_cpu_s: CPU seconds to score and measure the test.
    """

    result: Result
    fit_cpu_s: float
    score_cpu_s: float


def measure(
    system: str, dataset_path: Path, *, seed: int = 0, n_threads: int = 1, epochs: int | None = None
) -> Measurement:
    """Fit one system and measure it on the test.

    Args:
        system: a key of `MODEL_SYSTEMS` or `BASELINE_SYSTEMS`.
        dataset_path: the dataset.
        seed: of the model.
        n_threads: cores that training may use.
        epochs: passes over the training visits of a quarter of the customers, and none over validation; the model's
            defaults if None.

    Returns:
        The figures and the CPU seconds.
    """
    from luckyfast import baselines
    from luckyfast.calibration import calibrate
    from luckyfast.dataset import Dataset
    from luckyfast.evaluation import evaluate
    from luckyfast.windows import Scorer, split_by_time

    dataset = Dataset.open(dataset_path)
    split = split_by_time(dataset)
    started, offers = time.process_time(), False
    scorer: Scorer
    if system in BASELINE_SYSTEMS:
        scorer, calibration = baselines.fit_baseline(getattr(baselines, BASELINE_SYSTEMS[system]), dataset, split)
    else:
        from luckyfast.models import ModelConfig
        from luckyfast.training import train

        settings = (
            MODEL_SYSTEMS[system] | {"seed": seed} | ({} if epochs is None else {"epochs": epochs, "refit_epochs": 0})
        )
        customers = 1.0 if epochs is None else SMALL_SHARE
        trained = train(dataset, split, ModelConfig.from_dict(settings), threads=n_threads, customers=customers)
        scorer, calibration, offers = trained, calibrate(trained.blind, dataset, split, earlier=True), True
    fitted = time.process_time()
    result = evaluate(scorer, dataset, split, calibration, name=system, offers=offers)
    return Measurement(result, fitted - started, time.process_time() - fitted)


def prepare_dataset(name: str, cache: Path) -> Path:
    """Ingest one of the logs below `cache`, unless an earlier call has left it there.

    Args:
        name: a key of `N_TARGETS`.
        cache: folder for logs and datasets.

    Returns:
        The dataset.

    Raises:
        UserError: the package that holds the log is not installed.
    """
    dataset = cache / f"{name}-dataset"
    if (dataset / "manifest.json").exists():
        return dataset
    from luckyfast.ingestion import ingest

    cache.mkdir(parents=True, exist_ok=True)
    if name == "complete-journey":
        log = cache / "receipts-x1.csv"
        if not log.exists():
            write_receipts(log)
        ingest(
            log,
            dataset,
            customer=COLUMNS["customer"],
            time=COLUMNS["time"],
            action=COLUMNS["action"],
            visit=COLUMNS["visit"],
        )
    else:
        log = cache / "ta-feng.csv"
        if not log.exists():
            write_ta_feng(log)
        ingest(log, dataset, customer="CUSTOMER_ID", time="TRANSACTION_DT", action="CATEGORY", visit="none")
    return dataset


class QualityTask:
    """See the module's text; this is one run with one seed on Complete Journey."""

    name = "quality"
    title = "quality: the next visit on Complete Journey"
    systems: Mapping[str, tuple[str, ...]] = dict.fromkeys((*MODEL_SYSTEMS, *BASELINE_SYSTEMS), _MODULES)
    default_runs = (1, 1)

    def prepare(self, cache: Path, settings: Settings) -> Inputs:
        """Ingest the receipts; the small form trains the habit networks, one epoch on a quarter of the customers."""
        dataset = prepare_dataset("complete-journey", cache)
        values = {"dataset": str(dataset), "epochs": 1 if settings.quick else None, "n_threads": settings.n_threads}
        with_habit = (name for name, settings in MODEL_SYSTEMS.items() if settings.get("habit", True))
        return Inputs(values, systems=(*with_habit, *BASELINE_SYSTEMS) if settings.quick else None)

    def run(self, system: str, values: Mapping[str, Any], out: Path) -> Mapping[str, float]:
        """Fit and measure one system."""
        path = Path(values["dataset"])
        measurement = measure(system, path, n_threads=values["n_threads"], epochs=values["epochs"])
        result = measurement.result.to_dict()
        (out / "result.json").write_text(json.dumps(result), encoding="utf-8")
        figures = {name: figure["value"] for name, figure in result["figures"].items()}
        return figures | {"fit_cpu_s": measurement.fit_cpu_s}

    def check(self, system: str, values: Mapping[str, Any], out: Path) -> str | None:
        """See that the whole test was measured."""
        del system, values
        result = json.loads((out / "result.json").read_text(encoding="utf-8"))
        if result["n_visits"] != N_TARGETS["complete-journey"]:
            raise ValueError(
                f"{result['n_visits']} visits were measured, {N_TARGETS['complete-journey']} were expected"
            )
        return None


TASK: Task = QualityTask()
