"""One run of fit: probe what things cost, train or search while there is time, and finish within the budget."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from luckyfast.calibration import n_calibrated
from luckyfast.config import format_duration, format_size
from luckyfast.errors import BudgetError, ModelError
from luckyfast.files import completed, sync_file
from luckyfast.fitting.folders import BASELINES_FILE, JOURNAL, MODEL
from luckyfast.progress import Progress
from luckyfast.search import jobs
from luckyfast.search.clock import FIXED_S, MEASURING, READING_S, Clock, CostModel, training_cost
from luckyfast.search.journal import Journal, read_events
from luckyfast.search.memory import MemoryModel
from luckyfast.search.process import JobDiedError, JobInterruptedError, JobKilledError, JobProcesses, OutOfMemoryError
from luckyfast.search.proposer import Proposer
from luckyfast.search.results import read_results, write_results
from luckyfast.search.scheduler import RUNGS, Job, Rung, Scheduler
from luckyfast.search.space import Space
from luckyfast.search.study import CLOCK_S, Best, Status, Study, last_line
from luckyfast.windows import Split

if TYPE_CHECKING:
    from luckyfast.dataset import Dataset

__all__ = ["FitRun", "SearchKind"]

SearchKind = Literal["none", "hyperband", "bayes"]

WARM_BYTES = 1_300_000_000
"""With less memory no process is kept from which trials could be forked."""
SIDE_BY_SIDE_BYTES = 1_800_000_000
"""With less, the baselines are measured while nothing else runs."""
NEVERGRAD_BYTES = 150_000_000
MARGIN = 0.96
WORTHWHILE = 2.0
"""A search needs time for so many whole trainings, all workers together."""
N_WARM = 8
"""How many of an earlier search's best are tried first."""
BASELINES_SHARE = 0.25
"""Of the time left, what the baselines may take before the first training; they get a second chance at the end."""
SLACK_S = 0.5
"""Seconds for this process to end in."""


@dataclass
class FitRun:
    """What one call of fit is about; see :func:`luckyfast.fit`."""

    data: Dataset
    space: Space
    plan: dict[str, Any]
    study_folder: Path
    started: float
    budget_s: float | None
    memory_bytes: int
    n_cores: int
    device: str
    patience: int | None
    warm_start: Path | None
    executor: Executor | None
    callbacks: Sequence[Callable[[Status], None]]
    listener: Progress
    _baselines: Future[dict[str, Any]] | None = field(default=None, init=False)

    def run(self) -> Path:
        """Do it all.

        Returns:
            The folder of the model, inside the study's.
        """
        work = self.study_folder / MODEL
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        header = self.plan | {"budget_s": self.budget_s, "rungs": [[rung.customers, rung.epochs] for rung in RUNGS]}
        journal = Journal(self.study_folder / JOURNAL, header)
        budget_s = self.budget_s if self.budget_s is not None else journal.header["budget_s"]
        self.clock = Clock(budget_s, self.started, journal.spent_s)
        preload = jobs.FINISH.partition(":")[0] if self.memory_bytes >= WARM_BYTES else None
        with JobProcesses(memory_bytes=self.memory_bytes, preload=preload) as processes:
            try:
                self._work(processes, journal, work)
            finally:
                processes.shutdown(cancel_futures=True)  # first: where the disk is full the journal cannot be closed
                journal.close()
        return work

    def _work(self, processes: JobProcesses, journal: Journal, work: Path) -> None:
        self.processes = processes
        start = dict(self.space.start)
        path = str(self.data.path)
        proposer = Proposer(self.space, self.plan["optimizer"], self.plan["seed"], training_cost)
        self.listener.start("Probing", None, "")
        probing = self.processes.start(jobs.call, jobs.PROBE, path, start, 1, self.device)
        side_by_side = self.n_cores > 1 and self.memory_bytes >= SIDE_BY_SIDE_BYTES
        if side_by_side:
            self._measure_baselines()
        probed = self._probed(probing, (path, start, 1, self.device))
        self.listener.finish()
        if (least := probed["split"][2]) < Split.min_history:
            self.listener.note(f"histories are short: visits with {least} earlier ones are predicted and measured too")
        n_calibration = n_calibrated(probed["n_actions"], probed["n_valid"])
        probed["scoring"] = (n_calibration + MEASURING * probed["n_test"]) / max(probed["n_validated"], 1)
        probed["writing_s"] = FIXED_S + READING_S * self.data.n_visits
        self._measure_baselines()
        if self._baselines is not None and (not side_by_side or self.plan["trials"] is not None):
            # With so little memory they come one after the other; and what is to repeat itself has the workers alone.
            self._await(self._baselines, journal, BASELINES_SHARE * self.clock.left_s)
            if not self._baselines.done():
                self.processes.kill(self._baselines)  # they are tried again when all else is done
                wait([self._baselines])
        n_categories = sum(len(feature.categories) for feature in self.data.features)
        memory = MemoryModel(probed["n_actions"], probed["rest_bytes"], n_categories)
        memory.learn(start, probed["peak_bytes"])
        costs = CostModel(RUNGS, journal.trials, probed, start)
        n_workers, worker_bytes = self._workers(memory, start, probed["device"])
        searching = self._is_worthwhile(costs, n_workers)
        if not searching:
            n_workers, worker_bytes = 1, self._room()
        self._say_what_to_expect(costs, start, searching)
        scheduler = Scheduler(
            proposer,
            RUNGS,
            journal.trials,
            self.plan["trials"] if searching else 1,
            _best_of(self.warm_start, self.space) if self.warm_start and searching else (),
        )
        study = Study(
            dataset_path=path,
            split=probed["split"],
            scheduler=scheduler,
            journal=journal,
            executor=self.executor or processes,
            clock=self.clock,
            costs=costs,
            memory=memory,
            folder=self.study_folder,
            n_workers=n_workers,
            threads=max(self.n_cores // n_workers, 1) if probed["device"] != "cpu" or not searching else 1,
            device=probed["device"],
            # Processes of somebody else's may have done more than one trial: what they take tells nothing.
            worker_bytes=worker_bytes if self.executor is None else None,
            in_order=self.plan["trials"] is not None,
            every_epoch=not searching,
            patience=self.patience,
            callbacks=self.callbacks if searching and self.callbacks else (self._show(searching), *self.callbacks),
            habit_hit1=self._habit_hit1,
            n_busy=lambda: int(self._baselines is not None and not self._baselines.done()),
        )
        with self._explained("the process that trains was killed or crashed", "; go on with --resume"):
            best = study.run()
        if best is None:
            self._explain_nothing(study)
            return
        self._finish(study, best, probed["split"], work)

    def _probed(self, probing: Future[dict[str, Any]], arguments: tuple[Any, ...]) -> dict[str, Any]:
        """What the probe found; begun once more where somebody killed it."""
        wait([probing])
        if isinstance(probing.exception(), JobKilledError):
            probing = self.processes.start(jobs.call, jobs.PROBE, *arguments)
        try:
            with self._explained("the process that probes what a training takes was killed or crashed, twice"):
                return probing.result()
        except JobDiedError as error:
            raise ModelError(
                f"these settings cannot be trained: {last_line(error)}", hint="see the settings' ranges"
            ) from error

    @contextmanager
    def _explained(self, killed: str, then: str = "") -> Iterator[None]:
        """Say what the user can do where training lacks memory, or its process was killed."""
        try:
            yield
        except OutOfMemoryError as error:
            raise self._too_little_memory() from error
        except JobKilledError as error:
            raise ModelError(killed, hint=f"the machine may have run out of memory{then}") from error

    def _measure_baselines(self) -> None:
        """Begin to measure the baselines, unless an earlier run has."""
        if self._baselines is None and not (self.study_folder / BASELINES_FILE).is_file():
            self._baselines = self.processes.start(jobs.call, jobs.BASELINES, str(self.data.path), first_to_go=True)
            self._baselines.add_done_callback(self._keep_baselines)

    def _keep_baselines(self, future: Future[dict[str, Any]]) -> None:
        """Write them down as soon as they are there, so that a resumed run need not measure them again."""
        if future.exception() is None:
            file = self.study_folder / BASELINES_FILE
            with suppress(OSError), completed(file) as partial:  # they are still in memory
                partial.write_text(json.dumps(future.result()), encoding="utf-8")
                sync_file(partial)

    def _await(self, future: Future[Any], journal: Journal, timeout_s: float = math.inf) -> None:
        """Wait for a job, and write down the time meanwhile."""
        end_s = self.clock.now_s + timeout_s
        while not future.done() and (left_s := end_s - self.clock.now_s) > 0:
            if not wait([future], timeout=min(left_s, CLOCK_S)).done:
                journal.note("clock", self.clock.now_s)

    def _habit_hit1(self) -> float | None:
        """What an evaluation of habits on validation came to, once it is known."""
        if self._baselines is None:
            measured = self._measured_before
        elif not self._baselines.done() or self._baselines.exception() is not None:
            return None
        else:
            measured = self._baselines.result()
        value: float | None = measured["habit_valid_hit1"]
        return value

    @cached_property
    def _measured_before(self) -> dict[str, Any]:
        """The baselines as an earlier run has measured them."""
        content: dict[str, Any] = json.loads((self.study_folder / BASELINES_FILE).read_text(encoding="utf-8"))
        return content

    def _room(self) -> int:
        """Memory that trials may take, all together."""
        return int(MARGIN * self.memory_bytes) - self.processes.own_bytes

    def _workers(self, memory: MemoryModel, start: dict[str, Any], device: str) -> tuple[int, int]:
        """Trials at a time, from memory and cores, and what each may take; a GPU has one at a time."""
        room = self._room() - NEVERGRAD_BYTES
        n_workers = max(min(self.n_cores, room // memory.estimate(start)), 1) if device == "cpu" else 1
        return n_workers, room // n_workers

    def _is_worthwhile(self, costs: CostModel, n_workers: int) -> bool:
        """Whether a search has the time for more than one training."""
        if self.plan["search"] is not None or len(costs.trials) > 1:
            return bool(self.plan["search"] != "none")
        start = dict(self.space.start)
        left_s = self.clock.left_s - costs.finish_s(start)
        return n_workers * left_s >= WORTHWHILE * _full_s(costs, start)

    def _say_what_to_expect(self, costs: CostModel, start: dict[str, Any], searching: bool) -> None:
        full_s, least_s = _full_s(costs, start), costs.least_s - 0.5 * costs.scoring * costs.validation_s
        left_s = self.clock.left_s - costs.finish_s(start, self.clock.left_s)
        if costs.trials:
            return
        if self.clock.left_s < least_s + 1:
            needed_s = math.ceil((self.clock.now_s + 2 * least_s + full_s / 5) / 5) * 5
            raise BudgetError(
                f"a budget of {format_duration(self.clock.budget_s)} leaves no time to train: "
                f"reading and measuring take longer",
                hint=f"give at least --budget {needed_s}s",
            )
        if left_s < full_s:
            self.listener.note(
                f"a whole training takes about {format_duration(full_s)}, there are {format_duration(max(left_s, 0))}: "
                "it is cut short"
            )

    def _show(self, searching: bool) -> Callable[[Status], None]:
        """A callback that turns what happens into progress of one stage."""
        if searching:
            self.listener.start("Searching", self.budget_s, "s")
        else:
            self.listener.start("Training", 1.0, "share")
        done = 0.0

        def show(status: Status) -> None:
            nonlocal done
            now = status.elapsed_s if searching else sum(running.share for running in status.running)
            self.listener.advance(max(now - done, 0.0))
            done = max(now, done)
            if searching and status.best is not None:
                hit1 = status.best.figures["valid_hit1"]
                self.listener.note(
                    f"{status.n_trials} trials, best loss {status.best.loss:.4f}, hit@1 by score {hit1:.3f}"
                )
            elif status.running and status.running[0].note:
                self.listener.note(status.running[0].note)

        return show

    def _explain_nothing(self, study: Study) -> None:
        if study.stopped.startswith("stopped"):
            raise KeyboardInterrupt
        records = [record for trial in study.journal.trials.values() for record in trial.records.values()]
        if records and records[-1].status == "memory":
            raise self._too_little_memory()
        why = records[-1].figures.get("why", "its loss is no number") if records else "no trial ended in time"
        raise ModelError(f"no training succeeded: {why}", hint="lower --learning-rate, or give more --budget")

    def _too_little_memory(self) -> BudgetError:
        return BudgetError(
            f"{format_size(self.memory_bytes)} of memory are not enough to train this configuration",
            hint="give more --memory, or a smaller --hidden or batch",
        )

    def _finish(self, study: Study, best: Best, split: list[int], work: Path) -> None:
        """Refit, measure, write: in a process of its own, which heeds the deadline."""
        self.listener.start("Finishing", None, "")
        baselines = self._baselines_result(study)
        shutil.copyfile(self.study_folder / JOURNAL, work / JOURNAL)
        write_results(read_results(work), work / "trials.parquet")
        deadline = time.monotonic() + self.clock.left_s - SLACK_S
        about = {
            "interrupted": study.stopped.startswith("stopped"),
            "device": study.device,
            "search": {
                "kind": "none" if study.scheduler.n_proposals == 1 else self.plan["search"] or "hyperband",
                "optimizer": self.plan["optimizer"],
                "trials": len(study.journal.trials),
                "best_trial": best.number,
                "best_rung": best.rung,
                "stopped": study.stopped,
                "peak_bytes": self.processes.peak_bytes,
            },
            "elapsed_s": self.clock.now_s,
        }
        arguments = (
            str(self.data.path),
            split,
            str(best.folder),
            str(work),
            baselines,
            about,
            self.n_cores,
            study.device,
            str(jobs.checkpoint_of(self.study_folder / f"refit-{best.number}-{best.rung}")),
        )

        def start(deadline: float | None) -> Future[dict[str, Any]]:
            return self.processes.start(jobs.call, jobs.FINISH, *arguments, deadline, on_event=self._relay)

        finishing = start(deadline if math.isfinite(deadline) else None)
        try:
            try:
                self._await(finishing, study.journal)
                finishing.result()
            except KeyboardInterrupt as error:
                if type(error) is not KeyboardInterrupt:
                    raise  # the machine wants the process to end: there is no time for more
                # Once: a refit ends where it is, and the rest is done. Twice: all ends.
                self.processes.interrupt(finishing)
                try:
                    finishing.result()
                except JobInterruptedError:  # it had not begun
                    start(time.monotonic()).result()
        except OutOfMemoryError as error:
            raise BudgetError(
                f"{format_size(self.memory_bytes)} of memory are not enough to measure the model",
                hint="give more --memory; the search is kept, go on with --resume",
            ) from error
        except JobKilledError as error:
            raise ModelError(
                "the process that refits and measures was killed or crashed",
                hint="the machine may have run out of memory; the search is kept, go on with --resume",
            ) from error

    def _relay(self, event: tuple[Any, ...]) -> None:
        getattr(self.listener, event[0])(*event[1:])

    def _baselines_result(self, study: Study) -> list[dict[str, Any]]:
        """Wait for the baselines as long as the clock allows; the table goes without them if it does not."""
        for attempt in range(2):
            if self._baselines is None:
                break
            needed_s = study.costs.finish_s(dict(self.space.start) | {"refit_epochs": 0})
            try:
                self._await(self._baselines, study.journal, self.clock.left_s - needed_s)
            except KeyboardInterrupt as interruption:
                if type(interruption) is not KeyboardInterrupt:
                    raise
                self.processes.kill(self._baselines)
                self.listener.note("stopped by Ctrl-C before all baselines were measured")
                return []
            if not self._baselines.done():
                self.processes.kill(self._baselines)
                self.listener.note("no time was left to measure all baselines")
                return []
            error = self._baselines.exception()
            if error is None:
                measured: list[dict[str, Any]] = self._baselines.result()["systems"]
                return measured
            # Something else may have needed the memory; now nothing runs.
            if attempt:
                self.listener.note(f"the baselines could not be measured: {last_line(error)}")
                return []
            self._baselines = None
            self._measure_baselines()
        systems: list[dict[str, Any]] = self._measured_before["systems"]
        return systems


def _full_s(costs: CostModel, settings: dict[str, Any]) -> float:
    """Seconds of one whole training."""
    return costs.estimate(Job(-1, costs.rungs.index(Rung(1.0)), settings))


def _best_of(model: Path, space: Space) -> list[dict[str, Any]]:
    """The best configurations of an earlier search, as far as they lie in this space or near it."""
    file = model / JOURNAL
    found = []
    for event in read_events(file):
        if event["event"] == "end" and event["valid_loss"] is not None:
            # A setting that there was not yet had the value that is the default now.
            try:
                point = space.encode(dict(space.start) | event["settings"])
            except ModelError:
                continue  # it had what this space leaves out
            found.append((-event["rung"], event["valid_loss"], space.decode(point)))
    found.sort(key=lambda one: one[:2])
    first: list[dict[str, Any]] = []
    for _, _, settings in found:
        if settings not in first:
            first.append(settings)
    return first[:N_WARM]
