"""The predictors every model must beat: popularity, last visit, personal frequencies, Markov, TIFU-KNN."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from luckyfast.calibration import Calibration, calibrate, log_softmax, mean_by_visit
from luckyfast.dataset import Dataset, Histories
from luckyfast.kernels import baselines as kernels
from luckyfast.kernels.ranking import rank_targets
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
DAY_US = 86_400_000_000


@dataclass
class Baseline(ABC):
    """A scorer with few parameters: what it saw of a customer, mixed with how popular actions are.

    Every baseline scores the log of ``(evidence + prior * popularity) / (sum of evidence + prior)``. Validation chooses
    among ``variants()`` by NDCG@10, and then among ``priors`` by log-likelihood.

    Args:
        prior: how much evidence the popularity weighs.
    """

    name: ClassVar[str]
    priors: ClassVar[tuple[float, ...]] = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
    prior: float = 10.0
    popularity: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32), repr=False)

    def variants(self) -> list[Self]:
        """The settings among which validation chooses."""
        return [self]

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
            early = np.repeat(histories.visit_time < before, np.diff(histories.action_start))
            counts += np.bincount(histories.actions[early], minlength=dataset.n_actions)
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

    def variants(self) -> list[Self]:
        """The settings among which validation chooses."""
        return [replace(self, half_life=half_life) for half_life in (15.0, 45.0, 90.0, 180.0, 360.0)]

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

    def variants(self) -> list[Self]:
        """The settings among which validation chooses."""
        return [
            replace(self, group_size=size, across=across, n_neighbours=n_neighbours, own_share=own_share)
            for size, across in ((7, 0.7), (7, 0.9), (3, 0.9))
            for n_neighbours, own_share in ((100, 0.7), (300, 0.5), (300, 0.7), (300, 0.9))
        ]

    def _learn(self, dataset: Dataset, before: int) -> None:
        n_actions = dataset.n_actions
        n_wanted = min(dataset.n_customers, 8192, max(TABLE_VALUES // n_actions, 1))
        parts: list[NDArray[np.float32]] = []
        n_found = 0
        for histories in dataset.batches():
            early = np.concatenate((np.zeros(1, np.int64), np.cumsum(histories.visit_time < before, dtype=np.int64)))
            first = histories.visit_start[:-1].astype(np.int64)
            stop = first + early[histories.visit_start[1:]] - early[first]
            present = np.flatnonzero(stop > first)[: n_wanted - n_found]
            rows = np.empty((len(present), n_actions), np.float32)
            self._fill_own(histories, first[present], stop[present], rows)
            parts.append(rows)
            n_found += len(rows)
            if n_found == n_wanted:
                break
        self.sample = np.concatenate(parts)

    def _values_per_row(self) -> int:
        # Distances, their order (of twice the width) and the chosen neighbours.
        return len(self.popularity) + 4 * len(self.sample)

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
        n_neighbours = min(self.n_neighbours, len(self.sample))
        if n_neighbours == 0:
            return
        # The targets' own squared norms do not change who is nearest.
        distances = np.einsum("ij,ij->i", self.sample, self.sample) - 2.0 * (rows @ self.sample.T)
        nearest = np.argpartition(distances, n_neighbours - 1, axis=1)[:, :n_neighbours]
        chosen = np.zeros_like(distances)
        np.put_along_axis(chosen, nearest, np.float32((1.0 - self.own_share) / n_neighbours), axis=1)
        rows *= np.float32(self.own_share)
        rows += chosen @ self.sample


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

    def loss(variant: Baseline, column: int) -> float:
        fitted = variant.fit(dataset, split, before=split.valid_start)
        return _validation_losses(fitted, dataset, split, known)[column]

    best: Baseline = kind()
    variants = best.variants()
    if len(variants) > 1:
        best = min(variants, key=lambda variant: loss(variant, 0))
    if len(best.priors) > 1:
        best = min((replace(best, prior=prior) for prior in best.priors), key=lambda variant: loss(variant, 1))
    calibration = calibrate(best.fit(dataset, split, before=split.valid_start), dataset, split)
    return best.fit(dataset, split), calibration


def _validation_losses(
    scorer: Baseline, dataset: Dataset, split: Split, known: NDArray[np.bool_]
) -> tuple[float, float]:
    """Minus the mean NDCG@10 and minus the mean log-likelihood of the first validation targets."""
    gain = log_likelihood = 0.0
    n_seen = 0
    for histories in dataset.batches():
        targets = target_visits(histories, split, "valid")[: TUNING_TARGETS - n_seen]
        for block, scores in scorer.score(histories, targets):
            labels = Labels.of(histories, block, known)
            metrics = np.empty((len(block), 4))
            rank_targets(scores, labels.start, labels.actions, metrics)
            gain += float(metrics[:, 3].sum())
            log_likelihood += float(mean_by_visit(log_softmax(scores), labels).sum())
        n_seen += len(targets)
        if n_seen >= TUNING_TARGETS:
            break
    return -gain / max(n_seen, 1), -log_likelihood / max(n_seen, 1)
