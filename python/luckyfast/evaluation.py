"""The ruler: every model and baseline is measured by the same figures on the same visits."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from luckyfast.blindness import assert_blind, checked_blocks
from luckyfast.calibration import Calibration, mean_by_visit
from luckyfast.dataset import Dataset, Histories
from luckyfast.figures import METRICS, PROBABILISTIC, Figure, Figures, ReliabilityBin, Tally, figure_of
from luckyfast.kernels.ranking import mark_repeats, rank_targets, rate_best
from luckyfast.offers import offer_order
from luckyfast.windows import Labels, Part, Scorer, Split, first_visits, known_actions, target_visits

__all__ = ["Result", "Ruler", "assert_blind", "evaluate", "lead", "without_nan"]


@dataclass(frozen=True)
class Result:
    """How well one system predicts.

    Args:
        name: the system's name.
        part: ``"valid"`` or ``"test"``.
        n_visits: target visits of customers with enough history.
        figures: over those visits, by the names in ``METRICS``.
        repeat: the same ranking measured on the actions that the customer had taken before.
        explore: the same ranking measured on the actions that were new to the customer.
        short: over the visits of customers with less history.
        before: the figures of probabilities as they were before calibration, of the same actions ranked first.
        ece_floor: the ECE that a perfectly calibrated system would show on these visits; see ``luckyfast.figures``.
        reliability: bins of equal mass over the chance of the action ranked first.
        reliability_before: the same before calibration.
        reliability_pairs: bins over the chances of all pairs of visit and action.
        calibration: the calibration used, but for the offsets of single actions.
        resampled: float64 [1000] by metric, the figures in each bootstrap sample; not part of the JSON.
    """

    name: str
    part: str
    n_visits: int
    figures: dict[str, Figure]
    repeat: Figures
    explore: Figures
    short: Figures
    before: dict[str, Figure] = field(default_factory=dict)
    ece_floor: float = float("nan")
    reliability: list[ReliabilityBin] = field(default_factory=list)
    reliability_before: list[ReliabilityBin] = field(default_factory=list)
    reliability_pairs: list[ReliabilityBin] = field(default_factory=list)
    calibration: dict[str, Any] = field(default_factory=dict)
    resampled: dict[str, NDArray[np.float64]] = field(default_factory=dict, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """The result as plain lists, dicts, strings and numbers, for JSON (figures that do not exist are null)."""
        values: dict[str, Any] = without_nan(asdict(replace(self, resampled={})))
        del values["resampled"]
        return values


class Ruler:
    """What measures a system: scores come in blocks, figures come out at the end.

    Args:
        dataset: the dataset.
        split: its split.
        calibration: of the system that is measured.
        before: what its probabilities are taken to be without calibration.
        part: ``"test"`` or ``"valid"``.
        seed: of the bootstrap.
        offers: whether actions are ranked as in lists of offers, with the calibrated chance; else by score alone.
    """

    def __init__(
        self,
        dataset: Dataset,
        split: Split,
        calibration: Calibration,
        before: Calibration,
        *,
        part: Part = "test",
        seed: int = 0,
        offers: bool = False,
    ) -> None:
        start, _ = split.bounds(part)
        self._known = known_actions(dataset, split.test_start if start is None else start)
        self._calibrations = {"all": calibration, "before": before}
        self._part, self._offers = part, offers
        self._tally = Tally(seed)

    def add(
        self,
        section: Literal["all", "short"],
        first_customer: int,
        histories: Histories,
        targets: NDArray[np.int64],
        scores: NDArray[np.float32],
        covered: NDArray[np.bool_] | None = None,
    ) -> None:
        """Measure one block of scores.

        Args:
            section: ``short`` for visits of customers with too short a history.
            first_customer: how many customers of the dataset come before the batch.
            histories: the batch.
            targets: int64 [n], visits local to the batch.
            scores: float32 [n, n_actions].
            covered: bool [n], False where there is no prediction: nothing is found there, whatever the scores.
        """
        labels = Labels.of(histories, targets, self._known)
        right = labels.actions
        if covered is not None:
            right = np.where(np.repeat(covered, np.diff(labels.start)), right, 0).astype(np.int32)
        customers = first_customer + np.searchsorted(histories.visit_start, targets, side="right") - 1
        values = np.empty((len(targets), 6))
        order, hits = scores, values[:, 0]
        for name, calibration in self._calibrations.items():
            log_next, chances = calibration.probabilities(scores, labels.mean_size)
            if name == "all":
                if self._offers:
                    order = scores.copy()
                    order[:, 1:] = offer_order(scores[:, 1:], chances[:, 1:])
                rank_targets(order, labels.start, right, values[:, :4])
            rated = np.empty((len(targets), 2))
            rate_best(order, chances, labels.start, right, rated)
            best = rated[:, 0].astype(np.float32)
            values[:, 4] = -mean_by_visit(log_next, labels)
            values[:, 5] = rated[:, 1]
            if section == "short":
                self._tally.add(section, customers, values)
                return
            self._tally.add(name, customers, values)
            self._tally.add_chances(name, customers, best, hits)
            self._tally.add_pairs(name, customers, chances, labels.start, right)
        repeated = np.empty(len(right), np.bool_)
        first = first_visits(histories, targets)
        mark_repeats(first, targets, histories.action_start, histories.actions, len(self._known), repeated)
        for name, chosen in (("repeat", repeated), ("explore", ~repeated)):
            start = np.concatenate((np.zeros(1, np.int64), np.cumsum(chosen)))[labels.start]
            ranks = np.empty((len(targets), 4))
            rank_targets(order, start, right[chosen], ranks)
            self._tally.add(name, customers, ranks)

    def result(self, name: str) -> Result:
        """The figures of everything that was added, under a name."""
        tally = self._tally
        overall, before = tally.figures("all"), tally.figures("before")
        return Result(
            name=name,
            part=self._part,
            n_visits=overall.n_visits,
            figures={metric: overall.figures[metric] for metric in METRICS},
            repeat=tally.figures("repeat"),
            explore=tally.figures("explore"),
            short=tally.figures("short"),
            before={metric: before.figures[metric] for metric in PROBABILISTIC},
            ece_floor=tally.noise_floor(),
            reliability=tally.reliability(),
            reliability_before=tally.reliability("before"),
            reliability_pairs=tally.pair_reliability(),
            calibration={name: own for name, own in self._calibrations["all"].to_dict().items() if name != "offsets"},
            resampled=tally.resampled(),
        )


def evaluate(
    scorer: Scorer,
    dataset: Dataset,
    split: Split,
    calibration: Calibration | None = None,
    *,
    part: Part = "test",
    name: str | None = None,
    seed: int = 0,
    offers: bool = False,
) -> Result:
    """Measure a scorer on the target visits of a part; memory is that of one block of scores.

    All actions but id 0 are ranked, ties are broken at random in expectation, and actions that nobody took before the
    part began are misses. NLL is the mean over visits of the mean over their distinct actions of ``-log`` of the
    calibrated next-action probability, in nats. Brier score, ECE (15 bins of equal mass) and its debiased form are
    those of the chance that the action ranked first is in the visit; ``ece_pairs`` is over the chances of all actions;
    see :class:`luckyfast.figures.Tally`. Intervals: 1,000 bootstrap samples of customers (of 16,384 groups of
    customers where there are more); ECE uses at most the first 2^20 visits.

    Args:
        scorer: a fitted model or baseline.
        dataset: the dataset.
        split: the split that the scorer was fitted with.
        calibration: fitted on validation; the identity if not given.
        part: ``"test"`` or ``"valid"``.
        name: name in the result; the scorer's if not given.
        seed: of the bootstrap.
        offers: rank as in lists of offers, see :func:`luckyfast.offers.offer_order`; else by score alone. Networks are
            measured so; baselines and what others predict are ranked as they rank.

    Returns:
        The result.

    Raises:
        ModelError: the scores are not finite, do not cover the targets, or change with what a visit held.

    Example:
        >>> from luckyfast.baselines import Popularity
        >>> split = split_by_time(dataset)
        >>> result = evaluate(Popularity().fit(dataset, split), dataset, split)
        >>> 0.0 <= result.figures["hit@1"].value <= result.figures["hit@3"].value <= 1.0
        True
    """
    identity = Calibration()
    ruler = Ruler(dataset, split, calibration or identity, identity, part=part, seed=seed, offers=offers)
    n_customers = 0
    checked = False
    for histories in dataset.batches():
        targets = target_visits(histories, split, part)
        if len(targets) and not checked:
            assert_blind(scorer, histories, targets)
            checked = True
        sections: tuple[tuple[Literal["all", "short"], NDArray[np.int64]], ...] = (
            ("all", targets),
            ("short", target_visits(histories, split, part, short=True)),
        )
        for section, visits in sections:
            for block, scores in checked_blocks(scorer, histories, visits, dataset.n_actions):
                ruler.add(section, n_customers, histories, block, scores)
        n_customers += histories.n_customers
    return ruler.result(scorer.name if name is None else name)


def lead(result: Result, other: Result) -> dict[str, Figure]:
    """Differences between two systems, from the same bootstrap samples of customers for both.

    Args:
        result: a system, as :func:`evaluate` returned it.
        other: another, measured on the same dataset and split with the same seed.

    Returns:
        ``result`` minus ``other`` by metric; an interval that leaves out 0 means that the two differ.

    Example:
        >>> from luckyfast.baselines import Popularity
        >>> split = split_by_time(dataset)
        >>> result = evaluate(Popularity().fit(dataset, split), dataset, split)
        >>> lead(result, result)["hit@1"]  # of a system over itself
        Figure(value=0.0, low=0.0, high=0.0)
    """
    return {
        metric: figure_of(
            result.figures[metric].value - other.figures[metric].value,
            result.resampled[metric] - other.resampled[metric],
        )
        for metric in METRICS
    }


def without_nan(value: Any) -> Any:
    """Replace NaN by None, which JSON has."""
    if isinstance(value, dict):
        return {key: without_nan(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [without_nan(entry) for entry in value]
    return None if isinstance(value, float) and np.isnan(value) else value
