"""How good a configuration each search method has found by when, on simulated landscapes and a simulated clock.

Regret is 0 for the best configuration there is and 1 for the median one; the figures are means over the landscapes, at
a quarter and at the end of the budget, and half of the 95 % interval of the latter. luckyfast is its real scheduler and
proposer; only the training is simulated.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from ..landscapes import EASY, HARD, Landscape
from ..simulation import CHECKPOINTS, SYSTEMS, half_interval, simulate
from ..task import Inputs, Settings, Task

__all__ = ["TASK"]

_BUDGET_H = (8.0, 2.0)


class SearchTask:
    """See the module's text; the whole form takes 24 landscapes and eight hours, the quick one two and two."""

    name = "search"
    title = "search: regret on simulated landscapes"
    systems: Mapping[str, tuple[str, ...]] = {
        name: ("nevergrad",) if name.startswith("luckyfast") else ("optuna",) if "Optuna" in name else ()
        for name in SYSTEMS
    }
    default_runs = (1, 1)

    def prepare(self, cache: Path, settings: Settings) -> Inputs:
        """There is nothing to write: a landscape follows from its number."""
        del cache
        seeds = [EASY[0], HARD[0]] if settings.quick else [*EASY, *HARD]
        return Inputs(
            values={
                "seeds": seeds,
                "budget_s": 3600 * _BUDGET_H[settings.quick],
                "n_workers": 1,
                "n_threads": settings.n_threads,
            }
        )

    def run(self, system: str, values: Mapping[str, Any], out: Path) -> Mapping[str, float]:
        """Search every landscape."""
        curves = [
            simulate(system, Landscape(seed), values["budget_s"], seed=seed, n_workers=values["n_workers"])
            for seed in values["seeds"]
        ]
        (out / "regret.json").write_text(json.dumps(dict(zip(values["seeds"], curves, strict=True))), encoding="utf-8")
        quarter, last = CHECKPOINTS.index(0.25), [curve[-1] for curve in curves]
        return {
            "regret@25%": fmean(curve[quarter] for curve in curves),
            "regret": fmean(last),
            "± regret": half_interval(last),
            "worst": max(last),
        }

    def check(self, system: str, values: Mapping[str, Any], out: Path) -> str | None:
        """See that all landscapes were searched, and that nothing is better than the best there is."""
        del system
        regret = json.loads((out / "regret.json").read_text(encoding="utf-8"))
        if len(regret) != len(values["seeds"]):
            raise ValueError(f"{len(regret)} landscapes were searched, not {len(values['seeds'])}")
        least = min(min(curve) for curve in regret.values())
        if least < -0.05:
            raise ValueError(f"a regret of {least:.3f} lies below the best there is")
        return None


TASK: Task = SearchTask()
