"""The ruler: every model and baseline is measured by the same figures on the same visits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from luckyfast.calibration import Calibration, log_softmax, mean_by_visit
from luckyfast.dataset import Dataset, Histories
from luckyfast.errors import ModelError
from luckyfast.figures import METRICS, Figure, Figures, ReliabilityBin, Tally
from luckyfast.kernels.ranking import mark_repeats, rank_targets
from luckyfast.windows import Labels, Part, Scorer, Split, first_visits, known_actions, target_visits

__all__ = ["Result", "assert_blind", "compare", "evaluate"]

_N_BLIND_CUSTOMERS = 32


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
        reliability: bins of equal mass over the chance of the most probable action.
        calibration: the calibration used.
    """

    name: str
    part: str
    n_visits: int
    figures: dict[str, Figure]
    repeat: Figures
    explore: Figures
    short: Figures
    reliability: list[ReliabilityBin] = field(default_factory=list)
    calibration: dict[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The result as plain lists, dicts, strings and numbers, for JSON (figures that do not exist are null)."""
        cleaned: dict[str, Any] = _without_nan(asdict(self))
        return cleaned

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Result:
        """Read what :meth:`to_dict` gave."""
        sections = {
            name: Figures(values[name]["n_visits"], _figures(values[name]["figures"]))
            for name in ("repeat", "explore", "short")
        }
        return cls(
            name=values["name"],
            part=values["part"],
            n_visits=values["n_visits"],
            figures=_figures(values["figures"]),
            reliability=[ReliabilityBin(**entry) for entry in values["reliability"]],
            calibration=values["calibration"],
            **sections,
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
) -> Result:
    """Measure a scorer on the target visits of a part; memory is that of one block of scores.

    All actions but id 0 are ranked, ties are broken at random in expectation, and actions that nobody took before the
    part began are misses. NLL is the mean over visits of the mean over their distinct actions of ``-log`` of the
    calibrated next-action probability, in nats. ECE (15 bins of equal mass) and Brier score are those of the chance
    that the most probable action is in the visit. Intervals: 1,000 bootstrap samples of customers (of 16,384 groups
    of customers where there are more); ECE uses at most the first 2^20 visits.

    Args:
        scorer: a fitted model or baseline.
        dataset: the dataset.
        split: the split that the scorer was fitted with.
        calibration: fitted on validation; the identity if not given.
        part: ``"test"`` or ``"valid"``.
        name: name in the result; the scorer's if not given.
        seed: of the bootstrap.

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
    calibration = Calibration() if calibration is None else calibration
    start, _ = split.bounds(part)
    known = known_actions(dataset, split.test_start if start is None else start)
    tally = Tally(seed)
    n_customers = 0
    checked = False
    for histories in dataset.batches():
        targets = target_visits(histories, split, part)
        if len(targets) and not checked:
            assert_blind(scorer, histories, targets)
            checked = True
        for section, visits in (("all", targets), ("short", target_visits(histories, split, part, short=True))):
            for block, scores in _checked_blocks(scorer, histories, visits, dataset.n_actions):
                customers = np.searchsorted(histories.visit_start, block, side="right") - 1
                _measure(tally, section, n_customers + customers, histories, block, scores, known, calibration)
        n_customers += histories.n_customers
    overall = tally.figures("all")
    return Result(
        name=scorer.name if name is None else name,
        part=part,
        n_visits=overall.n_visits,
        figures={metric: overall.figures[metric] for metric in METRICS},
        repeat=tally.figures("repeat"),
        explore=tally.figures("explore"),
        short=tally.figures("short"),
        reliability=tally.reliability(),
        calibration=calibration.to_dict(),
    )


def _measure(
    tally: Tally,
    section: str,
    customers: NDArray[np.int64],
    histories: Histories,
    targets: NDArray[np.int64],
    scores: NDArray[np.float32],
    known: NDArray[np.bool_],
    calibration: Calibration,
) -> None:
    """Measure one block of scores and add it to the tally."""
    labels = Labels.of(histories, targets, known)
    log_next = calibration.log_next_action(scores)
    best = log_next[:, 1:].max(axis=1)
    chances = calibration.chance(best, labels.mean_size)
    values = np.empty((len(targets), 6))
    rank_targets(scores, labels.start, labels.actions, values[:, :4])
    hits = values[:, 0]
    values[:, 4] = -mean_by_visit(log_next, labels)
    values[:, 5] = hits * (1.0 - chances) ** 2 + (1.0 - hits) * chances**2
    tally.add(section, customers, values)
    if section == "short":
        return
    tally.add_chances(customers, chances, hits)
    repeated = np.empty(len(labels.actions), np.bool_)
    first = first_visits(histories, targets)
    mark_repeats(first, targets, histories.action_start, histories.actions, len(known), repeated)
    for name, chosen in (("repeat", repeated), ("explore", ~repeated)):
        start = np.concatenate((np.zeros(1, np.int64), np.cumsum(chosen)))[labels.start]
        ranks = np.empty((len(targets), 4))
        rank_targets(scores, start, labels.actions[chosen], ranks)
        tally.add(name, customers, ranks)


def compare(results: Sequence[Result]) -> list[dict[str, str]]:
    """Lay results side by side.

    Args:
        results: the systems.

    Returns:
        One row per system, in the order given: ``system``, then each of ``METRICS`` as ``value [low, high]``.
    """
    return [{"system": result.name} | {metric: str(result.figures[metric]) for metric in METRICS} for result in results]


def assert_blind(scorer: Scorer, histories: Histories, targets: NDArray[np.int64], *, seed: int = 0) -> None:
    """Check that scores for a visit do not depend on what it holds nor on anything after it.

    Some customers are scored twice at their first target: as they are, and with that visit's actions replaced at random
    and all later visits removed. A scorer that peeks gives different scores.

    Args:
        scorer: a fitted model or baseline.
        histories: one batch of histories.
        targets: int64 [n], target visits local to the batch.
        seed: of the replacement.

    Raises:
        ModelError: the scores differ.
    """
    rng = np.random.default_rng(seed)
    first = first_visits(histories, targets)
    # The first target of each customer: the most of a future to hide.
    chosen = np.flatnonzero(np.append(True, first[1:] != first[:-1]))[:_N_BLIND_CUSTOMERS]
    visits, starts = targets[chosen], first[chosen]
    scores = np.concatenate([block.copy() for _, block in _checked_blocks(scorer, histories, visits)])
    hidden = _hide(histories, starts, visits, scores.shape[1], rng)
    blind_targets = hidden.visit_start[1:].astype(np.int64) - 1
    blind = np.concatenate([block.copy() for _, block in _checked_blocks(scorer, hidden, blind_targets)])
    # Blocks of other shapes may add up floats in another order.
    if not np.allclose(log_softmax(scores)[:, 1:], log_softmax(blind)[:, 1:], rtol=1e-3, atol=1e-3):
        raise ModelError(
            f"{scorer.name} sees the future: its scores for a visit change with what that visit holds or what follows",
            hint="use the earlier visits of the customer and the time of the visit only",
        )


def _hide(
    histories: Histories,
    starts: NDArray[np.int64],
    visits: NDArray[np.int64],
    n_actions: int,
    rng: np.random.Generator,
) -> Histories:
    """Copy some histories up to a visit whose actions, counts and key are replaced at random."""
    kept = [np.arange(start, visit + 1) for start, visit in zip(starts, visits, strict=True)]
    sets = []
    counts = []
    for run in kept:
        for visit in run:
            pairs = slice(histories.action_start[visit], histories.action_start[visit + 1])
            if visit != run[-1]:
                sets.append(histories.actions[pairs])
                counts.append(histories.counts[pairs])
                continue
            size = int(rng.integers(1, min(n_actions - 1, 12) + 1))
            sets.append(np.sort(rng.choice(np.arange(1, n_actions), size, replace=False)).astype(np.int32))
            counts.append(rng.integers(1, 9, size).astype(np.int32))
    order = np.concatenate(kept)
    keys = histories.visit_key[order]
    stops = np.cumsum([len(run) for run in kept])
    keys[stops - 1] = rng.integers(0, 2**63, len(kept)).astype(np.uint64)
    customers = np.searchsorted(histories.visit_start, visits, side="right") - 1
    return Histories(
        customers=histories.customers.take(pa.array(customers)),
        visit_start=np.concatenate(([0], stops)).astype(np.int32),
        visit_time=histories.visit_time[order],
        visit_key=keys,
        action_start=np.concatenate(([0], np.cumsum([len(actions) for actions in sets]))).astype(np.int32),
        actions=np.concatenate(sets),
        counts=np.concatenate(counts),
    )


def _checked_blocks(
    scorer: Scorer, histories: Histories, targets: NDArray[np.int64], n_actions: int | None = None
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Yield a scorer's blocks, refusing what could not be measured."""
    n_scored = 0
    if len(targets) == 0:
        return
    for block, scores in scorer.score(histories, targets):
        expected = targets[n_scored : n_scored + len(block)]
        n_scored += len(block)
        if scores.shape != (len(block), n_actions or scores.shape[-1]) or not np.array_equal(block, expected):
            raise ModelError(
                f"{scorer.name} did not score each target in order, one row of all actions each",
                hint="a scorer yields (targets [m], scores [m, n_actions]) that cover the targets in order",
            )
        if not np.isfinite(scores[:, 1:]).all() or np.isnan(scores[:, 0]).any():
            raise ModelError(f"{scorer.name} gave scores that are no numbers", hint="lower its learning rate")
        yield block, scores
    if n_scored != len(targets):
        raise ModelError(
            f"{scorer.name} scored {n_scored} of {len(targets)} targets", hint="a scorer yields a row per target"
        )


def _figures(values: dict[str, dict[str, float | None]]) -> dict[str, Figure]:
    """Read figures from JSON, null as NaN."""

    def number(value: float | None) -> float:
        return float("nan") if value is None else value

    return {
        metric: Figure(number(entry["value"]), number(entry["low"]), number(entry["high"]))
        for metric, entry in values.items()
    }


def _without_nan(value: Any) -> Any:
    """Replace NaN by None, which JSON has."""
    if isinstance(value, dict):
        return {key: _without_nan(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_without_nan(entry) for entry in value]
    return None if isinstance(value, float) and np.isnan(value) else value
