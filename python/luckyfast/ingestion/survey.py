"""What is left of each action when rules that need whole histories have been applied, before ids are given."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from luckyfast.ingestion.giants import Giant
from luckyfast.ingestion.merge import Histories, keep_regulars

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Survey", "survey_histories"]


@dataclass
class Survey:
    """Counts of a first pass over the merged histories.

    Attributes:
        n_rows: rows that are left when duplicates are gone.
        events: int64 per action id of the run, rows of customers with enough visits.
        time_range: smallest and largest time of their visits.
    """

    n_rows: int = 0
    events: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    time_range: tuple[int, int] = (np.iinfo(np.int64).max, np.iinfo(np.int64).min)


def survey_histories(parts: Iterable[Histories | Giant], n_actions: int, min_visits: int) -> Survey:
    """Count the rows of all histories and the events of those with at least `min_visits` visits.

    Args:
        parts: histories whose actions are the ids of the run plus 1.
        n_actions: how many ids there are.
        min_visits: how many visits a customer needs.
    """
    found = Survey(events=np.zeros(n_actions, np.int64))
    for part in parts:
        if isinstance(part, Giant):
            for visits in part.parts:
                found.n_rows += int(visits.counts.sum(dtype=np.int64))
                if part.n_visits >= min_visits:
                    _count(found, visits.actions, visits.counts, visits.time)
        else:
            found.n_rows += int(part.counts.sum(dtype=np.int64))
            kept = keep_regulars(part, min_visits)
            _count(found, kept.actions, kept.counts, kept.visit_time)
    return found


def _count(found: Survey, actions: NDArray[np.int32], counts: NDArray[np.int32], times: NDArray[np.int64]) -> None:
    found.events += np.bincount(actions - 1, weights=counts, minlength=len(found.events)).astype(np.int64)
    if len(times):
        low, high = int(times.min()), int(times.max())
        found.time_range = min(found.time_range[0], low), max(found.time_range[1], high)
