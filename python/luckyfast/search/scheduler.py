"""How much data and time each configuration gets: asynchronous successive halving (ASHA; Li et al., 2020)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from luckyfast.search.journal import Trial
from luckyfast.search.proposer import Proposer

__all__ = ["ETA", "RUNGS", "Job", "Rung", "Scheduler"]

ETA = 3


@dataclass(frozen=True)
class Rung:
    """How much a configuration is trained.

    Args:
        customers: share of the customers.
        epochs: passes, relative to the configuration's own number.
    """

    customers: float
    epochs: float = 1.0


RUNGS = (Rung(1 / 9), Rung(1 / 3), Rung(1.0), Rung(1.0, 3.0))
"""Data is cut first, then passes: this keeps the ranking better than fewer passes over everything."""


@dataclass(frozen=True)
class Job:
    """A trial to be trained at a rung."""

    number: int
    rung: int
    settings: dict[str, Any]


class Scheduler:
    """Decides what is trained next, from what the journal holds alone.

    The default configuration comes first, at once with all customers: it is the one to beat. Then whoever has earned
    the next rung, the highest rung first; then a new configuration, at the lowest rung.

    Args:
        proposer: of new configurations.
        rungs: from the cheapest to the dearest.
        trials: as they stand, by number; looked at on every question.
        n_proposals: configurations to try at most; None for no bound.
        first: settings to try before any proposal, after the default.
    """

    def __init__(
        self,
        proposer: Proposer,
        rungs: tuple[Rung, ...],
        trials: Mapping[int, Trial],
        n_proposals: int | None = None,
        first: Sequence[dict[str, Any]] = (),
    ) -> None:
        self.proposer, self.rungs, self.trials = proposer, rungs, trials
        self.n_proposals, self.first = n_proposals, first

    def next_job(
        self,
        affordable: Callable[[Job], bool] = lambda job: True,
        allowed: Callable[[dict[str, Any]], bool] = lambda settings: True,
    ) -> Job | None:
        """Choose the next job.

        Args:
            affordable: whether there is time for a job.
            allowed: whether there is memory for settings.

        Returns:
            The job, or None where nothing can begin now.
        """
        if not self.trials:
            return Job(0, self.full_rung, dict(self.proposer.space.start))
        for rung in reversed(range(len(self.rungs) - 1)):
            for trial in self._earned(rung):
                job = Job(trial.number, rung + 1, trial.settings)
                if affordable(job) and allowed(trial.settings):
                    return job
        number = len(self.trials)
        if self.n_proposals is not None and number >= self.n_proposals:
            return None

        def fits(settings: dict[str, Any]) -> bool:
            return allowed(settings) and affordable(Job(number, 0, settings))

        seen = [trial.settings for trial in self.trials.values()]
        for settings in self.first:
            if settings not in seen and fits(settings):
                return Job(number, 0, settings)
        proposed = self.proposer.propose(number, self.trials.values(), fits)
        return None if proposed is None else Job(number, 0, proposed)

    @property
    def full_rung(self) -> int:
        """The cheapest rung with all customers: what a training without a search is."""
        return next(rung for rung in range(len(self.rungs)) if self.rungs[rung].customers == self.rungs[-1].customers)

    def _earned(self, rung: int) -> list[Trial]:
        """Trials among the best third of a rung that were not promoted yet, the best first."""
        here = [
            (record.loss, number)
            for number, trial in self.trials.items()
            if (record := trial.records.get(rung)) is not None and record.loss is not None
        ]
        best = [self.trials[number] for _, number in sorted(here)[: len(here) // ETA]]
        return [trial for trial in best if trial.reached <= rung]
