"""Measure models, anybody's predictions and the baselines on the same visits: what ``luckyfast evaluate`` does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from luckyfast.calibration import Calibration, StatedChances
from luckyfast.dataset import Dataset
from luckyfast.errors import InputError, ModelError
from luckyfast.figures import PROBABILISTIC, Figure
from luckyfast.progress import NullProgress, Progress
from luckyfast.windows import Labels, Split, known_actions, split_by_time, target_visits

if TYPE_CHECKING:
    from luckyfast.evaluation import Result
    from luckyfast.model import Model
    from luckyfast.submissions import Submission

__all__ = ["Comparison", "Coverage", "evaluate", "measure_submission", "write_targets"]

_RANKED = ("hit@1", "hit@3", "recall@10", "ndcg@10")


@dataclass(frozen=True)
class Coverage:
    """Which target visits a file of predictions covers.

    Args:
        test: test visits with a prediction, out of ``test_targets``; those without count as misses.
        short: the same for visits of customers with too short a history, out of ``short_targets``.
        valid: the same for validation visits, out of ``valid_targets``; the calibration is fitted on them.
        other_visits: visits in the file that are none of these, and were not looked at.
        unknown_actions: predictions for actions that the dataset does not have, which were left out.
    """

    test: int
    test_targets: int
    short: int
    short_targets: int
    valid: int
    valid_targets: int
    other_visits: int
    unknown_actions: int


@dataclass(frozen=True)
class Comparison:
    """Systems measured by the same ruler.

    Args:
        results: the models, the files of predictions, and the baselines, in this order.
        coverage: by the name of a file's result.
        leads: for each system that is no baseline, its lead over the best baseline by metric, from paired bootstrap
            samples: ``{"over": name, "value": ..., "low": ..., "high": ...}``; without an interval ``low`` is None.
    """

    results: list[Result]
    coverage: dict[str, Coverage] = field(default_factory=dict)
    leads: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON-able values; ``systems`` as in a model's ``metrics.json``."""
        return {
            "systems": [result.to_dict() for result in self.results],
            "coverage": {name: asdict(coverage) for name, coverage in self.coverage.items()},
            "leads": self.leads,
        }


def evaluate(
    dataset: str | Path,
    *,
    predictions: Sequence[str | Path] = (),
    models: Sequence[str | Path] = (),
    baselines: bool = True,
    progress: Progress | None = None,
) -> Comparison:
    """Measure models and files of predictions beside every baseline, on the test visits of a dataset.

    A file of predictions may come from any program; :func:`luckyfast.submissions.write_targets` tells which visits to
    predict and :func:`luckyfast.submissions.open_submission` what the file holds. A prediction for a visit may use
    everything before that visit and its time. That a file keeps to this cannot be checked. Its scores are calibrated
    on the validation visits that it covers, as those of every system are, and of a ``chance`` the odds are bent, so
    that its level counts; without any, ``score`` has figures of ranks alone, and ``probability`` and ``chance`` are
    taken as they are.

    Args:
        dataset: folder that ``luckyfast ingest`` wrote.
        predictions: Parquet files of predictions.
        models: folders that ``luckyfast fit`` wrote; their split is used for all.
        baselines: whether to measure the baselines too.
        progress: listener for progress.

    Returns:
        The results.

    Raises:
        DatasetError: the dataset cannot be read.
        InputError: a file cannot be read, covers none of the test visits, or there is nothing to measure.
        ModelError: a model cannot be read, or was fitted with another split or vocabulary than the others.

    Example:
        >>> comparison = evaluate(dataset_path, models=[model_folder])
        >>> len(comparison.results)
        7
    """
    from luckyfast.baselines import BASELINES, fit_baseline
    from luckyfast.evaluation import evaluate as measure
    from luckyfast.model import load
    from luckyfast.submissions import open_submission

    if not (predictions or models or baselines):
        raise InputError("there is nothing to measure", hint="give --predictions FILE or --model MODEL")
    listener = NullProgress() if progress is None else progress
    data = Dataset.open(dataset)
    opened = [load(path) for path in models]
    split = _common_split(opened, data)
    results: list[Result] = []
    coverage: dict[str, Coverage] = {}
    listener.start("Measuring", len(models) + len(predictions) + len(BASELINES) * baselines, "systems")
    for model in opened:
        results.append(replace(model.evaluate(data.path), name=_new_name(model.path.name, results)))
        listener.advance(1)
    for path in predictions:
        with open_submission(path, data) as submission:
            name = _new_name(submission.name, results)
            result, coverage[name] = measure_submission(submission, data, split)
            results.append(replace(result, name=name))
        listener.advance(1)
    leaders = list(results)
    for kind in BASELINES if baselines else ():
        scorer, calibration = fit_baseline(kind, data, split)
        results.append(measure(scorer, data, split, calibration))
        listener.advance(1)
    listener.finish()
    return Comparison(results, coverage, _leads(leaders, results[len(leaders) :]))


def write_targets(
    dataset: str | Path, path: str | Path, *, models: Sequence[str | Path] = (), overwrite: bool = False
) -> int:
    """Write which visits are to be predicted: those that :func:`evaluate` measures on, and nothing of what they hold.

    Args:
        dataset: folder that ``luckyfast ingest`` wrote.
        path: Parquet file to write; see :func:`luckyfast.submissions.write_targets`.
        models: folders of models whose split is to be used.
        overwrite: replace the file if it exists.

    Returns:
        The number of visits.

    Raises:
        DatasetError: the dataset cannot be read.
        OutputExistsError: the file exists.

    Example:
        >>> write_targets(dataset_path, folder / "visits.parquet") > 0
        True
    """
    from luckyfast.model import load
    from luckyfast.submissions import write_targets as write

    data = Dataset.open(dataset)
    return write(data, _common_split([load(path) for path in models], data), path, overwrite=overwrite)


def measure_submission(submission: Submission, dataset: Dataset, split: Split) -> tuple[Result, Coverage]:
    """Measure predictions that were made elsewhere; memory is that of one block and one partition.

    Args:
        submission: an open file of predictions.
        dataset: the dataset.
        split: its split.

    Returns:
        The result, and how many target visits the file covers.

    Raises:
        InputError: it covers none of the test visits, or predicts an action twice.
    """
    from luckyfast.evaluation import Ruler

    n: dict[str, list[int]] = {name: [0, 0] for name in ("valid", "all", "short")}
    before = StatedChances() if submission.kind == "chance" else Calibration()
    blocks = _validation_blocks(submission, dataset, split, n["valid"])
    calibration = before.fit(blocks)
    for _ in blocks:  # those that the fit did not need are counted
        pass
    ruler = Ruler(dataset, split, calibration if n["valid"][0] else before, before)
    n_customers = 0
    for histories in dataset.batches():
        for section in ("all", "short"):
            targets = target_visits(histories, split, "test", short=section == "short")
            for block, scores, found in submission.score(histories, targets, dataset.n_actions):
                ruler.add(section, n_customers, histories, block, scores, found >= 0)
                n[section][0] += int((found >= 0).sum())
                n[section][1] += len(found)
        n_customers += histories.n_customers
    if n["all"][0] == 0:
        raise InputError(
            f"{submission.name} has predictions for {submission.n_visits:,} visits, none of which is a test visit",
            hint="write the visits to predict with: luckyfast evaluate DATASET --targets targets.parquet",
        )
    coverage = Coverage(
        test=n["all"][0],
        test_targets=n["all"][1],
        short=n["short"][0],
        short_targets=n["short"][1],
        valid=n["valid"][0],
        valid_targets=n["valid"][1],
        other_visits=max(submission.n_visits - sum(count for count, _ in n.values()), 0),
        unknown_actions=submission.n_unknown,
    )
    result = ruler.result(submission.name)
    if submission.kind == "score":
        # Scores are no probabilities: what they would be worth as such is known after calibration alone.
        result = replace(result, before=_undefined(), reliability_before=[])
        if not n["valid"][0]:
            result = replace(
                result,
                figures=result.figures | _undefined(),
                ece_floor=float("nan"),
                reliability=[],
                reliability_pairs=[],
            )
    return result, coverage


def _validation_blocks(
    submission: Submission, dataset: Dataset, split: Split, counts: list[int]
) -> Iterator[tuple[NDArray[np.float32], Labels]]:
    """The validation visits that a file covers, with their labels; all of them are counted, as they are read."""
    known = known_actions(dataset, split.valid_start)
    for histories in dataset.batches():
        targets = target_visits(histories, split, "valid")
        for block, scores, found in submission.score(histories, targets, dataset.n_actions):
            covered = found >= 0
            counts[0] += int(covered.sum())
            counts[1] += len(found)
            yield scores[covered], Labels.of(histories, block[covered], known)


def _undefined() -> dict[str, Figure]:
    nan = float("nan")
    return dict.fromkeys(PROBABILISTIC, Figure(nan, nan, nan))


def _common_split(models: Sequence[Model], data: Dataset) -> Split:
    """The split that the models were fitted with, or the dataset's own."""
    names = ("valid_start", "test_start", "min_history")
    splits = {Split(**{name: int(model.config["split"][name]) for name in names}) for model in models}
    if len(splits) > 1:
        raise ModelError("these models were fitted with different splits", hint="fit them on the same dataset")
    return splits.pop() if splits else split_by_time(data)


def _new_name(name: str, results: Sequence[Result]) -> str:
    """The name, with a number where another system has it already."""
    taken = {result.name for result in results}
    number = 2
    while name in taken:
        name, number = f"{name.rsplit(' #', 1)[0]} #{number}", number + 1
    return name


def _leads(leaders: Sequence[Result], baselines: Sequence[Result]) -> dict[str, dict[str, dict[str, Any]]]:
    from luckyfast.evaluation import lead, without_nan

    leads: dict[str, dict[str, dict[str, Any]]] = {}
    for result in leaders if baselines else ():
        leads[result.name] = {}
        for metric in _RANKED:
            best = max(baselines, key=lambda baseline: baseline.figures[metric].value)
            leads[result.name][metric] = {"over": best.name, **without_nan(asdict(lead(result, best)[metric]))}
    return leads
