"""Turn scores into probabilities that can be believed: fitted on what comes before the test, never on it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from luckyfast.dataset import Dataset
from luckyfast.moments import DAY_US
from luckyfast.windows import Labels, Scorer, Split, known_actions, target_visits

__all__ = [
    "HIGHEST",
    "LOWEST",
    "Calibration",
    "StatedChances",
    "calibrate",
    "log_softmax",
    "mean_by_visit",
    "n_calibrated",
]

SAMPLE_VALUES, SAMPLE_VISITS = 2**24, 2**17
N_CANDIDATES = 10
N_TAIL = 12
KNOTS = (0.5, 0.8, 0.95)
"""Quantiles of the log odds, weighted like the fit, at which their curve bends."""
LEAST_SLOPE = 0.01
RIDGE = 60.0
"""Precision of the prior around 0 of what an action's log odds differ by from all others', in weighted visits; where
it is measured, the least."""
LOGS = 30.0
"""Logarithms in a fit are held within so much of 0."""
LOWEST = -80.0
HIGHEST = 60.0
"""Bounds of log probabilities and of log rates: beyond them chances are 0 or 1 to every digit shown."""
FLOOR = 30.0
DISPERSIONS = (1e-3, 10.0)
_STRETCH_PAIRS = 2**15
_KNOT_VISITS = 2**15
_LISTS = ("knots", "bends", "offsets")

EARLIER = 4
"""How many times as long as validation the time before it is in which offsets are measured too."""
OFFSET_VISITS = 2**14
"""Visits that offsets are measured in; twice as many change no rank that counts."""
MOST_RIDGE = 1e5
"""Offsets with a prior of more precision than this are none."""

Sample = list[tuple[NDArray[np.float32], Labels]]
"""Scores float32 [n, n_actions] and the labels of the same n visits, in blocks."""
_Block = tuple[NDArray[np.float32], Labels, NDArray[Any]]
"""Scores and labels of n visits, and something else that is known of each."""


@dataclass(frozen=True)
class Calibration:
    """The map from scores to two probabilities: of the next single action, and of an action being in the next visit.

    With ``p = softmax(scores / temperature)`` for the next action, a first chance that an action is in the next visit
    is ``1 - (1 + dispersion * rate) ** (-1 / dispersion)`` with ``log rate = slope * log p + intercept + size_weight *
    log(1 + mean_size)``, where ``mean_size`` is the mean number of distinct actions in the customer's earlier visits.
    Its log odds ``z`` become ``odds_intercept + odds_slope * z + sum(bends * max(z - knots, 0))``: where chances are
    large or small they come true by another law than in between. To these ``offsets`` adds a number per action: a visit
    for one thing alone, such as a coupon, is a small one, so that a share of the next actions is worth less there.
    The first is temperature scaling (Guo et al., 2017). The second is the chance of at least one event where their
    number is negative binomial with that mean, a Poisson process whose intensity varies from visit to visit; as a link
    function, that of Aranda-Ordaz (1981). Dispersion 1 is the logistic curve, dispersion near 0 a Poisson process. The
    third is logistic recalibration (Cox, 1958) in pieces, with a random intercept per action.
    For one action a larger share is a larger chance. Between actions that need not be: :mod:`luckyfast.offers` says in
    which order they are offered.
    The default rate, an expected number of ``p * (1 + mean_size)``, is not far off before any fit.

    Example:
        >>> scores = np.log(np.array([[0.1, 0.6, 0.3]], np.float32))
        >>> Calibration().next_action(scores).round(2)
        array([[0.1, 0.6, 0.3]], dtype=float32)
    """

    temperature: float = 1.0
    slope: float = 1.0
    intercept: float = 0.0
    size_weight: float = 1.0
    dispersion: float = 1.0
    odds_slope: float = 1.0
    odds_intercept: float = 0.0
    knots: tuple[float, ...] = ()
    bends: tuple[float, ...] = ()
    offsets: tuple[float, ...] = ()

    @classmethod
    def fit(cls, blocks: Iterable[tuple[NDArray[np.float32], Labels]]) -> Self:
        """Fit to scores and what happened; reads no more blocks than make 2^24 scores, or 2^17 visits.

        The temperature minimises the mean over visits of the mean over their actions of ``-log p``. The chance is
        fitted by maximum likelihood to all actions of each visit, weighted by one over their rank, so that those a
        user is shown count as much as all the others; from the eleventh rank on, a few ranks stand for all. Offsets
        have a normal prior around 0, so that an action which is seldom among the first has hardly any.

        Args:
            blocks: scores float32 [n, n_actions] and the labels of the same n visits.

        Returns:
            The calibration; the default one if there are no labels.
        """
        sample, _ = _gathered(((scores, labels, labels.mean_size) for scores, labels in blocks), SAMPLE_VISITS)
        return cls._fit(sample)

    @classmethod
    def _fit(cls, sample: Sample, offsets: NDArray[np.float64] | None = None) -> Self:
        """Fit to a sample, but for offsets that are given; the default calibration if it is empty."""
        return cls(_fit_temperature(sample))._with_chances(sample, offsets) if sample else cls()

    def _with_chances(self, sample: Sample, offsets: NDArray[np.float64] | None = None) -> Self:
        """The same temperature, and all that leads from it to chances, fitted; but for offsets that are given."""
        first, pairs, log_odds = self._unbent(sample)
        return replace(first, **_fit_odds(log_odds, pairs, offsets=offsets))

    def _unbent(self, sample: Sample) -> tuple[Self, _Pairs, NDArray[np.float64]]:
        """The same temperature and a first chance; the pairs it was fitted to; log odds of these, of the same shape."""
        pairs = _candidates(sample, self.log_next_action)
        first = type(self)(self.temperature, *_fit_chance(pairs))
        log_odds = np.empty(pairs.log_p.shape)
        for rows in pairs.stretches():
            log_rate = first.slope * pairs.log_p[rows].astype(np.float64) + first.intercept
            log_rate += first.size_weight * pairs.log_size[rows, None]
            log_odds[rows] = _log_odds(np.clip(log_rate, -LOGS, LOGS), first.dispersion)
        return first, pairs, log_odds

    def log_next_action(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """Log probability of each action being the next single one, float32 [n, n_actions] from the same shape."""
        return log_softmax(scores * np.float32(1.0 / self.temperature))

    def next_action(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probability of each action being the next single one.

        Args:
            scores: float32 [n, n_actions].

        Returns:
            float32 [n, n_actions]; rows add up to 1.
        """
        return np.exp(self.log_next_action(scores))

    def in_visit(self, scores: NDArray[np.float32], mean_size: NDArray[np.float64]) -> NDArray[np.float32]:
        """Chance of each action being in the next visit.

        Args:
            scores: float32 [n, n_actions].
            mean_size: float64 [n], mean number of distinct actions in the customer's earlier visits.

        Returns:
            float32 [n, n_actions], each in (0, 1).
        """
        return self.probabilities(scores, mean_size)[1]

    def probabilities(
        self, scores: NDArray[np.float32], mean_size: NDArray[np.float64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Both probabilities, with one softmax.

        Args:
            scores: float32 [n, n_actions].
            mean_size: float64 [n], mean number of distinct actions in the customer's earlier visits.

        Returns:
            What :meth:`log_next_action` and :meth:`in_visit` give, each float32 [n, n_actions].

        Example:
            >>> log_next, chances = Calibration().probabilities(np.log(np.array([[0.2, 0.8]], np.float32)), np.ones(1))
            >>> np.exp(log_next).round(2), chances.round(2)
            (array([[0.2, 0.8]], dtype=float32), array([[0.29, 0.62]], dtype=float32))
        """
        log_next = self.log_next_action(scores)
        return log_next, self.chance(log_next, mean_size[:, None])

    def chance(self, log_next: NDArray[np.float32], mean_size: NDArray[np.float64]) -> NDArray[np.float32]:
        """Chance of being in the next visit, from the log probability of being the next action.

        Shapes broadcast; with :attr:`offsets` the last axis is that of all actions.
        """
        size = (self.size_weight * np.log1p(mean_size) + self.intercept).astype(np.float32)
        # A bound keeps extreme fits of tiny samples from overflowing; chances there are 1 to every digit shown.
        # An action without any probability, as id 0 may be, is as good as one of a very small one.
        log_next = np.maximum(log_next, np.float32(LOWEST))
        log_rate = np.minimum(np.float32(self.slope) * log_next + size, np.float32(HIGHEST))
        return self._bent_chance(_log_odds(log_rate, self.dispersion))

    def _bent_chance(self, log_odds: NDArray[Any]) -> NDArray[Any]:
        bent = self._bend(log_odds)
        if self.offsets:
            bent += self._offset_row
        chances: NDArray[Any] = 1.0 / (1.0 + np.exp(-np.clip(bent, LOWEST, -LOWEST)))
        return chances

    @cached_property
    def _offset_row(self) -> NDArray[np.float32]:
        return np.array(self.offsets, np.float32)

    def _bend(self, log_odds: NDArray[Any]) -> NDArray[Any]:
        bent: NDArray[Any] = self.odds_slope * log_odds + self.odds_intercept
        for knot, bend in zip(self.knots, self.bends, strict=True):
            bent += bend * np.maximum(log_odds - knot, 0)
        return bent

    def to_dict(self) -> dict[str, Any]:
        """All numbers by name, for JSON."""
        return asdict(self) | {name: list(getattr(self, name)) for name in _LISTS}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Calibration:
        """Read what :meth:`to_dict` gave."""
        lists: dict[str, Any] = {name: tuple(map(float, values.get(name, ()))) for name in _LISTS}
        numbers: dict[str, Any] = {name: float(value) for name, value in values.items() if name not in lists}
        return cls(**numbers, **lists)


class StatedChances(Calibration):
    """For scores that are logs of chances of being in the next visit: how high they are counts, not only their order.

    The odds that were stated are bent and shifted by the last of the three maps; a softmax would forget how many
    actions a visit was said to have.

    Example:
        >>> StatedChances().in_visit(np.log(np.array([[0.9, 0.8, 0.1]], np.float32)), np.ones(1)).round(2)
        array([[0.9, 0.8, 0.1]], dtype=float32)
    """

    def probabilities(
        self, scores: NDArray[np.float32], mean_size: NDArray[np.float64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """As for any scores, but the chance has nothing to do with the softmax, nor with the size of earlier visits."""
        del mean_size
        return self.log_next_action(scores), self._bent_chance(_stated_odds(scores).astype(np.float32))

    def _unbent(self, sample: Sample) -> tuple[Self, _Pairs, NDArray[np.float64]]:
        pairs = _candidates(sample, lambda scores: scores)
        return self, pairs, _stated_odds(pairs.log_p)


def calibrate(scorer: Scorer, dataset: Dataset, split: Split, *, earlier: bool = False) -> Calibration:
    """Fit a calibration to a scorer's validation targets, and its offsets to earlier visits too where that is wanted.

    Args:
        scorer: a scorer that was fitted on nothing later than ``split.valid_start``.
        dataset: the dataset.
        split: the split whose validation part is used.
        earlier: whether offsets of actions are measured in the visits of a time before validation too, four times as
            long, and believed as far as days and customers agree about them. In a short validation a promotion would be
            taken for what an action is like. That the scorer was fitted on these visits makes it too sure there of all
            actions, so that nothing but offsets is taken from them.

    Returns:
        The calibration.
    """
    known = known_actions(dataset, split.valid_start)

    def blocks(part: Split) -> Iterator[_Block]:
        n_customers = 0
        for histories in dataset.batches():
            for block, scores in scorer.score(histories, target_visits(histories, part, "valid")):
                groups = [n_customers + np.searchsorted(histories.visit_start, block, side="right")]
                if dataset.has_common_times:
                    groups.append(histories.visit_time[block] // DAY_US)
                yield scores, Labels.of(histories, block, known), np.stack(groups, axis=1)
            n_customers += histories.n_customers

    offsets = None
    if earlier:
        start = split.valid_start - EARLIER * (split.test_start - split.valid_start)
        offsets = _fit_offsets(*_gathered(blocks(replace(split, valid_start=start)), OFFSET_VISITS))
    sample, _ = _gathered(blocks(split), SAMPLE_VISITS)
    return Calibration._fit(sample, offsets)


def n_calibrated(n_actions: int, n_valid: int) -> int:
    """About how many visits :func:`calibrate` scores, the earlier ones too, with ``n_valid`` in validation."""
    most = -(-SAMPLE_VALUES // n_actions)
    return min(n_valid, SAMPLE_VISITS, most) + min((1 + EARLIER) * n_valid, OFFSET_VISITS, most)


def _gathered(blocks: Iterable[_Block], most_visits: int) -> tuple[Sample, NDArray[Any]]:
    """As many blocks as a fit reads, and what is known of their visits beside the labels; nothing without labels.

    After the block that makes the visits or 2^24 scores full it reads no further.
    """
    sample: Sample = []
    others, n_visits = [np.zeros(0)], 0
    for scores, labels, other in blocks:
        if len(scores):
            sample.append((scores, labels))
            others.append(other)
            n_visits += len(scores)
        if n_visits >= min(most_visits, -(-SAMPLE_VALUES // scores.shape[1])):
            break
    if not any(len(labels.actions) for _, labels in sample):
        return [], others[0]
    return sample, np.concatenate(others[1:])


def log_softmax(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Log of the softmax over the last axis."""
    shifted = scores - scores.max(axis=1, keepdims=True)
    log_sum: NDArray[np.float32] = np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    result: NDArray[np.float32] = shifted - log_sum
    return result


def mean_by_visit(log_next: NDArray[np.float32], labels: Labels) -> NDArray[np.float64]:
    """Mean of a log probability over the actions of each visit.

    Args:
        log_next: float32 [n, n_actions].
        labels: the labels of the same n visits.

    Returns:
        float64 [n]; where an action has no probability at all, ``log 1e-13`` stands for it.
    """
    sizes = np.diff(labels.start)
    rows = np.repeat(np.arange(len(sizes)), sizes)
    values = np.maximum(log_next[rows, labels.actions].astype(np.float64), -FLOOR)
    return np.bincount(rows, weights=values, minlength=len(sizes)) / np.maximum(sizes, 1)


def _fit_temperature(sample: Sample) -> float:
    """Newton's method on the inverse temperature, in which the loss is convex.

    To what happened comes one more visit, in which the second best action came as often as the best: where the best
    always came, its probability would else go to 1 without end.
    """
    inverse = 1.0
    n_sampled = sum(len(scores) for scores, _ in sample)
    second = [_below_best(scores) for scores, _ in sample]
    for _ in range(20):
        gradient = curvature = 0.0
        for (scores, labels), below in zip(sample, second, strict=True):
            # PERF: scores far below the best one hold no mass; the floor keeps an id 0 of -inf finite.
            values = np.maximum(scores - scores.max(axis=1, keepdims=True), np.float32(-FLOOR / inverse))
            weights = np.exp(np.float32(inverse) * values)
            weights /= weights.sum(axis=1, keepdims=True)
            sizes = np.diff(labels.start)
            rows = np.repeat(np.arange(len(sizes)), sizes)
            # An action that nobody had taken costs the same at any temperature.
            share = np.repeat(1.0 / np.maximum(sizes, 1), sizes) * (labels.actions > 0)
            mean = np.einsum("ij,ij->i", weights, values)
            spread = np.einsum("ij,ij,ij->i", weights, values, values) - mean**2
            gradient += float((share * (mean[rows] - values[rows, labels.actions])).sum())
            gradient += float((mean - 0.5 * below).sum()) / n_sampled
            curvature += float((share * spread[rows]).sum()) + float(spread.sum()) / n_sampled
        step = gradient / max(curvature, 1e-9 * n_sampled)
        updated = float(np.clip(inverse - step, inverse / 3.0, inverse * 3.0))
        if abs(updated - inverse) < 1e-6 * inverse:
            return 1.0 / updated
        inverse = updated
    return 1.0 / inverse


def _below_best(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """How far the second best action is below the best, at most 0, float32 [n]; the unknown action is none."""
    if scores.shape[1] < 3:
        return np.zeros(len(scores), np.float32)
    top = np.partition(scores[:, 1:], -2, axis=1)[:, -2:]
    below: NDArray[np.float32] = top[:, 0] - top[:, 1]
    return below


class _Pairs(NamedTuple):
    """Each visit's actions of some ranks, and whether they came.

    Args:
        actions: int32 [n_visits, n_ranks], ids.
        log_p: float32 [n_visits, n_ranks], log probability of being the next action, or what is in its place.
        came: bool [n_visits, n_ranks].
        log_size: float64 [n_visits], log of 1 + the mean size of the customer's earlier visits.
        weights: float64 [n_ranks].
        n_actions: ids are below it.
    """

    actions: NDArray[np.int32]
    log_p: NDArray[np.float32]
    came: NDArray[np.bool_]
    log_size: NDArray[np.float64]
    weights: NDArray[np.float64]
    n_actions: int

    def stretches(self) -> Iterator[slice]:
        """Visits in stretches, so that what is computed of their pairs in double precision stays small."""
        step = max(_STRETCH_PAIRS // len(self.weights), 1)
        for start in range(0, len(self.actions), step):
            yield slice(start, start + step)


def _candidates(sample: Sample, log_chances: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> _Pairs:
    n_actions = sample[0][0].shape[1]
    ranks, weights = _ranks(n_actions - 1)
    rng = np.random.default_rng(0)
    actions, log_p, outcomes, log_sizes = [], [], [], []
    for scores, labels in sample:
        chosen = _by_rank(scores[:, 1:], rng)[:, ranks - 1] + 1
        came = np.zeros(scores.shape, np.bool_)
        came[np.repeat(np.arange(len(scores)), np.diff(labels.start)), labels.actions] = True
        actions.append(chosen.astype(np.int32))
        log_p.append(np.maximum(np.take_along_axis(log_chances(scores), chosen, axis=1), np.float32(-FLOOR)))
        outcomes.append(np.take_along_axis(came, chosen, axis=1))
        log_sizes.append(np.log1p(labels.mean_size))
    return _Pairs(
        np.concatenate(actions),
        np.concatenate(log_p),
        np.concatenate(outcomes),
        np.concatenate(log_sizes),
        weights,
        n_actions,
    )


def _by_rank(scores: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.int64]:
    """Columns of each row, the highest score first; of equal ones, as all are that a list does not name, any."""
    order = np.argsort(-scores, axis=1)
    ordered = np.take_along_axis(scores, order, axis=1)
    tied = np.flatnonzero((ordered[:, 1:] == ordered[:, :-1]).any(axis=1))
    if len(tied):
        order[tied] = np.lexsort((rng.random((len(tied), scores.shape[1])), -scores[tied]), axis=1)
    return order


def _ranks(n_actions: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Ranks from 1 and their weights: one over the rank, where a few ranks stand for all beyond the tenth."""
    first = np.arange(1, min(N_CANDIDATES, n_actions) + 1)
    if n_actions <= N_CANDIDATES:
        return first, 1.0 / first
    edges = np.geomspace(N_CANDIDATES + 0.5, n_actions + 0.5, min(N_TAIL, n_actions - N_CANDIDATES) + 1)
    middle = np.sqrt(edges[:-1] * edges[1:]).round().astype(np.int64)
    return np.append(first, middle), np.append(1.0 / first, np.log(edges[1:] / edges[:-1]))


def _fit_chance(pairs: _Pairs) -> tuple[float, float, float, float]:
    """Fisher scoring for the chance of at least one negative binomial event, with a normal prior around the defaults.

    Args:
        pairs: of visit and action; the log rate is linear in their ``log_p`` and ``log_size``.

    Returns:
        Slope, intercept, size weight and dispersion.
    """
    prior = np.array([1.0, 0.0, 1.0, 1.0])

    def look(values: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        slope, intercept, size_weight, dispersion = values
        gradient, information = values - prior, np.eye(len(prior))
        loss = 0.5 * float((gradient**2).sum())
        for rows in pairs.stretches():
            log_p, log_size = pairs.log_p[rows].astype(np.float64), pairs.log_size[rows, None]
            rate = np.exp(np.clip(slope * log_p + intercept + size_weight * log_size, -LOGS, LOGS))
            hazard = np.log1p(dispersion * rate) / dispersion
            chances = np.clip(-np.expm1(-hazard), 1e-12, 1.0 - 1e-12)
            losses = np.where(pairs.came[rows], -np.log(chances), np.minimum(hazard, LOGS))
            loss += float((pairs.weights * losses).sum())
            growth = rate / (1.0 + dispersion * rate)
            slopes = np.stack((log_p * growth, growth, log_size * growth, (growth - hazard) / dispersion))
            excess = pairs.weights * (chances - pairs.came[rows]) / chances
            curvature = pairs.weights * (1.0 - chances) / chances
            gradient += np.einsum("kij,ij->k", slopes, excess)
            information += np.tensordot(slopes * curvature, slopes, axes=((1, 2), (1, 2)))
        step: NDArray[np.float64] = np.linalg.solve(information, gradient)
        allowed = dispersion - np.clip(dispersion - step[-1], *DISPERSIONS)
        if allowed != step[-1]:
            # The best step of the others where the dispersion goes no further than its bound.
            rest = gradient[:-1] - information[:-1, -1] * allowed
            step = np.append(np.linalg.solve(information[:-1, :-1], rest), allowed)
        return loss, step

    slope, intercept, size_weight, dispersion = _descend(prior, look).tolist()
    # A larger share of an action is never a smaller chance of it.
    return max(slope, LEAST_SLOPE), intercept, size_weight, dispersion


def _descend(
    start: NDArray[np.float64], look: Callable[[NDArray[np.float64]], tuple[float, NDArray[np.float64]]]
) -> NDArray[np.float64]:
    """Go down by Newton steps until they are small, or gain nothing.

    None is longer than 2 in any coordinate, and one after which the loss is larger is halved: where chances are all but
    0 or 1, as those of predictions that are stated as certain, the curvature says nothing of how far to go.

    Args:
        start: where to begin.
        look: gives the loss at a point and the step to be subtracted from it.

    Returns:
        The point with the lowest loss.
    """
    values = start
    loss, step = look(values)
    for _ in range(100):
        longest = float(np.abs(step).max())
        if longest < 1e-7:
            break
        step = step * min(1.0, 2.0 / longest)
        tried = values - step
        new_loss, new_step = look(tried)
        if new_loss <= loss * (1.0 + 1e-11):  # sums are rounded
            settled = loss - new_loss < 1e-11 * loss
            values, loss, step = tried, new_loss, new_step
            if settled:
                break
        else:
            step = 0.5 * step
    return values


def _log_odds(log_rate: NDArray[Any], dispersion: float) -> NDArray[Any]:
    """Log odds of at least one event, where their number is negative binomial."""
    if dispersion == 1.0:
        return log_rate
    hazard = np.log1p(dispersion * np.exp(log_rate)) / dispersion
    odds: NDArray[Any] = hazard + np.log(np.maximum(-np.expm1(-hazard), np.finfo(hazard.dtype).tiny))
    return odds


def _stated_odds(log_chances: NDArray[Any]) -> NDArray[np.float64]:
    """Log odds of chances; none is taken to be nearer to certainty than single precision tells."""
    logs = np.minimum(log_chances.astype(np.float64), -(2.0**-24))
    odds: NDArray[np.float64] = logs - np.log(-np.expm1(logs))
    return odds


def _fit_offsets(sample: Sample, groups: NDArray[np.int64]) -> NDArray[np.float64]:
    """Offsets of actions, with a prior whose precision is measured too.

    Between actions they differ more than chance tells, or they do not; chance is what days and customers differ by,
    since on one day all visits see the same promotion, and one customer likes the same things at all times. Both are
    told by moments, as those of random effects are in meta-analysis (DerSimonian & Laird, 1986), with the residuals of
    a fit without offsets. The precision is not less than :data:`RIDGE`: of one day or two nothing is told.

    Args:
        sample: scores and labels.
        groups: int64 [n, k], k partitions of the visits: those alike in a column may have more in common.

    Returns:
        float64 [n_actions], or none at all.
    """
    none = np.zeros(0)
    if not sample:
        return none
    first, pairs, log_odds = Calibration(_fit_temperature(sample))._unbent(sample)
    chances = replace(first, **_fit_odds(log_odds, pairs, offsets=none))._bent_chance(log_odds)
    residuals = pairs.weights * (pairs.came - chances)
    information = pairs.weights * chances * (1.0 - chances)
    own, precision = (np.bincount(pairs.actions.ravel(), each.ravel()) for each in (residuals, information))
    if not (precision**2).sum() > 0:  # all chances are certain
        return none
    # Weights below 1 leave less to chance than whole visits have.
    noise = float((pairs.weights * information).sum()) / float(precision.sum())
    noise = max(noise, *(_noise_between(group, pairs.actions, residuals, information) for group in groups.T))
    spread = float((own**2 - noise * precision).sum()) / float((precision**2).sum())
    if noise >= MOST_RIDGE * spread:
        return none
    return np.array(_fit_odds(log_odds, pairs, ridge=max(noise / spread, RIDGE))["offsets"])


def _noise_between(
    group: NDArray[np.int64],
    actions: NDArray[np.int32],
    residuals: NDArray[np.float64],
    information: NDArray[np.float64],
) -> float:
    """Variance of an action's residuals by their information, told by how groups of visits differ from one another.

    Args:
        group: int64 [n], of each visit.
        actions, residuals, information: [n, n_ranks].
    """
    names, place = np.unique(group, return_inverse=True)
    keys, place = np.unique(actions.astype(np.int64) * len(names) + place.ravel()[:, None], return_inverse=True)
    summed, known = (np.bincount(place.ravel(), each.ravel()) for each in (residuals, information))
    action = keys // len(names)
    precision = np.maximum(np.bincount(action, known), 1e-12)
    apart = summed - np.bincount(action, summed)[action] * known / precision[action]
    # A group's part in the sum that it is compared with is no freedom of its own.
    free = float((known * (1.0 - known / precision[action])).sum())
    return float((apart**2).sum()) / free if free > 1e-9 * float(known.sum()) else 0.0


def _fit_odds(
    log_odds: NDArray[np.float64],
    pairs: _Pairs,
    *,
    ridge: float = RIDGE,
    offsets: NDArray[np.float64] | None = None,
) -> dict[str, Any]:
    """Logistic regression on log odds, in pieces between knots, and which action it is.

    The prior is normal, around no change. In all of these the loss is convex, and the second derivatives between
    actions are 0, so that Newton's step for all of them at once takes a small matrix (its Schur complement). Where the
    best slope of a piece is less than it may be, it is held there, and the others are fitted to that.

    Args:
        log_odds: float64 [n_visits, n_ranks], of the pairs.
        pairs: of visit and action.
        ridge: precision of the prior of offsets.
        offsets: float64 [n_actions], or none at all, to be kept as they are; None fits them.

    Returns:
        ``odds_slope``, ``odds_intercept``, ``knots``, ``bends`` and ``offsets``.
    """
    n_actions = pairs.n_actions
    given = None if offsets is None else offsets if len(offsets) else np.zeros(n_actions)
    some = log_odds[:: max(len(log_odds) // _KNOT_VISITS, 1)]
    order = np.argsort(some, axis=None)
    sums = np.cumsum(pairs.weights[order % some.shape[1]])
    knots = some.ravel()[order[np.minimum(np.searchsorted(sums, np.array(KNOTS) * sums[-1]), len(order) - 1)]]
    n_shared = 2 + len(knots)
    # From the intercept and the slope of each piece to intercept, first slope and bends.
    to_bends = np.eye(n_shared) - np.eye(n_shared, k=-1)
    to_bends[1, 0] = 0.0
    prior = np.zeros(n_shared)
    prior[1] = 1.0
    held = np.zeros(n_shared, np.bool_)

    def look(values: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        shared, own_offsets = to_bends @ values[:n_shared], values[n_shared:] if given is None else given
        gradient, information = shared - prior, np.eye(n_shared)
        loss = 0.5 * float((gradient**2).sum() + ridge * (own_offsets**2).sum())
        own_gradient, own = ridge * own_offsets, np.full(n_actions, ridge)
        between = np.zeros((n_shared, n_actions))
        for rows in pairs.stretches():
            z, actions = log_odds[rows].ravel(), pairs.actions[rows].ravel()
            features = np.stack((np.ones_like(z), z, *(np.maximum(z - knot, 0.0) for knot in knots)))
            bent_odds = shared @ features + own_offsets[actions]
            chances = 1.0 / (1.0 + np.exp(-np.clip(bent_odds, -LOGS, LOGS)))
            came = pairs.came[rows].ravel()
            importance = np.broadcast_to(pairs.weights, log_odds[rows].shape).ravel()
            loss += float(importance @ (np.logaddexp(0.0, bent_odds) - came * bent_odds))
            excess = importance * (chances - came)
            curvature = importance * np.maximum(chances * (1.0 - chances), 1e-12)
            bent = features * curvature
            gradient += features @ excess
            information += bent @ features.T
            if given is not None:
                continue
            own_gradient += np.bincount(actions, excess, n_actions)
            own += np.bincount(actions, curvature, n_actions)
            between += [np.bincount(actions, feature, n_actions) for feature in bent]
        gradient, between = to_bends.T @ gradient, to_bends.T @ between
        information = to_bends.T @ information @ to_bends
        # What an action's own offset takes up is gone from the shared part.
        information -= (between / own) @ between.T
        gradient -= between @ (own_gradient / own)
        step = np.zeros(n_shared)
        step[~held] = np.linalg.solve(information[np.ix_(~held, ~held)], gradient[~held])
        return loss, step if given is not None else np.concatenate((step, (own_gradient - between.T @ step) / own))

    values = np.concatenate(([0.0], np.ones(n_shared - 1), np.zeros(n_actions if given is None else 0)))
    while True:
        values = _descend(values, look)
        too_flat = values[:n_shared] < LEAST_SLOPE
        too_flat[0] = False
        if not too_flat.any():
            break
        held |= too_flat
        values[:n_shared][held] = LEAST_SLOPE
    slopes = values[1:n_shared]
    return {
        "odds_slope": float(slopes[0]),
        "odds_intercept": float(values[0]),
        "knots": tuple(knots.tolist()),
        "bends": tuple(np.diff(slopes).tolist()),
        "offsets": tuple(np.round(values[n_shared:] if offsets is None else offsets, 4).tolist()),
    }
