"""Hyperparameter tuners of others, with trials in the same processes and of the same trainings as the own search."""

from __future__ import annotations

import os
import queue
import re
import signal
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from luckyfast.search import jobs
from luckyfast.search.process import JobProcesses
from luckyfast.search.space import Dimension, Space

__all__ = ["PEERS", "Found", "KerasTunerPeer", "OptunaPeer", "Peer", "ask_optuna", "tell_optuna"]

_LOSS = re.compile(r"loss (\d+\.\d+)")

Found = list[tuple[float, float]]
"""Seconds and validation loss of everything that was validated."""


@dataclass
class Peer:
    """One search by a tuner of others. Trials train on all customers and are heard after each pass.

    Args:
        processes: run the trials.
        dataset, split: what is trained on.
        space: what is searched; its default configuration comes first.
        budget_s: wall clock.
        scratch: folder for weights.
        kind: of the tuner.
        seed: of the tuner.
    """

    processes: JobProcesses
    dataset: Path
    space: Space
    split: list[int]
    budget_s: float
    scratch: Path
    kind: str
    seed: int
    found: Found = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def search(self, n_workers: int) -> Found:
        """Keep the workers busy until the time is up."""
        raise NotImplementedError

    @property
    def n_passes(self) -> int:
        """Passes of a whole training, as many as the default configuration has."""
        return int(self.space.start["epochs"])

    def begin(self, number: int, settings: dict[str, Any], on_pass: Callable[[float], None]) -> Future[Any]:
        """Begin a training; `on_pass` is told the validation loss of each pass, in a thread of its own."""

        def hear(event: tuple[Any, ...]) -> None:
            match = _LOSS.match(event[1]) if event[0] == "note" else None
            if match is not None:
                at_s, loss = time.monotonic() - self.began, float(match[1])
                with self.lock:
                    if at_s <= self.budget_s:
                        self.found.append((at_s, loss))
                    on_pass(loss)

        folder = str(self.scratch / f"trial-{number}")
        limits = (1.0, 1.0, True, None, 1, "cpu", folder)
        arguments = (str(self.dataset), self.split, dict(self.space.start) | settings, *limits)
        return self.processes.start(jobs.call, jobs.TRIAL, *arguments, on_event=hear)

    def start_clock(self) -> None:
        """The time counts from here."""
        self.began = time.monotonic()

    @property
    def left_s(self) -> float:
        """Seconds that are left."""
        return self.budget_s - (time.monotonic() - self.began)


class OptunaPeer(Peer):
    """Optuna with a pruner, or its random search."""

    def search(self, n_workers: int) -> Found:
        """See `Peer`."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        sampler = optuna.samplers.RandomSampler if self.kind == "random" else optuna.samplers.TPESampler
        pruner = {
            "Optuna TPE + Hyperband": optuna.pruners.HyperbandPruner(1, self.n_passes, 3),
            "Optuna TPE + median": optuna.pruners.MedianPruner(),
        }.get(self.kind, optuna.pruners.NopPruner())
        study = optuna.create_study(study_name="contest", sampler=sampler(seed=self.seed), pruner=pruner)
        study.enqueue_trial({one.name: tell_optuna(one, self.space.start[one.name]) for one in self.space.dimensions})
        self.start_clock()
        running = dict[Future[Any], Any]()
        while (left_s := self.left_s) > 0:
            while len(running) < n_workers:
                trial = study.ask()
                running[self._begin_trial(trial)] = trial
            done, _ = wait(running, timeout=left_s, return_when=FIRST_COMPLETED)
            for future in done:
                trial, error = running.pop(future), future.exception()
                if error is None and (loss := future.result()["valid_loss"]) is not None:
                    study.tell(trial, loss)
                else:
                    pruned = bool(trial.user_attrs.get("pruned"))
                    state = optuna.trial.TrialState.PRUNED if pruned else optuna.trial.TrialState.FAIL
                    study.tell(trial, state=state)
        for future in running:
            self.processes.kill(future)
        return sorted(self.found)

    def _begin_trial(self, trial: Any) -> Future[Any]:
        settings = {one.name: ask_optuna(trial, one) for one in self.space.dimensions}
        n_heard = 0

        def hear(loss: float) -> None:
            nonlocal n_heard
            n_heard += 1
            trial.report(loss, n_heard)
            if trial.should_prune():
                trial.set_user_attr("pruned", True)
                self.processes.kill(future)

        future = self.begin(trial.number, settings, hear)
        return future


def tell_optuna(dimension: Dimension, value: Any) -> Any:
    """A value as Optuna has it: ordered values are whole numbers there, so that it knows their order."""
    return dimension.values.index(value) if dimension.kind == "ordered" else value


def ask_optuna(trial: Any, dimension: Dimension) -> Any:
    """A value of a dimension that a trial of Optuna's proposes."""
    name, values = dimension.name, dimension.values
    if dimension.kind == "ordered":
        return values[trial.suggest_int(name, 0, len(values) - 1)]
    if dimension.kind == "choice":
        return trial.suggest_categorical(name, values)
    suggest = trial.suggest_int if isinstance(values[0], int) else trial.suggest_float
    return suggest(name, *values, log=dimension.kind == "log")


@dataclass(eq=False)
class _Training:
    """A training that runs, or waits where a round of Hyperband has left it."""

    limit: int
    worker: int
    trial: Any = None
    future: Future[Any] | None = None
    losses: list[float] = field(default_factory=list)


class KerasTunerPeer(Peer):
    """Keras Tuner's oracles. What Hyperband trains on goes on from where it was: its process is stopped meanwhile.

    The default configuration, of which these oracles cannot be told, is trained first.
    """

    def search(self, n_workers: int) -> Found:
        """See `Peer`."""
        self.oracle = self._make_oracle()
        self._turns: queue.SimpleQueue[_Training] = queue.SimpleQueue()
        known: dict[str, _Training] = {}
        self.start_clock()
        running = {0: self._start(_Training(self.n_passes, worker=0), 0, dict(self.space.start))}
        number = 1
        while (left_s := self.left_s) > 0:
            for worker in set(range(n_workers)) - set(running):
                trial = self.oracle.create_trial(f"worker-{worker}")
                if trial.status != "RUNNING":
                    continue
                values = dict(trial.hyperparameters.values)
                limit = int(values.pop("tuner/epochs", self.n_passes))
                earlier = known.get(values.pop("tuner/trial_id", ""))
                if earlier is None:
                    settings = {one.name: values[one.name] for one in self.space.dimensions}
                    training = self._start(_Training(limit, worker, trial), number, settings)
                    number += 1
                else:
                    training = self._go_on(earlier, worker, limit, trial)
                known[trial.trial_id] = running[worker] = training
            try:
                training = self._turns.get(timeout=left_s)
            except queue.Empty:
                break
            if running.get(training.worker) is training:
                del running[training.worker]
                self._tell(training)
        for training in [*running.values(), *known.values()]:
            if training.future is not None:
                self.processes.kill(training.future)
        return sorted(self.found)

    def _make_oracle(self) -> Any:
        os.environ.setdefault("KERAS_BACKEND", "torch")
        warnings.simplefilter("ignore")
        import keras_tuner

        values = keras_tuner.HyperParameters()
        for one in self.space.dimensions:
            if one.kind in ("ordered", "choice"):
                values.Choice(one.name, list(one.values), default=self.space.start[one.name])
            else:
                add = values.Int if isinstance(one.values[0], int) else values.Float
                sampling = "log" if one.kind == "log" else "linear"
                add(one.name, *one.values, sampling=sampling, default=self.space.start[one.name])
        objective = keras_tuner.Objective("val_loss", "min")
        common = {"objective": objective, "hyperparameters": values, "allow_new_entries": False, "seed": self.seed}
        if "Hyperband" in self.kind:
            oracle = keras_tuner.oracles.HyperbandOracle(
                max_epochs=self.n_passes, factor=3, hyperband_iterations=100, **common
            )
        else:
            oracle = keras_tuner.oracles.BayesianOptimizationOracle(max_trials=10_000, **common)
        oracle.verbose = 0
        oracle._set_project_dir(str(self.scratch), "oracle")
        return oracle

    def _start(self, training: _Training, number: int, settings: dict[str, Any]) -> _Training:
        def hear(loss: float) -> None:
            training.losses.append(loss)
            if len(training.losses) == training.limit < self.n_passes:
                assert training.future is not None
                self.processes.signal(training.future, signal.SIGSTOP)
                self._turns.put(training)

        training.future = self.begin(number, settings, hear)
        training.future.add_done_callback(lambda _: self._turns.put(training))
        return training

    def _go_on(self, earlier: _Training, worker: int, limit: int, trial: Any) -> _Training:
        """Let a training go on to a further pass; one that has ended has its result already."""
        with self.lock:
            earlier.limit, earlier.worker, earlier.trial = limit, worker, trial
        assert earlier.future is not None
        if earlier.future.done():
            self._turns.put(earlier)
        else:
            self.processes.signal(earlier.future, signal.SIGCONT)
        return earlier

    def _tell(self, training: _Training) -> None:
        trial = training.trial
        if trial is None:
            return
        if training.losses:
            self.oracle.update_trial(trial.trial_id, {"val_loss": min(training.losses)}, step=len(training.losses))
        trial.status = "COMPLETED" if training.losses else "FAILED"
        self.oracle.end_trial(trial)


PEERS: dict[str, type[Peer]] = {
    "Optuna TPE + Hyperband": OptunaPeer,
    "Optuna TPE + median": OptunaPeer,
    "Keras Tuner Hyperband": KerasTunerPeer,
    "Keras Tuner Bayesian": KerasTunerPeer,
    "random": OptunaPeer,
}
