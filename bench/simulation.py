"""Search methods against a simulated clock: what each would have found by when, in milliseconds instead of hours.

``python -m luckyfast.bench.simulation`` runs all of them on all landscapes, as many processes as there are cores.

The own system is the real scheduler and proposer; only the training is simulated. Peers get the same default
configuration, the same check of memory where they can take one, and the same number of workers. All keep what had the
least loss, however long it was trained. The own system knows beforehand what a training costs but for `COST_ERROR`, and
it alone may train on some of the customers, which on these landscapes is worth more than as many steps on all of them.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import json
import math
import multiprocessing
import sys
import warnings
import zlib
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

import numpy as np

from luckyfast.config import available_cores
from luckyfast.search.journal import Record, Trial
from luckyfast.search.proposer import DEFAULT_OPTIMIZER, GP_OPTIMIZER, Proposer
from luckyfast.search.scheduler import Job, Rung, Scheduler
from luckyfast.search.space import Dimension, Space

from .landscapes import DEFAULT, EASY, HARD, MAX_EPOCHS, SETTINGS, Landscape, decode
from .task import is_installed
from .tuners import ask_optuna, tell_optuna

__all__ = ["CHECKPOINTS", "SYSTEMS", "Found", "half_interval", "main", "render_table", "simulate"]

CHECKPOINTS = (0.05, 0.1, 0.25, 0.5, 0.75, 1.0)
RUNGS = (Rung(1 / 9), Rung(1 / 3), Rung(1.0), Rung(1.0, 3.0))
DIMENSIONS = tuple(Dimension(name, kind, values) for name, (kind, values) in SETTINGS.items())  # type: ignore[arg-type]
EPOCHS = 9
COST_ERROR = 0.2
"""Standard deviation of the log of what is computed over what is measured: .14 in 18 trials on Complete Journey."""
NOTHING = 2.0
"""Regret where nothing is found: twice as far off as the median configuration."""

Run = Generator[tuple[int, int, Mapping[str, Any]], float, None]
Method = Callable[[Landscape, int], "Worker"]


class Found(NamedTuple):
    """What a step has found."""

    loss: float
    settings: Mapping[str, Any]
    epochs: float
    customers: float = 1.0


class Worker:
    """A method as several workers see it: each asks for steps, and tells when one has ended."""

    def begin(self, now_s: float, left_s: float) -> tuple[float, Any] | None:
        """Begin a step.

        Returns:
            Its seconds and what :meth:`end` is to be told, or None where nothing can begin.
        """
        raise NotImplementedError

    def end(self, token: Any) -> Found:
        """End a step."""
        raise NotImplementedError


def simulate(system: str, landscape: Landscape, budget_s: float, *, seed: int = 0, n_workers: int = 1) -> list[float]:
    """Run one method.

    Args:
        system: a key of `SYSTEMS`.
        landscape: the objective.
        budget_s: simulated seconds.
        seed: of the method and the noise.
        n_workers: trials at a time.

    Returns:
        The regret of what the method would have kept at each of `CHECKPOINTS`, trained as it was.
    """
    worker = SYSTEMS[system](landscape, seed)
    running: list[tuple[float, int, Any]] = []
    counter = itertools.count()
    found: list[tuple[float, float]] = []
    least, now_s = math.inf, 0.0
    while True:
        while len(running) < n_workers:
            begun = worker.begin(now_s, budget_s - now_s)
            if begun is None:
                break
            heapq.heappush(running, (now_s + begun[0], next(counter), begun[1]))
        if not running:
            break
        now_s, _, token = heapq.heappop(running)
        if now_s > budget_s:
            break
        outcome = worker.end(token)
        if outcome.loss < least:
            least = outcome.loss
            found.append((now_s, landscape.regret(outcome.settings, outcome.epochs, outcome.customers)))
    return [
        next((regret for at_s, regret in reversed(found) if at_s <= share * budget_s), NOTHING) for share in CHECKPOINTS
    ]


class Own(Worker):
    """Scheduler and proposer as they are."""

    def __init__(self, landscape: Landscape, seed: int, optimizer: str = DEFAULT_OPTIMIZER) -> None:
        self.landscape, self.rng = landscape, np.random.default_rng(seed)
        self.trials: dict[int, Trial] = {}
        space = Space(DIMENSIONS, DEFAULT)
        proposer = Proposer(space, optimizer, seed, lambda settings: self._computed(settings, RUNGS[2]))
        self.scheduler = Scheduler(proposer, RUNGS, self.trials)

    def _computed(self, settings: Mapping[str, Any], rung: Rung) -> float:
        """What a training would be thought to cost: as wrong as where it trains."""
        number = zlib.crc32(repr(sorted(settings.items())).encode())
        error = np.random.default_rng(number).normal(0.0, COST_ERROR)
        return self._seconds(settings, rung) * math.exp(error)

    def begin(self, now_s: float, left_s: float) -> tuple[float, Any] | None:
        def fits_time(job: Job) -> bool:
            return 1.15 * self._computed(job.settings, RUNGS[job.rung]) <= left_s

        job = self.scheduler.next_job(fits_time, self.landscape.fits)
        if job is None:
            return None
        self.trials.setdefault(job.number, Trial(job.number, job.settings)).open.add(job.rung)
        return self._seconds(job.settings, RUNGS[job.rung]), job

    def end(self, token: Any) -> Found:
        job: Job = token
        rung, trial = RUNGS[job.rung], self.trials[job.number]
        loss = self.landscape.loss(job.settings, EPOCHS * rung.epochs, rung.customers, self.rng)
        trial.open.discard(job.rung)
        trial.records[job.rung] = Record("ok", loss, 0.0, {}, 0.0)
        return Found(loss, job.settings, EPOCHS * rung.epochs, rung.customers)

    def _seconds(self, settings: Mapping[str, Any], rung: Rung) -> float:
        return self.landscape.seconds(settings, EPOCHS * rung.epochs, rung.customers)


class Stepwise(Worker):
    """A method that trains a configuration on everything, some passes at a time, and may give it up between."""

    def __init__(self, landscape: Landscape, seed: int) -> None:
        self.landscape, self.rng = landscape, np.random.default_rng(seed)
        self.waiting: list[tuple[Run, float]] = []
        self.given_default = False

    def runs(self) -> Run:
        """One configuration: yields (passes so far, passes after, settings), is sent the loss, until it is given up."""
        raise NotImplementedError

    def draw(self) -> Mapping[str, Any]:
        """The default configuration, then random ones that fit."""
        if not self.given_default:
            self.given_default = True
            return DEFAULT
        while True:
            settings = decode(self.rng.uniform(size=len(SETTINGS)))
            if self.landscape.fits(settings):
                return settings

    def begin(self, now_s: float, left_s: float) -> tuple[float, Any] | None:
        run, loss = self.waiting.pop() if self.waiting else (self.runs(), None)
        for _ in range(1000):
            try:
                step = next(run) if loss is None else run.send(loss)
            except StopIteration:
                run, loss = self.runs(), None
                continue
            before, after, settings = step
            return self.landscape.seconds(settings, after - before), (run, step)
        return None

    def end(self, token: Any) -> Found:
        run, (_, after, settings) = token
        loss = self.landscape.loss(settings, after, rng=self.rng)
        self.waiting.append((run, loss))
        return Found(loss, settings, after)


class Random(Stepwise):
    """Random configurations, each trained to the end."""

    def runs(self) -> Run:
        yield 0, MAX_EPOCHS, self.draw()


class BestOfFirstPass(Stepwise):
    """Random configurations for one pass, the best of every nine to the end."""

    def __init__(self, landscape: Landscape, seed: int) -> None:
        super().__init__(landscape, seed)
        self.losses: list[tuple[float, int, Mapping[str, Any]]] = []

    def runs(self) -> Run:
        if len(self.losses) >= 9:
            settings = min(self.losses)[2]
            self.losses = []
            yield 1, MAX_EPOCHS, settings
        else:
            settings = self.draw()
            self.losses.append(((yield 0, 1, settings), len(self.losses), settings))


class Hyperband(Stepwise):
    """Hyperband as Keras Tuner has it: brackets one after the other, trained on from where a round stopped."""

    def __init__(self, landscape: Landscape, seed: int) -> None:
        super().__init__(landscape, seed)
        self.queue: list[tuple[int, int, Mapping[str, Any]]] = []
        self.round: list[tuple[float, int, Mapping[str, Any]]] = []
        self.plan: list[tuple[int, int, int]] = []
        self.n_running = self.bracket = 0

    def runs(self) -> Run:
        if not self.queue and self.n_running == 0:
            self._next_round()
        if self.queue:
            step = self.queue.pop(0)
            self.n_running += 1
            self.round.append(((yield step), len(self.round), step[2]))
            self.n_running -= 1

    def _next_round(self) -> None:
        if self.plan:
            n_kept, before, after = self.plan.pop(0)
            self.queue = [(before, after, settings) for _, _, settings in sorted(self.round)[:n_kept]]
        else:
            self.bracket = (self.bracket - 1) % 4
            epochs = [max(MAX_EPOCHS // 3 ** (self.bracket - k), 1) for k in range(self.bracket + 1)]
            sizes = [math.ceil(4 / (self.bracket + 1) * 3 ** (self.bracket - k)) for k in range(self.bracket + 1)]
            self.plan = [(sizes[k], epochs[k - 1], epochs[k]) for k in range(1, self.bracket + 1)]
            self.queue = [(0, epochs[0], self.draw()) for _ in range(sizes[0])]
        self.round = []


class Optuna(Stepwise):
    """Optuna with a sampler, a pruner, and so many passes of each trial; what does not fit is told to have failed."""

    def __init__(
        self,
        landscape: Landscape,
        seed: int,
        sampler: str = "TPESampler",
        pruner: str = "NopPruner",
        n_passes: int = MAX_EPOCHS,
    ) -> None:
        super().__init__(landscape, seed)
        import optuna

        warnings.simplefilter("ignore")
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.optuna = optuna
        pruners: dict[str, Callable[[], Any]] = {
            "NopPruner": optuna.pruners.NopPruner,
            "MedianPruner": optuna.pruners.MedianPruner,
            "HyperbandPruner": lambda: optuna.pruners.HyperbandPruner(1, n_passes, 3),
        }
        self.study = optuna.create_study(
            # the Hyperband pruner draws brackets from the name
            study_name="simulation",
            sampler=getattr(optuna.samplers, sampler)(seed=seed),
            pruner=pruners[pruner](),
        )
        self.study.enqueue_trial({one.name: tell_optuna(one, DEFAULT[one.name]) for one in DIMENSIONS})
        self.n_passes, self.passes = n_passes, 1 if pruner != "NopPruner" else n_passes

    def runs(self) -> Run:
        states = self.optuna.trial.TrialState
        while True:
            trial = self.study.ask()
            settings = {one.name: ask_optuna(trial, one) for one in DIMENSIONS}
            if self.landscape.fits(settings):
                break
            self.study.tell(trial, state=states.FAIL)
        loss = math.nan
        for before in range(0, self.n_passes, self.passes):
            loss = yield before, before + self.passes, settings
            trial.report(loss, before + self.passes)
            if before + self.passes < self.n_passes and trial.should_prune():
                self.study.tell(trial, state=states.PRUNED)
                return
        self.study.tell(trial, loss)


SYSTEMS: dict[str, Method] = {
    "luckyfast": Own,
    "luckyfast (bayes)": lambda landscape, seed: Own(landscape, seed, GP_OPTIMIZER),
    "Optuna TPE + Hyperband": lambda landscape, seed: Optuna(landscape, seed, pruner="HyperbandPruner"),
    "Optuna TPE + median": lambda landscape, seed: Optuna(landscape, seed, pruner="MedianPruner"),
    "Optuna TPE + Hyperband, 9 passes": lambda landscape, seed: Optuna(
        landscape, seed, pruner="HyperbandPruner", n_passes=EPOCHS
    ),
    "Optuna TPE + median, 9 passes": lambda landscape, seed: Optuna(
        landscape, seed, pruner="MedianPruner", n_passes=EPOCHS
    ),
    "Optuna GP": lambda landscape, seed: Optuna(landscape, seed, sampler="GPSampler"),
    "Optuna GP, 9 passes": lambda landscape, seed: Optuna(landscape, seed, sampler="GPSampler", n_passes=EPOCHS),
    "Hyperband": Hyperband,
    "best of first pass": BestOfFirstPass,
    "random": Random,
}


def half_interval(values: Sequence[float]) -> float:
    """Half of the 95 % interval of a mean, by the first two terms of Student's quantile around the normal one."""
    z, freedom = 1.96, len(values) - 1
    return (z + (z**3 + z) / (4 * freedom)) * stdev(values) / math.sqrt(len(values))


def render_table(curves: Mapping[str, Mapping[int, Sequence[float]]]) -> str:
    """Render curves by system and landscape as a Markdown table.

    Args:
        curves: for each system and each number of a landscape what :func:`simulate` gave.

    Returns:
        The table: mean regret at each of `CHECKPOINTS`, half of its 95 % interval at the end, and on how many
        landscapes the first system ended better.
    """
    first = next(iter(curves.values()))
    lines = [
        f"| system | {' | '.join(f'{share:.0%}' for share in CHECKPOINTS)} | ± | {next(iter(curves))} ends better |",
        f"| --- |{' ---: |' * (len(CHECKPOINTS) + 2)}",
    ]
    for system, own in curves.items():
        means = [fmean(curve[place] for curve in own.values()) for place in range(len(CHECKPOINTS))]
        half = half_interval([curve[-1] for curve in own.values()])
        n_better = sum(first[seed][-1] < curve[-1] for seed, curve in own.items())
        better = "" if own is first else f"{n_better} of {len(own)}"
        lines.append(f"| {system} | {' | '.join(f'{mean:.3f}' for mean in means)} | {half:.3f} | {better} |")
    return "\n".join(lines)


def _curve(system: str, seed: int, budget_s: float, power: float) -> list[float]:
    return simulate(system, Landscape(seed, customers_power=power), budget_s, seed=seed)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line: the table to stdout, every curve to a JSON file."""
    parser = argparse.ArgumentParser(prog="python -m luckyfast.bench.simulation", description=__doc__)
    parser.add_argument("--hours", type=float, default=8.0, help="simulated, of every run (8)")
    parser.add_argument("--systems", nargs="+", choices=[*SYSTEMS], default=[*SYSTEMS])
    parser.add_argument("--landscapes", nargs="+", type=int, default=[*EASY, *HARD], help="their numbers (24)")
    parser.add_argument(
        "--customers-power",
        type=float,
        default=0.5,
        help="a pass over a share of the customers makes the progress of that share to this power (.5)",
    )
    parser.add_argument("--out", type=Path, default=Path(".bench/search"), help="folder for the curves")
    options = parser.parse_args(arguments)
    systems = [name for name in options.systems if "Optuna" not in name or is_installed(("optuna",))]
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / f"{options.hours:g}h-{options.customers_power:g}.json"
    curves: dict[str, dict[int, list[float]]] = {}
    with ProcessPoolExecutor(available_cores(), multiprocessing.get_context("spawn")) as pool:
        for system in systems:
            some = [(system, seed, 3600 * options.hours, options.customers_power) for seed in options.landscapes]
            found = pool.map(_curve, *zip(*some, strict=True))
            curves[system] = dict(zip(options.landscapes, found, strict=True))
            file.write_text(json.dumps(curves), encoding="utf-8")
            print(f"{system}: {fmean(curve[-1] for curve in curves[system].values()):.3f}", file=sys.stderr)
    print(render_table(curves))
    return 0


if __name__ == "__main__":
    sys.exit(main())
