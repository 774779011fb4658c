"""The whole way on real receipts: dirty raw logs, dataset, model, predictions, report."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from luckyfast.config import parse_duration
from luckyfast.errors import ModelError, OutputExistsError
from luckyfast.progress import Progress

if TYPE_CHECKING:
    from luckyfast.demo_logs import DirtReport
    from luckyfast.ingestion.run import IngestSummary
    from luckyfast.model import Model
    from luckyfast.prediction import PredictSummary

__all__ = ["DemoSummary", "run_demo"]

_PARTS = ("raw", "receipts", "model", "offers.csv")
_LEFTOVERS = ("receipts.partial", "model.search")


@dataclass(frozen=True)
class DemoSummary:
    """What the demo made, and where.

    Attributes:
        raw: folder of the raw logs that were written.
        dataset: folder of the dataset.
        model: the fitted model.
        predictions: what was predicted, and into which file.
        dirt: what dirt was put into the raw logs, by reject reason.
        ingest: what ingest reported.
        elapsed_s: wall time of everything.
    """

    raw: Path
    dataset: Path
    model: Model
    predictions: PredictSummary
    dirt: DirtReport
    ingest: IngestSummary
    elapsed_s: float

    @property
    def dirt_matches(self) -> bool:
        """Whether ingest reported exactly the dirt that was put in."""
        reported = {reason: count for reason, count in self.ingest.rejects_by_reason.items() if count}
        return reported == dict(self.dirt.by_reason) and self.ingest.counts["rows_read"] == self.dirt.rows


def run_demo(
    out: str | Path = "demo", *, budget: str | float = "3m", seed: int = 0, progress: Progress | None = None
) -> DemoSummary:
    """Write the Complete Journey receipts as dirty raw logs, then ingest, fit and predict.

    Args:
        out: folder to write; what an earlier demo left there is replaced, anything else is refused.
        budget: wall time for ``fit``.
        seed: of the dirt and of the training.
        progress: listener for progress.

    Returns:
        What was made.

    Raises:
        BudgetError: the budget is no duration.
        InputError: the receipts are not installed.
        ModelError: the seed is negative.
        OutputExistsError: the folder holds something that is no demo.
    """
    from luckyfast.demo_logs import write_demo_logs
    from luckyfast.fitting import fit
    from luckyfast.ingestion import ingest
    from luckyfast.prediction import predict

    started = time.monotonic()
    folder = Path(out)
    budget_s = parse_duration(budget)
    if seed < 0:
        raise ModelError(f"seed is {seed}", hint="give --seed a whole number of at least 0")
    _clear(folder)
    raw, dataset, model_folder, offers = (folder / part for part in _PARTS)
    dirt = write_demo_logs(raw, seed=seed, progress=progress)
    summary = ingest(
        [raw],
        dataset,
        customer="household_id",
        time="transaction_timestamp",
        visit="basket_id",
        action="product_category",
        lookup=raw / "products.csv",
        on="product_id",
        progress=progress,
    )
    model = fit(dataset, arch="lstm-embed", budget=budget_s, out=model_folder, seed=seed, progress=progress)
    predictions = predict(model_folder, top=5, out=offers, progress=progress)
    return DemoSummary(raw, dataset, model, predictions, dirt, summary, time.monotonic() - started)


def _clear(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise OutputExistsError(f"{folder} is a file", hint="choose another folder with --out")
    own = {*_PARTS, *_LEFTOVERS}
    strangers = [path.name for path in folder.iterdir() if path.name not in own] if folder.exists() else []
    if strangers:
        raise OutputExistsError(
            f"{folder} holds something that is no demo: {sorted(strangers)[0]}",
            hint="choose another folder with --out",
        )
    folder.mkdir(parents=True, exist_ok=True)
    for part in own:
        path = folder / part
        if path.is_dir():
            shutil.rmtree(path)
        elif path.exists():
            path.unlink()
