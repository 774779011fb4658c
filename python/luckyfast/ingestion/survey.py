"""What is left of each action when rules that need whole histories have been applied, before ids are given."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

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


def survey_histories(parts: Iterable[Histories], n_actions: int, min_visits: int) -> Survey:
    """Count the rows of all histories and the events of those with at least `min_visits` visits.

    Args:
        parts: histories whose actions are the ids of the run plus 1.
        n_actions: how many ids there are.
        min_visits: how many visits a customer needs.
    """
    found = Survey(events=np.zeros(n_actions, np.int64))
    for part in parts:
        found.n_rows += int(part.counts.sum(dtype=np.int64))
        kept = keep_regulars(part, min_visits)
        found.events += np.bincount(kept.actions - 1, weights=kept.counts, minlength=n_actions).astype(np.int64)
        if len(kept.visit_time):
            low, high = int(kept.visit_time.min()), int(kept.visit_time.max())
            found.time_range = min(found.time_range[0], low), max(found.time_range[1], high)
    return found
