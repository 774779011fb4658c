"""The search: fills workers with trials while there is time, keeps the best, and writes down all that happens."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from luckyfast.checkpoint import read_share
from luckyfast.config import format_duration
from luckyfast.errors import ModelError, UserError
from luckyfast.search import jobs
from luckyfast.search.clock import START_FACTOR, Clock, CostModel
from luckyfast.search.journal import Journal, Record, Trial
from luckyfast.search.memory import MemoryModel
from luckyfast.search.process import JobInterruptedError, JobKilledError, JobProcesses, OutOfMemoryError
from luckyfast.search.scheduler import Job, Scheduler

__all__ = ["Best", "Running", "Status", "Study", "last_line"]

GRACE_S = 2.0
"""Seconds for an interrupted trial to hand over what it has."""
LEAST_SHARE = 0.2
"""Of the time left, what the first training gets at least."""
CLOCK_S = 30.0
"""How often the time is written down, so that a resumed search knows what was used of its budget."""
N_TRIES = 2
"""How often a trial whose process was killed by others is begun."""


@dataclass(frozen=True)
class Best:
    """The best model so far.

    Args:
        number, rung, settings: of its trial.
        loss: on validation.
        figures: ``valid_hit1``, ``valid_hit3`` and what else its record holds.
        folder: its weights.
    """

    number: int
    rung: int
    settings: dict[str, Any]
    loss: float
    figures: dict[str, Any]
    folder: Path


@dataclass
class Running:
    """A trial that runs."""

    job: Job
    began_s: float
    estimate_s: float
    share: float = 0.0
    note: str = ""
    cut_short: bool = False


@dataclass(frozen=True)
class Status:
    """How a search stands; callbacks receive one whenever something happened, and every second.

    Args:
        elapsed_s, budget_s: seconds used, and those of the whole command (inf without a budget).
        running: what the workers do.
        n_workers: trials at a time.
        used_bytes, memory_bytes: resident size of all processes, and its limit (None where nobody watches it).
        rungs: for each rung, the share of customers, the passes, and how many trials have finished it.
        n_trials: configurations begun.
        best: the best so far; None before the first.
        ends_in_s: seconds until the search gives way to the refit and the measuring.
        start: the default configuration.
        habit_hit1: hit@1 of decayed personal frequency on validation, once it is known.
        single: whether one configuration is trained and nothing is searched.
        ended: whether the search is over.
        message: what is worth a line in a log; empty where nothing is.
    """

    elapsed_s: float
    budget_s: float
    running: Sequence[Running]
    n_workers: int
    used_bytes: int
    memory_bytes: int | None
    rungs: Sequence[tuple[float, float, int]]
    n_trials: int
    best: Best | None
    ends_in_s: float
    start: dict[str, Any]
    habit_hit1: float | None
    single: bool = False
    ended: bool = False
    message: str = ""


@dataclass
class Study:
    """One search.

    Args:
        dataset_path, split: what is trained on.
        scheduler: decides what is next.
        journal: where all is written.
        executor: runs the trials.
        clock: the budget.
        costs, memory: what trials take.
        folder: for weights.
        n_workers: trials at a time.
        threads: torch threads of a trial.
        device: of torch, on which trials train.
        worker_bytes: memory that a trial may take; None for no bound.
        in_order: take results in the order in which trials began: with a fixed seed the search repeats itself.
        every_epoch: whether trials validate after each epoch.
        patience: end after so many configurations in a row without a better model; None for never.
        callbacks: receive a :class:`Status`.
        habit_hit1: tells hit@1 of decayed personal frequency on validation, once it is known.
        n_busy: tells how many workers do something else at the moment.
    """

    dataset_path: str
    split: list[int]
    scheduler: Scheduler
    journal: Journal
    executor: Executor
    clock: Clock
    costs: CostModel
    memory: MemoryModel
    folder: Path
    n_workers: int = 1
    threads: int = 1
    device: str = "cpu"
    worker_bytes: int | None = None
    in_order: bool = False
    every_epoch: bool = False
    patience: int | None = None
    callbacks: Sequence[Callable[[Status], None]] = ()
    habit_hit1: Callable[[], float | None] = lambda: None
    n_busy: Callable[[], int] = lambda: 0
    best: Best | None = None
    stopped: str = ""
    _running: dict[Future[dict[str, Any]], Running] = field(default_factory=dict)
    _again: list[Job] = field(default_factory=list)
    _tries: dict[tuple[int, int], int] = field(default_factory=dict)
    _nothing_left: bool = False

    def __post_init__(self) -> None:
        self._recall()

    def run(self) -> Best | None:
        """Search until the time is up, the proposals are used up, or patience ends.

        The first Ctrl-C ends the search with the best so far: trials that run are interrupted, and heard if there is
        nothing better. A second one goes through.

        Returns:
            The best, or None where no trial succeeded; :attr:`stopped` says why the search ended.
        """
        try:
            self._loop()
        except KeyboardInterrupt as error:
            if type(error) is not KeyboardInterrupt:
                raise  # the machine wants the process to end: there is no time for more
            self.stopped = "stopped by Ctrl-C"
        self._end_running()
        self.journal.note("stop", self.clock.now_s, reason=self.stopped)
        self._tell(self.stopped, ended=True)
        return self.best

    def _loop(self) -> None:
        if self._has_no_patience():
            return
        self._fill()
        if self.scheduler.n_proposals != 1:
            self.scheduler.proposer.prepare()
        while True:
            self._fill()
            if not self._running:
                self.stopped = self.stopped or "all is tried that there is time and memory for"
                return
            futures = list(self._running)[:1] if self.in_order else list(self._running)
            done, _ = wait(futures, timeout=min(1.0, max(self._search_left_s(), 0.0)), return_when=FIRST_COMPLETED)
            for future in futures:
                if future in done:
                    self._take(future)
            if self._search_left_s() <= 0:
                self.stopped = "the time is up"
                return
            if self._has_no_patience():
                return
            if self.clock.now_s - self.journal.spent_s >= CLOCK_S:
                self.journal.note("clock", self.clock.now_s)
            self._tell()

    def _has_no_patience(self) -> bool:
        """Whether the search is to end because nothing better has come for long; if so, :attr:`stopped` says it."""
        if self.patience is None or self._n_since_best() < self.patience:
            return False
        self.stopped = f"nothing better in {self.patience} configurations"
        if math.isfinite(self.clock.left_s):
            self.stopped += f", {format_duration(max(self._search_left_s(), 0.0))} before the time was up"
        return True

    def _n_since_best(self) -> int:
        """How many configurations had their first result after the best had its own."""
        if self.best is None:
            return 0
        at_s = self.journal.trials[self.best.number].records[self.best.rung].at_s
        firsts = (
            min(record.at_s for record in trial.records.values())
            for trial in self.journal.trials.values()
            if trial.records
        )
        return sum(first > at_s for first in firsts)

    def _search_left_s(self) -> float:
        """Seconds until the end of the command needs the machine."""
        left_s = self.clock.left_s
        if self.best is not None:
            record = self.journal.trials[self.best.number].records[self.best.rung]
            return left_s - self.costs.finish_s(self.best.settings, best=record)
        # A first model there must be: what is short then comes off what the end was thought to take.
        start = dict(self.scheduler.proposer.space.start)
        return max(left_s - self.costs.finish_s(start, left_s), LEAST_SHARE * left_s)

    def _affordable(self, job: Job) -> bool:
        return START_FACTOR * self._estimate(job) <= self._search_left_s()

    def _estimate(self, job: Job) -> float:
        """Seconds that a job will take, less what its checkpoint has behind it."""
        share = read_share(jobs.checkpoint_of(self._folder(job))) if job.rung in self._open(job) else 0.0
        return self.costs.estimate(job) - share * (self.costs.estimate(job) - self.costs.validation_s)

    def _open(self, job: Job) -> set[int]:
        trial = self.journal.trials.get(job.number)
        return trial.open if trial is not None else set()

    def _folder(self, job: Job) -> Path:
        return self.folder / f"trial-{job.number}-{job.rung}"

    def _allowed(self, settings: dict[str, Any]) -> bool:
        return self.worker_bytes is None or self.memory.estimate(settings) <= self.worker_bytes

    def _fill(self) -> None:
        # Where there was nothing to begin there is nothing until a trial ends: time and memory do not grow.
        while not self._nothing_left and len(self._running) < max(self.n_workers - self.n_busy(), 1):
            if self._again:
                job: Job | None = self._again.pop(0)
            else:
                job = self.scheduler.next_job(self._affordable, self._allowed)
                self._nothing_left = job is None
            # Where there is no model yet, one trial runs whatever its time: its schedule is fitted in. What was begun
            # where there was more memory or time stays open in the journal.
            alone = self.best is None and not self._running
            if job is not None and (alone or (self._affordable(job) and self._allowed(job.settings))):
                self._begin(job)

    def _begin(self, job: Job) -> None:
        rung = self.scheduler.rungs[job.rung]
        began_s, left_s = self.clock.now_s, self._search_left_s()
        running = Running(job, began_s, self._estimate(job))
        # What is slower than thought, or the one training of a small budget, is fitted into the time by its schedule.
        bound_s = None if math.isinf(left_s) else max(left_s - 1.3 * self.costs.validation_s - 0.3, 0.5)
        running.cut_short = left_s < running.estimate_s
        self.journal.begin(job.number, job.rung, job.settings, began_s)
        arguments = (
            jobs.TRIAL,
            self.dataset_path,
            self.split,
            job.settings,
            rung.customers,
            rung.epochs,
            self.every_epoch,
            bound_s,
            self.threads,
            self.device,
            str(self._folder(job)),
        )
        if isinstance(self.executor, JobProcesses):

            def hear(event: tuple[Any, ...]) -> None:
                if event[0] == "advance":
                    running.share += event[1]
                elif event[0] == "note":
                    running.note = event[1]

            future = self.executor.start(jobs.call, *arguments, memory_bytes=self.worker_bytes, on_event=hear)
        else:
            try:
                future = self.executor.submit(jobs.call, *arguments)
            except BrokenExecutor as error:
                raise _broken(error) from error
        self._running[future] = running
        if self.in_order:  # one that is begun again has the place that it had
            places = {place: index for index, place in enumerate(self.journal.open)}
            order = sorted(self._running.items(), key=lambda one: places[one[1].job.number, one[1].job.rung])
            self._running = dict(order)
        self._tell()

    def _take(self, future: Future[dict[str, Any]]) -> None:
        """Write down what came of a trial."""
        running, self._nothing_left = self._running.pop(future), False
        job, now_s = running.job, self.clock.now_s
        seconds = now_s - running.began_s
        folder = self._folder(job)
        try:
            outcome = future.result()
        except (OutOfMemoryError, MemoryError) as error:
            if self.scheduler.n_proposals == 1:
                raise OutOfMemoryError(last_line(error)) from error  # it stays open: more memory may be given
            over_bytes = self.worker_bytes or 0
            self._fail(job, Record("memory", None, seconds, {"why": last_line(error), "over_bytes": over_bytes}, now_s))
            self.memory.learn(job.settings, over_bytes, over=True)
        except JobInterruptedError:
            pass  # it stays open in the journal
        except ModelError as error:
            if self.scheduler.n_proposals == 1:
                raise
            # Training diverges with these settings; with others it may not.
            self._fail(job, Record("failed", None, seconds, {"why": error.message}, now_s))
        except UserError:
            raise
        except BrokenExecutor as error:
            raise _broken(error) from error
        except Exception as error:  # a job that died, or whatever an executor of somebody else's raises
            key = (job.number, job.rung)
            self._tries[key] = self._tries.get(key, 0) + 1
            if self._tries[key] < N_TRIES:
                self._again.append(job)
            elif self.scheduler.n_proposals == 1 and isinstance(error, JobKilledError):
                raise  # it stays open, with its checkpoint
            else:
                self._fail(job, Record("failed", None, seconds, {"why": last_line(error)}, now_s))
        else:
            loss, seconds = outcome.pop("valid_loss"), outcome.pop("seconds")
            if loss is None and outcome["interrupted"]:
                shutil.rmtree(folder, ignore_errors=True)
                return  # it stays open in the journal, with its checkpoint
            figures = outcome | {"cut_short": running.cut_short}
            record = Record("ok" if loss is not None else "failed", loss, seconds, figures, now_s)
            self.memory.learn(job.settings, figures["peak_bytes"])
            self.journal.end(job.number, job.rung, record)
            jobs.checkpoint_of(folder).unlink(missing_ok=True)
            if loss is not None and (self.best is None or loss < self.best.loss):
                self._keep(Best(job.number, job.rung, job.settings, loss, figures, folder))
            else:
                shutil.rmtree(folder, ignore_errors=True)

    def _fail(self, job: Job, record: Record) -> None:
        self.journal.end(job.number, job.rung, record)
        jobs.checkpoint_of(self._folder(job)).unlink(missing_ok=True)
        self._tell(f"trial {job.number} at rung {job.rung}: {record.status}, {record.figures['why']}")

    def _keep(self, best: Best) -> None:
        """Make a model the best one: its weights stay, those of the one before go."""
        before, self.best = self.best, best
        if before is not None:
            shutil.rmtree(before.folder, ignore_errors=True)
        self._tell(f"trial {best.number}: validation loss {best.loss:.4f}, the best so far")

    def _recall(self) -> None:
        """Find out what an earlier run left: its best model, and trials it had begun."""
        trials = self.journal.trials
        # In the order in which they were begun: so the results come in the order in which they would have come.
        self._again = [Job(number, rung, trials[number].settings) for number, rung in self.journal.open]
        for trial in trials.values():
            for rung, record in trial.records.items():
                if "peak_bytes" in record.figures:
                    self.memory.learn(trial.settings, record.figures["peak_bytes"])
                elif record.status == "memory":
                    self.memory.learn(trial.settings, record.figures.get("over_bytes", 0), over=True)
                folder = self._folder(Job(trial.number, rung, trial.settings))
                if record.loss is not None and folder.is_dir() and (self.best is None or record.loss < self.best.loss):
                    self.best = Best(trial.number, rung, trial.settings, record.loss, record.figures, folder)
        kept = {jobs.checkpoint_of(self._folder(job)) for job in self._again}
        for path in self.folder.glob("trial-*"):
            if path.is_dir() and (self.best is None or path != self.best.folder):
                shutil.rmtree(path, ignore_errors=True)
            elif path.is_file() and path not in kept:
                path.unlink()

    def _end_running(self) -> None:
        """End what still runs; of that a trial is heard only where there is nothing else."""
        for future in list(self._running):
            if future.done() and not future.cancelled():
                with suppress(UserError):  # the search is over, whatever came of this one
                    self._take(future)
        if isinstance(self.executor, JobProcesses):
            for future in self._running:
                if self.best is None:
                    self.executor.interrupt(future)
                else:
                    self.executor.kill(future)
        deadline = time.monotonic() + (GRACE_S if self.best is not None else max(20.0, GRACE_S))
        for future in list(self._running):
            if not future.cancel():
                wait([future], timeout=max(deadline - time.monotonic(), 0.0))
            if future.done() and not future.cancelled() and self.best is None and future.exception() is None:
                self._take(future)
        if isinstance(self.executor, JobProcesses):
            for future in self._running:
                self.executor.kill(future)
        self._running.clear()

    def _tell(self, message: str = "", *, ended: bool = False) -> None:
        if not self.callbacks:
            return
        processes = self.executor if isinstance(self.executor, JobProcesses) else None
        trials = self.journal.trials.values()
        status = Status(
            elapsed_s=self.clock.now_s,
            budget_s=self.clock.budget_s,
            running=list(self._running.values()),
            n_workers=self.n_workers,
            used_bytes=processes.used_bytes if processes else 0,
            memory_bytes=processes.memory_bytes if processes else None,
            rungs=[
                (rung.customers, rung.epochs, sum(_finished(trial, index) for trial in trials))
                for index, rung in enumerate(self.scheduler.rungs)
            ],
            n_trials=len(trials),
            best=self.best,
            ends_in_s=self._search_left_s(),
            start=dict(self.scheduler.proposer.space.start),
            habit_hit1=self.habit_hit1(),
            single=self.scheduler.n_proposals == 1,
            ended=ended,
            message=message,
        )
        for callback in self.callbacks:
            callback(status)


def _finished(trial: Trial, rung: int) -> bool:
    return rung in trial.records and trial.records[rung].loss is not None


def _broken(error: BrokenExecutor) -> ModelError:
    hint = "what has ended is kept: go on with another executor and resume"
    return ModelError(f"the executor of the trials broke down: {last_line(error)}", hint=hint)


def last_line(error: BaseException) -> str:
    """The last line of what an error says: of a traceback, the error itself."""
    lines = str(error).strip().splitlines()
    return lines[-1] if lines else type(error).__name__
