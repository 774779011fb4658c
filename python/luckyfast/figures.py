"""Figures with bootstrap intervals, added up visit by visit in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

__all__ = ["METRICS", "SECTIONS", "Figure", "Figures", "ReliabilityBin", "Tally", "figure_of"]

METRICS = ("hit@1", "hit@3", "recall@10", "ndcg@10", "nll", "ece", "brier")
SECTIONS = ("all", "repeat", "explore", "short")
_RANKED = ("hit@1", "hit@3", "recall@10", "ndcg@10")
_SUMMED = (*_RANKED, "nll", "brier")
_N_GROUPS = 2**14
_N_CHANCES = 2**20
_N_BINS = 15
_N_RESAMPLES = 1000
_RESAMPLES_AT_ONCE = 50


@dataclass(frozen=True)
class Figure:
    """A measured value with its 95 % bootstrap interval over customers.

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
    """Visits whose most probable action had about the same chance, and how often it was in the visit."""

    mean_predicted: float
    observed: float
    n: int


@dataclass
class Tally:
    """Sums per group of customers, from which figures and their intervals follow.

    A group is one customer, or a random set of them where there are more than 16,384 customers.

    Args:
        seed: of the bootstrap.
    """

    seed: int = 0
    _sums: NDArray[np.float64] = field(default_factory=lambda: np.zeros((_N_GROUPS, len(SECTIONS), len(_SUMMED))))
    _n: NDArray[np.float64] = field(default_factory=lambda: np.zeros((_N_GROUPS, len(SECTIONS))))
    _chances: list[tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int32]]] = field(default_factory=list)
    _n_chances: int = 0

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
        self, customers: NDArray[np.int64], chances: NDArray[np.float32], outcomes: NDArray[np.float64]
    ) -> None:
        """Add the chance given to each visit's most probable action and whether it was in the visit, float [n]."""
        room = _N_CHANCES - self._n_chances
        if room > 0:
            groups = (customers[:room] % _N_GROUPS).astype(np.int32)
            self._chances.append((chances[:room], outcomes[:room].astype(np.float32), groups))
            self._n_chances += len(groups)

    def figures(self, section: str) -> Figures:
        """Figures of a section; ``all`` and ``short`` have NLL and Brier score too, and ``all`` has ECE."""
        index = SECTIONS.index(section)
        n_visits = self._n[:, index].sum()
        with np.errstate(invalid="ignore"):
            values = dict(zip(_SUMMED, self._sums[:, index].sum(axis=0) / n_visits, strict=True))
            if section == "all":
                gaps, sizes = self._gaps
                values["ece"] = np.abs(gaps.sum(axis=0)).sum() / sizes.sum()
        resampled = self.resampled(section)
        names = [name for name in METRICS if name in values and (section in ("all", "short") or name in _RANKED)]
        return Figures(int(n_visits), {name: figure_of(float(values[name]), resampled[name]) for name in names})

    def resampled(self, section: str = "all") -> dict[str, NDArray[np.float64]]:
        """Each figure in each of the bootstrap samples, float64 [1000]."""
        index = SECTIONS.index(section)
        sums, n, gaps, n_chances = self._resampled_sums
        with np.errstate(invalid="ignore"):
            samples = {name: sums[:, index, column] / n[:, index] for column, name in enumerate(_SUMMED)}
            if section == "all":
                samples["ece"] = np.abs(gaps).sum(axis=1) / n_chances
        return samples

    def reliability(self) -> list[ReliabilityBin]:
        """Bins of equal mass over the chance of the most probable action."""
        if self._n_chances == 0:
            return []
        chances, outcomes, _, bins = self._binned
        sizes = np.bincount(bins)
        predicted = np.bincount(bins, chances) / sizes
        observed = np.bincount(bins, outcomes) / sizes
        return [ReliabilityBin(float(p), float(o), int(n)) for p, o, n in zip(predicted, observed, sizes, strict=True)]

    @cached_property
    def _binned(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int32], NDArray[np.int64]]:
        """Chances, outcomes and groups of all visits, and their bins."""
        chances, outcomes, groups = (np.concatenate(column) for column in zip(*self._chances, strict=True))
        n_bins = min(_N_BINS, len(chances))
        bins = np.empty(len(chances), np.int64)
        bins[np.argsort(chances, kind="stable")] = np.arange(len(chances)) * n_bins // len(chances)
        return chances, outcomes, groups, bins

    @cached_property
    def _gaps(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Sum of chance minus outcome per group and bin, and the number of visits per group."""
        gaps = np.zeros((_N_GROUPS, _N_BINS))
        if self._n_chances == 0:
            return gaps, np.zeros(_N_GROUPS)
        chances, outcomes, groups, bins = self._binned
        np.add.at(gaps, (groups, bins), chances.astype(np.float64) - outcomes)
        return gaps, np.bincount(groups, minlength=_N_GROUPS).astype(np.float64)

    @cached_property
    def _resampled_sums(self) -> tuple[NDArray[np.float64], ...]:
        """Sums, numbers, gaps and numbers of chances in each bootstrap sample of the groups."""
        used = np.flatnonzero(self._n.sum(axis=1))
        parts = [array[used] for array in (self._sums, self._n, *self._gaps)]
        widths = [int(np.prod(part.shape[1:])) for part in parts]
        columns = np.concatenate(
            [part.reshape(len(used), width) for part, width in zip(parts, widths, strict=True)], axis=1
        )
        rng = np.random.default_rng(self.seed)
        totals = np.empty((_N_RESAMPLES, columns.shape[1]))
        for start in range(0, _N_RESAMPLES, _RESAMPLES_AT_ONCE):
            weights = np.zeros((_RESAMPLES_AT_ONCE, len(used)))
            for row in weights if len(used) else ():
                row[:] = np.bincount(rng.integers(len(used), size=len(used)), minlength=len(used))
            totals[start : start + _RESAMPLES_AT_ONCE] = weights @ columns
        pieces = np.split(totals, np.cumsum(widths)[:-1], axis=1)
        return tuple(piece.reshape(_N_RESAMPLES, *part.shape[1:]) for piece, part in zip(pieces, parts, strict=True))


def figure_of(value: float, resampled: NDArray[np.float64]) -> Figure:
    """Put a value beside the middle 95 % of its bootstrap samples, widened where need be to hold the value."""
    defined = resampled[~np.isnan(resampled)]
    if np.isnan(value) or len(defined) == 0:
        return Figure(value, value, value)
    low, high = np.quantile(defined, (0.025, 0.975))
    return Figure(value, min(float(low), value), max(float(high), value))
