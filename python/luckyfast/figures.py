"""Figures with bootstrap intervals, added up visit by visit in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from luckyfast.kernels.ranking import bin_pairs

__all__ = [
    "CHANCE_EDGES",
    "METRICS",
    "PROBABILISTIC",
    "SECTIONS",
    "Figure",
    "Figures",
    "ReliabilityBin",
    "Tally",
    "figure_of",
]

_RANKED = ("hit@1", "hit@3", "recall@10", "ndcg@10")
_SUMMED = (*_RANKED, "nll", "brier")
_ERRORS = ("ece", "ece_debiased", "ece_pairs")
PROBABILISTIC = ("nll", "brier", *_ERRORS)
"""Figures of probabilities, before and after calibration; the others are of ranks."""
METRICS = ("hit@1", "hit@3", "recall@10", "ndcg@10", "nll", "ece", "brier", "ece_debiased", "ece_pairs")
SECTIONS = ("all", "before", "repeat", "explore", "short")
CHANCE_EDGES = np.array(
    [1e-4, 3e-4, 1e-3, 2e-3, 5e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9], np.float32
)
"""Where the bins of all pairs of visit and action meet: the same for every system, finer where most pairs are."""
_CALIBRATIONS = ("all", "before")
_N_GROUPS = 2**14
_N_CHANCES = 2**20
_N_BINS = 15
_N_RESAMPLES = 1000
_RESAMPLES_AT_ONCE = 50


@dataclass(frozen=True)
class Figure:
    """A measured value with its 95 % bootstrap interval over customers; one customer alone has none, its ends are NaN.

    Example:
        >>> str(Figure(0.374, 0.368, 0.381))
        '0.3740 [0.3680, 0.3810]'
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"


@dataclass(frozen=True)
class Figures:
    """Figures over some target visits.

    Args:
        n_visits: visits measured.
        figures: by the names in :data:`METRICS`; NaN where there were no visits.
    """

    n_visits: int
    figures: dict[str, Figure]


@dataclass(frozen=True)
class ReliabilityBin:
    """Visits whose first-ranked action had about the same chance, and how often it was in the visit."""

    mean_predicted: float
    observed: float
    n: int


class _BestChances:
    """The chance given to each visit's first-ranked action, of the first 2^20 visits."""

    def __init__(self) -> None:
        self._parts: list[tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.float32]]] = []
        self._n = 0

    def add(self, groups: NDArray[np.int32], chances: NDArray[np.float32], outcomes: NDArray[np.float64]) -> None:
        room = _N_CHANCES - self._n
        if room > 0:
            self._parts.append((groups[:room], chances[:room], outcomes[:room].astype(np.float32)))
            self._n += len(groups[:room])

    @property
    def n_bins(self) -> int:
        return max(min(_N_BINS, self._n), 1)

    @cached_property
    def _binned(self) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
        """Groups, chances and outcomes of all visits, and their bins."""
        groups, chances, outcomes = (np.concatenate(column) for column in zip(*self._parts, strict=True))
        bins = np.empty(self._n, np.int64)
        bins[np.argsort(chances, kind="stable")] = np.arange(self._n) * self.n_bins // self._n
        return groups, chances, outcomes, bins

    @cached_property
    def gaps(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Sum of chance minus outcome per group and bin, and the number of visits per group."""
        gaps = np.zeros((_N_GROUPS, _N_BINS))
        if self._n == 0:
            return gaps, np.zeros(_N_GROUPS)
        groups, chances, outcomes, bins = self._binned
        np.add.at(gaps, (groups, bins), chances.astype(np.float64) - outcomes)
        return gaps, np.bincount(groups, minlength=_N_GROUPS).astype(np.float64)

    def reliability(self) -> list[ReliabilityBin]:
        if self._n == 0:
            return []
        _, chances, outcomes, bins = self._binned
        sizes = np.bincount(bins)
        predicted, observed = np.bincount(bins, chances) / sizes, np.bincount(bins, outcomes) / sizes
        return [ReliabilityBin(float(p), float(o), int(n)) for p, o, n in zip(predicted, observed, sizes, strict=True)]


class _PairGaps:
    """Sums over all pairs of visit and action: chance minus outcome by group and bin; n, chance, outcome by bin."""

    def __init__(self) -> None:
        self.gaps = np.zeros((_N_GROUPS, len(CHANCE_EDGES) + 1))
        self.totals = np.zeros((len(CHANCE_EDGES) + 1, 3))


def _variances(gaps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sampling variance of the sum of each bin, from how it differs between the groups, float64 [n_bins]."""
    n_used = max(int((gaps != 0.0).any(axis=1).sum()), 1)
    variances: NDArray[np.float64] = (gaps**2).sum(axis=0) - gaps.sum(axis=0) ** 2 / n_used
    return variances


@dataclass
class Tally:
    """Sums per group of customers, from which figures and their intervals follow.

    A group is one customer, or a random set of them where there are more than 16,384 customers. The section ``before``
    has the visits of ``all`` with probabilities as they were before calibration.

    The calibration error of the action ranked first comes in two forms. ``ece`` is the usual one: the mean distance of
    predicted and observed in 15 bins of equal mass. It cannot reach 0 even for a perfect system, since what is observed
    in a bin is a sample; :meth:`noise_floor` says what it would be then. ``ece_debiased`` is the root of the mean
    squared distance less its sampling variance (Kumar et al., 2019, with the variance over customers), which has no
    such floor. ``ece_pairs`` is the first form over all pairs of visit and action, in the bins of
    :data:`CHANCE_EDGES`.

    Args:
        seed: of the bootstrap.
    """

    seed: int = 0
    _sums: NDArray[np.float64] = field(default_factory=lambda: np.zeros((_N_GROUPS, len(SECTIONS), len(_SUMMED))))
    _n: NDArray[np.float64] = field(default_factory=lambda: np.zeros((_N_GROUPS, len(SECTIONS))))
    _best: dict[str, _BestChances] = field(
        default_factory=lambda: {section: _BestChances() for section in _CALIBRATIONS}
    )
    _pairs: dict[str, _PairGaps] = field(default_factory=lambda: {section: _PairGaps() for section in _CALIBRATIONS})

    def add(self, section: str, customers: NDArray[np.int64], values: NDArray[np.float64]) -> None:
        """Add visits to a section.

        Args:
            section: one of :data:`SECTIONS`.
            customers: int64 [n], the customers' numbers in the dataset.
            values: float64 [n, 4] or [n, 6]: hit@1, hit@3, recall@10, NDCG@10, and NLL, Brier; NaN rows are left out.
        """
        present = ~np.isnan(values[:, 0])
        groups = customers[present] % _N_GROUPS
        index = SECTIONS.index(section)
        self._n[:, index] += np.bincount(groups, minlength=_N_GROUPS)
        for column in range(values.shape[1]):
            self._sums[:, index, column] += np.bincount(groups, values[present, column], minlength=_N_GROUPS)

    def add_chances(
        self, section: str, customers: NDArray[np.int64], chances: NDArray[np.float32], outcomes: NDArray[np.float64]
    ) -> None:
        """Add the chance given to each visit's first-ranked action and whether it was in the visit, float [n]."""
        self._best[section].add((customers % _N_GROUPS).astype(np.int32), chances, outcomes)

    def add_pairs(
        self,
        section: str,
        customers: NDArray[np.int64],
        chances: NDArray[np.float32],
        start: NDArray[np.int64],
        actions: NDArray[np.int32],
    ) -> None:
        """Add the chances of all actions, float32 [n, n_actions], and the labels (see ``bin_pairs``)."""
        pairs = self._pairs[section]
        bin_pairs(chances, start, actions, customers % _N_GROUPS, CHANCE_EDGES, pairs.gaps, pairs.totals)

    def figures(self, section: str) -> Figures:
        """Figures of a section: of ranks everywhere, NLL and Brier score in ``all``, ``before`` and ``short``, and
        calibration errors in ``all`` and ``before``.
        """
        index = SECTIONS.index(section)
        n_visits = self._n[:, index].sum()
        with np.errstate(invalid="ignore"):
            values = dict(zip(_SUMMED, self._sums[:, index].sum(axis=0) / n_visits, strict=True))
        if section in _CALIBRATIONS:
            gaps, sizes = self._best[section].gaps
            totals = (part.sum(axis=0)[None] for part in (gaps, self._pairs[section].gaps, sizes))
            values |= {name: error[0] for name, error in self._errors(section, *totals).items()}
        resampled = self.resampled(section)
        without = () if section in (*_CALIBRATIONS, "short") else PROBABILISTIC
        names = [name for name in METRICS if name in values and name not in without]
        return Figures(int(n_visits), {name: figure_of(float(values[name]), resampled[name]) for name in names})

    def resampled(self, section: str = "all") -> dict[str, NDArray[np.float64]]:
        """Each figure in each of the bootstrap samples, float64 [1000]."""
        index = SECTIONS.index(section)
        sums, n = self._resample(self._sums[:, index]), self._resample(self._n[:, index, None])
        with np.errstate(invalid="ignore"):
            samples = dict(zip(_SUMMED, (sums / n).T, strict=True))
        if section in _CALIBRATIONS:
            gaps, sizes = self._best[section].gaps
            totals = (self._resample(part) for part in (gaps, self._pairs[section].gaps, sizes[:, None]))
            samples |= self._errors(section, *totals, n_noises=2)
        return samples

    def noise_floor(self) -> float:
        """The ``ece`` to expect of perfect chances on these visits: the mean distance that sampling alone makes."""
        gaps, sizes = self._best["all"].gaps
        with np.errstate(invalid="ignore"):
            return float(np.sqrt(2.0 / np.pi * _variances(gaps)).sum() / sizes.sum())

    def reliability(self, section: str = "all") -> list[ReliabilityBin]:
        """Bins of equal mass over the chance of the action ranked first, in ``all`` or ``before``."""
        return self._best[section].reliability()

    def pair_reliability(self, section: str = "all") -> list[ReliabilityBin]:
        """Bins of :data:`CHANCE_EDGES` over all pairs of visit and action, in ``all`` or ``before``."""
        totals = self._pairs[section].totals
        return [ReliabilityBin(float(p / n), float(o / n), int(n)) for n, p, o in totals if n > 0]

    def _errors(
        self,
        section: str,
        gaps: NDArray[np.float64],
        pair_gaps: NDArray[np.float64],
        sizes: NDArray[np.float64],
        *,
        n_noises: int = 1,
    ) -> dict[str, NDArray[np.float64]]:
        """Calibration errors of m samples, float64 [m] each, from the sums of each: gaps [m, n_bins], sizes [m, 1].

        A bootstrap sample deviates from the sample as that does from the truth, so its squares hold the variance twice.
        """
        best = self._best[section]
        n_pairs = self._pairs[section].totals[:, 0].sum()
        sizes = sizes.reshape(-1, 1)
        with np.errstate(invalid="ignore", divide="ignore"):
            distances = gaps / sizes
            # Bins have equal mass, so each weighs 1 / n_bins.
            squares = best.n_bins * (distances**2 - n_noises * _variances(best.gaps[0]) / sizes**2)
            pair_sizes = n_pairs * sizes[:, 0] / best.gaps[1].sum()
            return {
                "ece": np.abs(distances).sum(axis=1),
                "ece_debiased": np.sqrt(np.maximum(squares.sum(axis=1), 0.0)),
                "ece_pairs": np.abs(pair_gaps).sum(axis=1) / pair_sizes,
            }

    def _resample(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        """Add up the groups of each bootstrap sample, float64 [1000, k] from [n_groups, k]; NaN where there is one."""
        used = sums[self._used]
        if len(used) == 1:  # drawn again it is always the same, which says nothing of others
            return np.full((_N_RESAMPLES, sums.shape[1]), np.nan)
        parts = [
            self._weights[start : start + _RESAMPLES_AT_ONCE] @ used
            for start in range(0, _N_RESAMPLES, _RESAMPLES_AT_ONCE)
        ]
        return np.concatenate(parts)

    @cached_property
    def _used(self) -> NDArray[np.int64]:
        """The groups that have visits."""
        return np.flatnonzero(self._n.sum(axis=1))

    @cached_property
    def _weights(self) -> NDArray[np.float32]:
        """How often each used group is in each bootstrap sample, float32 [1000, n_used]."""
        rng = np.random.default_rng(self.seed)
        n = len(self._used)
        weights = np.zeros((_N_RESAMPLES, n), np.float32)
        for row in weights if n else ():
            row[:] = np.bincount(rng.integers(n, size=n), minlength=n)
        return weights


def figure_of(value: float, resampled: NDArray[np.float64]) -> Figure:
    """Put a value beside the middle 95 % of its bootstrap samples, widened where need be to hold the value."""
    defined = resampled[~np.isnan(resampled)]
    if np.isnan(value) or len(defined) == 0:
        return Figure(value, np.nan, np.nan)
    low, high = np.quantile(defined, (0.025, 0.975))
    return Figure(value, min(float(low), value), max(float(high), value))
