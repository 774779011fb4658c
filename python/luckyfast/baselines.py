"""The predictors every model must beat: popularity, last visit, personal frequencies, Markov, TIFU-KNN."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from luckyfast.calibration import Calibration, calibrate, mean_by_visit
from luckyfast.dataset import Dataset, Histories
from luckyfast.kernels import baselines as kernels
from luckyfast.kernels.ranking import rank_targets
from luckyfast.moments import DAY_US
from luckyfast.windows import Labels, Split, first_visits, known_actions, target_visits

__all__ = [
    "BASELINES",
    "Baseline",
    "DecayedFrequency",
    "LastVisit",
    "Markov",
    "PersonalFrequency",
    "Popularity",
    "TifuKnn",
    "fit_baseline",
]

BLOCK_VALUES = 2**20
TABLE_VALUES = 2**24
TUNING_TARGETS = 4096
SPARSE_SHARE = 0.03


@dataclass
class Baseline(ABC):
    """A scorer with few parameters: what it saw of a customer, mixed with how popular actions are.

    Every baseline scores the log of ``(evidence + prior * popularity) / (sum of evidence + prior)``. Validation chooses
    among the variants in ``families()`` by NDCG@10, and then among ``priors`` by log-likelihood.

    Args:
        prior: how much evidence the popularity weighs.
    """

    name: ClassVar[str]
    priors: ClassVar[tuple[float, ...]] = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
    prior: float = 10.0
    popularity: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32), repr=False)

    def families(self) -> list[tuple[Self, list[dict[str, float]]]]:
        """The settings among which validation chooses: what to fit, and settings that need no other fit."""
        return [(self, [{}])]

    def fit(self, dataset: Dataset, split: Split, *, before: int | None = None) -> Self:
        """Learn from the visits before a time.

        Args:
            dataset: the dataset.
            split: the split.
            before: the time; ``split.test_start`` if not given.

        Returns:
            Itself.
        """
        before = split.test_start if before is None else before
        # Id 0 takes the place of one more event: the chance of meeting what was never met.
        counts = np.ones(dataset.n_actions)
        for histories in dataset.batches():
            for visits in histories.stretches():
                early = histories.actions_of(visits, histories.visit_time[visits] < before)
                counts += np.bincount(early, minlength=dataset.n_actions)
        self.popularity = (counts / counts.sum()).astype(np.float32)
        self._learn(dataset, before)
        return self

    def score(
        self, histories: Histories, targets: NDArray[np.int64]
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Score every action at the given visits, see :class:`luckyfast.windows.Scorer`."""
        n_actions = len(self.popularity)
        first = first_visits(histories, targets)
        n_rows = max(BLOCK_VALUES // self._values_per_row(), 1)
        for start in range(0, len(targets), n_rows):
            block = targets[start : start + n_rows]
            rows = np.empty((len(block), n_actions), np.float32)
            self._fill(histories, first[start : start + n_rows], block, rows)
            yield block, self._log_mixture(rows)

    def _values_per_row(self) -> int:
        """Numbers held while one target is scored, by which blocks are cut."""
        return len(self.popularity)

    def _log_mixture(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        total = rows.sum(axis=1, keepdims=True) + np.float32(self.prior)
        rows += np.float32(self.prior) * self.popularity
        rows /= total
        return np.log(rows, out=rows)

    def _fill_each(
        self,
        variants: Sequence[dict[str, float]],
        histories: Histories,
        first: NDArray[np.int64],
        targets: NDArray[np.int64],
    ) -> Iterator[NDArray[np.float32]]:
        """Yield the evidence under each of some settings that need no other fit."""
        for settings in variants:
            rows = np.empty((len(targets), len(self.popularity)), np.float32)
            replace(self, **settings)._fill(histories, first, targets, rows)  # type: ignore[arg-type]
            yield rows

    def _learn(self, dataset: Dataset, before: int) -> None:
        """Learn what the baseline needs beside the popularity: nothing, unless it says otherwise."""
        return

    @abstractmethod
    def _fill(
        self, histories: Histories, first: NDArray[np.int64], targets: NDArray[np.int64], rows: NDArray[np.float32]
    ) -> None:
        """Write the evidence at each target into ``rows`` float32 [n, n_actions]."""


@dataclass
class Popularity(Baseline):
    """How often an action was taken by anyone.

    Example:
        >>> scorer = Popularity().fit(dataset, split_by_time(dataset))
        >>> round(float(scorer.popularity.sum()), 3)
        1.0
    """

    name: ClassVar[str] = "popularity"
    priors: ClassVar[tuple[float, ...]] = (1.0,)
    prior: float = 1.0

    def _fill(
        self, histories: Histories, first: NDArray[np.int64], targets: NDArray[np.int64], rows: NDArray[np.float32]
    ) -> None:
        rows[:] = 0.0


@dataclass
class LastVisit(Baseline):
    """The actions of the customer's last visit, the more popular first."""

    name: ClassVar[str] = "last visit"

    def _fill(
        self, histories: Histories, first: NDArray[np.int64], targets: NDArray[np.int64], rows: NDArray[np.float32]
    ) -> None:
        rows[:] = 0.0
        known = targets > first
        last = targets[known] - 1
        start = histories.action_start.astype(np.int64)
        sizes = start[last + 1] - start[last]
        pairs = np.arange(sizes.sum()) + np.repeat(start[last] - np.cumsum(sizes) + sizes, sizes)
        rows[np.repeat(np.flatnonzero(known), sizes), histories.actions[pairs]] = 1.0


@dataclass
class PersonalFrequency(Baseline):
    """In how many of the customer's earlier visits the action was taken."""

    name: ClassVar[str] = "personal frequency"

    def _fill(
        self, histories: Histories, first: NDArray[np.int64], targets: NDArray[np.int64], rows: NDArray[np.float32]
    ) -> None:
        kernels.fill_frequencies(
            first, targets, histories.visit_time, histories.action_start, histories.actions, 0.0, rows
        )


@dataclass
class DecayedFrequency(Baseline):
    """The same, where a visit's weight halves with every half-life of age.

    Args:
        half_life: in days; in visits where the log has an order and no clock.
    """

    name: ClassVar[str] = "decayed personal frequency"
    half_life: float = 180.0
    time_kind: str = "clock"

    def families(self) -> list[tuple[Self, list[dict[str, float]]]]:
        """Half-lives; the fit is the same for all."""
        half_lives = (0.5, 2.0, 5.0, 15.0, 45.0, 90.0, 180.0, 360.0)
        return [(self, [{"half_life": half_life} for half_life in half_lives])]

    def _learn(self, dataset: Dataset, before: int) -> None:
        self.time_kind = dataset.time_kind

    def _fill(
        self, histories: Histories, first: NDArray[np.int64], targets: NDArray[np.int64], rows: NDArray[np.float32]
    ) -> None:
        clock = self.time_kind == "clock"
        time = histories.visit_time if clock else np.arange(histories.n_visits)
        rate = np.log(2.0) / (self.half_life * (DAY_US if clock else 1))
        kernels.fill_frequencies(first, targets, time, histories.action_start, histories.actions, rate, rows)


@dataclass
class Markov(Baseline):
    """What followed the last visit's actions in other visits, all customers together.

    The table is kept for the most popular actions, as many as make 2^24 entries (64 MB).
    """

    name: ClassVar[str] = "Markov"
    table_row: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32), repr=False)
    table: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), np.float32), repr=False)

    def _learn(self, dataset: Dataset, before: int) -> None:
        n_actions = dataset.n_actions
        n_rows = min(n_actions, max(TABLE_VALUES // n_actions, 1))
        self.table_row = np.full(n_actions, -1, np.int32)
        self.table_row[np.argsort(-self.popularity, kind="stable")[:n_rows]] = np.arange(n_rows)
        self.table = np.zeros((n_rows, n_actions), np.float32)
        for histories in dataset.batches():
            kernels.count_transitions(
                histories.visit_start,
                histories.visit_time,
                histories.action_start,
                histories.actions,
                before,
                self.table_row,
                self.table,
            )
        # Each row becomes a distribution, smoothed by the popularity where little is known about an action.
        self.table += 10.0 * self.popularity
        self.table /= self.table.sum(axis=1, keepdims=True)

    def _fill(
        self, histories: Histories, first: NDArray[np.int64], targets: NDArray[np.int64], rows: NDArray[np.float32]
    ) -> None:
        kernels.fill_transitions(
            first, targets, histories.action_start, histories.actions, self.table_row, self.table, rows
        )


@dataclass
class TifuKnn(Baseline):
    """TIFU-KNN (Hu et al., 2020): fading groups of earlier visits, mixed with those of similar customers.

    Neighbours are sought among the first customers of the dataset, a random sample, as many as make 2^24 entries
    (64 MB), at most 8,192; a customer's own vector when fitted may be among them.

    Args:
        group_size: visits in a group.
        within: decay from one visit to the one before, in a group.
        across: decay from one group to the one before.
        n_neighbours: customers to average over.
        own_share: weight of the customer's own vector against the neighbours'.
    """

    name: ClassVar[str] = "TIFU-KNN"
    priors: ClassVar[tuple[float, ...]] = (0.005, 0.02, 0.05, 0.15, 0.5)
    prior: float = 0.02
    group_size: int = 7
    within: float = 0.9
    across: float = 0.7
    n_neighbours: int = 300
    own_share: float = 0.7
    sample: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), np.float32), repr=False)
    index: _SampleIndex = field(default_factory=lambda: _SampleIndex.of(np.zeros((0, 0), np.float32)), repr=False)

    def families(self) -> list[tuple[Self, list[dict[str, float]]]]:
        """Groups of visits, which make the vectors, and what to do with neighbours, for which vectors stay the same."""
        shares = [
            {"n_neighbours": n_neighbours, "own_share": own_share}
            for n_neighbours, own_share in ((100, 0.7), (300, 0.5), (300, 0.7), (300, 0.9))
        ]
        return [
            (replace(self, group_size=size, across=across), shares) for size, across in ((7, 0.7), (7, 0.9), (3, 0.9))
        ]

    def _learn(self, dataset: Dataset, before: int) -> None:
        n_actions = dataset.n_actions
        n_wanted = min(dataset.n_customers, 8192, max(TABLE_VALUES // n_actions, 1))
        parts: list[NDArray[np.float32]] = []
        n_found = 0
        for histories in dataset.batches():
            first, stop = histories.visit_start[:-1].astype(np.int64), histories.stops_before(before)
            present = np.flatnonzero(stop > first)[: n_wanted - n_found]
            rows = np.empty((len(present), n_actions), np.float32)
            self._fill_own(histories, first[present], stop[present], rows)
            parts.append(rows)
            n_found += len(rows)
            if n_found == n_wanted:
                break
        self.sample = np.concatenate(parts)
        self.index = _SampleIndex.of(self.sample)

    def _values_per_row(self) -> int:
        return len(self.popularity) + self.n_neighbours

    def _fill_own(
        self, histories: Histories, first: NDArray[np.int64], targets: NDArray[np.int64], rows: NDArray[np.float32]
    ) -> None:
        kernels.fill_groups(
            first,
            targets,
            histories.action_start,
            histories.actions,
            self.group_size,
            self.within,
            self.across,
            rows,
        )

    def _fill(
        self, histories: Histories, first: NDArray[np.int64], targets: NDArray[np.int64], rows: NDArray[np.float32]
    ) -> None:
        self._fill_own(histories, first, targets, rows)
        self._mix(rows, self._nearest(rows, self.n_neighbours))

    def _fill_each(
        self,
        variants: Sequence[dict[str, float]],
        histories: Histories,
        first: NDArray[np.int64],
        targets: NDArray[np.int64],
    ) -> Iterator[NDArray[np.float32]]:
        own = np.empty((len(targets), len(self.popularity)), np.float32)
        self._fill_own(histories, first, targets, own)
        members = [replace(self, **settings) for settings in variants]  # type: ignore[arg-type]
        nearest = self._nearest(own, max(member.n_neighbours for member in members))
        for member in members:
            rows = own.copy()
            member._mix(rows, nearest[:, : member.n_neighbours])
            yield rows

    def _nearest(self, rows: NDArray[np.float32], n_neighbours: int) -> NDArray[np.int32]:
        """The nearest vectors of the sample, nearest first."""
        index, sample = self.index, self.sample
        nearest = np.empty((len(rows), min(n_neighbours, len(sample))), np.int32)
        size = max(BLOCK_VALUES // max(len(sample), 1), 1)
        sparse = len(index.held) < SPARSE_SHARE * sample.size
        # A row's own length does not change the order of its distances and is left out.
        for start in range(0, len(rows) if nearest.size else 0, size):
            part = rows[start : start + size]
            if sparse:
                distances = np.tile(index.norms, (len(part), 1))
                kernels.subtract_products(part, index.action_start, index.holders, index.held, distances)
            else:
                distances = np.matmul(np.float32(-2.0) * part, sample.T, dtype=np.float32)
                distances += index.norms
            kernels.select_nearest(distances, nearest[start : start + size])
        return nearest

    def _mix(self, rows: NDArray[np.float32], nearest: NDArray[np.int32]) -> None:
        """Mix vectors with the mean of their neighbours."""
        index = self.index
        if nearest.size:
            kernels.add_neighbours(nearest, index.start, index.actions, index.amounts, self.own_share, rows)


@dataclass(frozen=True, eq=False)
class _SampleIndex:
    """What vectors hold, by vector and by action: the places that are not 0."""

    norms: NDArray[np.float32]
    start: NDArray[np.int64]
    actions: NDArray[np.int32]
    amounts: NDArray[np.float32]
    action_start: NDArray[np.int64]
    holders: NDArray[np.int32]
    held: NDArray[np.float32]

    @classmethod
    def of(cls, sample: NDArray[np.float32]) -> _SampleIndex:
        vectors, actions = np.nonzero(sample)
        amounts = sample[vectors, actions]
        order = np.argsort(actions, kind="stable")
        n_vectors, n_actions = sample.shape
        return cls(
            norms=np.einsum("ij,ij->i", sample, sample),
            start=np.searchsorted(vectors, np.arange(n_vectors + 1)),
            actions=actions.astype(np.int32),
            amounts=amounts,
            action_start=np.searchsorted(actions[order], np.arange(n_actions + 1)),
            holders=vectors[order].astype(np.int32),
            held=amounts[order],
        )


BASELINES: tuple[type[Baseline], ...] = (Popularity, LastVisit, PersonalFrequency, DecayedFrequency, Markov, TifuKnn)


def fit_baseline(kind: type[Baseline], dataset: Dataset, split: Split) -> tuple[Baseline, Calibration]:
    """Fit a baseline as it should be fitted: settings and calibration from validation, then all before the test.

    Args:
        kind: one of :data:`BASELINES`.
        dataset: the dataset.
        split: the split.

    Returns:
        The baseline, fitted on everything before ``split.test_start``, and its calibration.

    Example:
        >>> scorer, calibration = fit_baseline(Popularity, dataset, split_by_time(dataset))
        >>> scorer.name
        'popularity'
    """
    known = known_actions(dataset, split.valid_start)
    choices = []
    for learner, variants in kind().families():
        learner.fit(dataset, split, before=split.valid_start)
        losses = [0.0] * len(variants)
        if len(kind().families()) * len(variants) > 1:
            losses = _gains_lost(learner, variants, dataset, split, known)
        choices += [(loss, learner, settings) for loss, settings in zip(losses, variants, strict=True)]
    _, learner, settings = min(choices, key=lambda choice: choice[0])
    best = replace(learner, **settings)  # type: ignore[arg-type]
    if len(best.priors) > 1:
        likelihoods = _log_likelihoods(best, dataset, split, known)
        best = replace(best, prior=best.priors[int(np.argmax(likelihoods))])
    calibration = calibrate(best, dataset, split)
    return best.fit(dataset, split), calibration


def _gains_lost(
    learner: Baseline, variants: Sequence[dict[str, float]], dataset: Dataset, split: Split, known: NDArray[np.bool_]
) -> list[float]:
    """Minus the NDCG@10 of each variant, summed over the first validation targets."""
    losses = [0.0] * len(variants)
    for histories, first, targets in _tuning_blocks(learner, dataset, split):
        labels = Labels.of(histories, targets, known)
        for place, rows in enumerate(learner._fill_each(variants, histories, first, targets)):
            metrics = np.empty((len(targets), 4))
            rank_targets(learner._log_mixture(rows), labels.start, labels.actions, metrics)
            losses[place] -= float(metrics[:, 3].sum())
    return losses


def _log_likelihoods(scorer: Baseline, dataset: Dataset, split: Split, known: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Log-likelihood of the first validation targets under each prior; the evidence is the same for all."""
    totals = np.zeros(len(scorer.priors))
    for histories, first, targets in _tuning_blocks(scorer, dataset, split):
        labels = Labels.of(histories, targets, known)
        (evidence,) = scorer._fill_each([{}], histories, first, targets)
        for place, prior in enumerate(scorer.priors):
            scores = replace(scorer, prior=prior)._log_mixture(evidence.copy())
            totals[place] += float(mean_by_visit(scores, labels).sum())
    return totals


def _tuning_blocks(
    scorer: Baseline, dataset: Dataset, split: Split
) -> Iterator[tuple[Histories, NDArray[np.int64], NDArray[np.int64]]]:
    """The first validation targets in blocks, with the first visit of the customer of each."""
    n_seen = 0
    size = max(BLOCK_VALUES // scorer._values_per_row(), 1)
    for histories in dataset.batches():
        targets = target_visits(histories, split, "valid")[: TUNING_TARGETS - n_seen]
        first = first_visits(histories, targets)
        for start in range(0, len(targets), size):
            yield histories, first[start : start + size], targets[start : start + size]
        n_seen += len(targets)
        if n_seen >= TUNING_TARGETS:
            break
