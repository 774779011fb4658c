"""The time budget: how long trials take, what the end of the command needs, and what may still begin."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from statistics import median
from typing import Any

from luckyfast.models import refit_share
from luckyfast.search.journal import Record, Trial
from luckyfast.search.scheduler import Job, Rung

__all__ = ["FIXED_S", "MEASURING", "READING_S", "Clock", "CostModel", "training_cost", "visit_cost"]

MEASURING = 2.2
"""Measuring a target against calibrating on one: it ranks, and resamples customers."""
READING_S = 0.5e-6
"""Seconds per visit of the passes over everything that the end of the command makes."""
START_FACTOR = 1.15
"""A job begins only if so many times its estimate fits."""
FIXED_S = 4.0
"""Seconds at the end for opening, exporting and writing."""
SCORING = 4.0
"""Calibrating, measuring the test and its intervals, relative to one validation; where nothing better is known."""


def visit_cost(settings: Mapping[str, Any]) -> float:
    """Work per visit relative to other settings: matrix products, and what habits and batches cost at any size."""
    H, E = settings["hidden"], settings["embedding"]
    is_mlp = settings["arch"] == "mlp"
    n_in = {"mlp": E * settings["window"], "lstm": 0}.get(settings["arch"], E)
    n_above = (settings["layers"] - 1) * H * (1 if is_mlp else 2)
    return float(1.0 + H * (H + n_in + n_above) / 40_000 + 200 / settings["batch_visits"])


def training_cost(settings: Mapping[str, Any]) -> float:
    """Work of a training relative to other settings; not measured, so that the same search proposes the same."""
    return visit_cost(settings) * float(settings["epochs"])


class CostModel:
    """Seconds of trials: a pass costs as others did by their work, and a trial's own passes say it better.

    Args:
        rungs: of the search.
        trials: as they stand, by number; looked at on every question.
        probed: ``train_s`` of one pass over everything and ``valid_seconds``, as probed with ``start``; ``scoring``,
            what calibrating and measuring cost relative to one validation, and ``writing_s``, seconds of the rest.
        start: settings that were probed.
    """

    def __init__(
        self,
        rungs: tuple[Rung, ...],
        trials: Mapping[int, Trial],
        probed: Mapping[str, float],
        start: Mapping[str, Any],
    ) -> None:
        self.rungs, self.trials, self.probed = rungs, trials, probed
        self._probed_ratio = probed["train_s"] / visit_cost(start)

    def estimate(self, job: Job) -> float:
        """Seconds that a job will take, its validation included."""
        own = self.trials.get(job.number)
        ratios = self._ratios(own) if own is not None else []
        if not ratios:
            ratios = [ratio for trial in list(self.trials.values())[-30:] for ratio in self._ratios(trial)]
        ratio = median(ratios) if ratios else self._probed_ratio
        return self.validation_s + ratio * self._passes(job.settings, job.rung) * visit_cost(job.settings)

    def finish_s(self, settings: Mapping[str, Any], left_s: float = math.inf, best: Record | None = None) -> float:
        """Seconds that the end of the command takes: calibration, measuring, writing, and the refit.

        Args:
            settings: of the model.
            left_s: seconds left for training and the end together, where nothing is trained yet: a refit gets its share
                of passes at most, since it can be cut short as the training can.
            best: what is to be refitted, where there is something: if its training was cut short, so will its refit be.
        """
        ratios = [ratio for trial in list(self.trials.values())[-30:] for ratio in self._ratios(trial)]
        pass_s = (median(ratios) if ratios else self._probed_ratio) * visit_cost(settings)
        refit_s: float = 1.2 * pass_s * settings["refit_epochs"]
        share = refit_share(settings["epochs"], settings["refit_epochs"])
        if best is None:
            refit_s = min(refit_s, share * max(left_s - self.least_s, 0.0))
        elif best.figures.get("cut_short"):
            refit_s = min(refit_s, best.seconds * share / (1 - share))
        return self.least_s + refit_s

    @property
    def least_s(self) -> float:
        """Seconds that the end of the command takes without a refit."""
        return self.probed.get("writing_s", FIXED_S) + self.scoring * self.validation_s

    @property
    def scoring(self) -> float:
        """What calibrating and measuring cost, relative to one validation."""
        return self.probed.get("scoring", SCORING)

    @property
    def validation_s(self) -> float:
        """Seconds of one validation."""
        times = [
            record.figures["valid_seconds"] / max(record.figures.get("n_validations", 1), 1)
            for trial in list(self.trials.values())[-30:]
            for record in trial.records.values()
            if record.status == "ok"
        ]
        return median(times) if times else self.probed["valid_seconds"]

    def _passes(self, settings: Mapping[str, Any], rung: int) -> float:
        return self.rungs[rung].customers * max(round(self.rungs[rung].epochs * float(settings["epochs"])), 1)

    def _ratios(self, trial: Trial) -> list[float]:
        """Seconds of a pass by its work, at the highest rungs of a trial that was not cut short."""
        return [
            max(record.seconds - record.figures["valid_seconds"], 1e-3)
            / (self._passes(trial.settings, rung) * visit_cost(trial.settings))
            for rung, record in sorted(trial.records.items(), reverse=True)
            if record.status == "ok" and not record.figures.get("cut_short")
        ][:2]


class Clock:
    """What is left of a budget.

    Args:
        budget_s: seconds of the whole command; None for no bound.
        started: when it began, by ``time.monotonic``.
        spent_s: seconds that earlier runs of the same search used.
    """

    def __init__(self, budget_s: float | None, started: float, spent_s: float = 0.0) -> None:
        self.budget_s = math.inf if budget_s is None else budget_s
        self.started, self.spent_s = started, spent_s

    @property
    def now_s(self) -> float:
        """Seconds since the search began, earlier runs included."""
        return self.spent_s + time.monotonic() - self.started

    @property
    def left_s(self) -> float:
        """Seconds until the command must have ended."""
        return self.budget_s - self.now_s
