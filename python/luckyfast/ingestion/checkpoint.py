"""Checkpoints of a run: moments at which all that was read lies in files, so that a killed run can go on from there.

A worker whose store is full writes it out and asks for a checkpoint; every worker then finishes the stretch of rows
it has, writes its own store out too, and waits for the others. What was read is now a beginning of each source. The
last to come notes the state and sends all on. Another thread waits until the files are on the disk and only then adds
the line to the journal, so that no worker ever waits for a disk.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from luckyfast.files import sync_file, sync_folder
from luckyfast.ingestion.journal import Journal

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Checkpoints", "load_state"]

INTERVAL_S = 60.0
"""A run that never fills its stores makes a checkpoint this often."""


class Checkpoints:
    """Brings all workers together from time to time.

    Args:
        journal: where checkpoints are noted.
        folder: where the runs and the state lie.
        n_workers: how many workers there are.
        take_state: called while no worker works; returns the arrays of the state, the files that will not change any
            more, and those that grow.
    """

    def __init__(
        self,
        journal: Journal,
        folder: Path,
        n_workers: int,
        take_state: Callable[[], tuple[dict[str, NDArray[Any]], list[Path], list[Path]]],
    ) -> None:
        self._journal = journal
        self._folder = folder
        self._take_state = take_state
        self._number = 0 if journal.last is None else int(journal.last["number"])
        self._synced: set[Path] = set()
        self._n_workers = n_workers
        self._has_left = False
        self._n_waiting = 0
        self._round = 0
        self._wanted = False
        self._stopped = False
        self._due = time.monotonic() + INTERVAL_S
        self._change = threading.Condition()
        self._writer = ThreadPoolExecutor(1)
        self._writing: Future[None] | None = None

    def want(self) -> None:
        """Ask for a checkpoint as soon as all workers can be brought together."""
        self._wanted = True

    def pause(self, spill: Callable[[], None]) -> None:
        """Called by each worker when it holds no rows that it has not parsed; waits if a checkpoint is wanted.

        Args:
            spill: writes the worker's store out.
        """
        if self._has_left or (not self._wanted and time.monotonic() < self._due):
            return
        self._wanted = True
        spill()
        with self._change:
            self._n_waiting += 1
            own = self._round
            if self._n_waiting == self._n_workers and not self._has_left:
                self._note()
            while self._round == own and not (self._stopped or self._has_left):
                self._change.wait()

    def leave(self) -> None:
        """Called by each worker that has no more to do and keeps its store: there is no checkpoint after this."""
        with self._change:
            self._has_left = True
            self._release()

    def stop(self) -> None:
        """Let nobody wait any longer."""
        with self._change:
            self._stopped = True
            self._change.notify_all()

    def note(self) -> None:
        """Make a checkpoint when all workers have ended and written out what they had."""
        with self._change:
            self._note()

    def close(self, *, is_over: bool) -> None:
        """End the writing thread; checkpoints that wait to be written are dropped if the run `is_over`."""
        self._writer.shutdown(wait=True, cancel_futures=is_over)

    def _note(self) -> None:
        if self._writing is not None and self._writing.done():
            self._writing.result()
        self._number += 1
        state, runs, spools = self._take_state()
        self._writing = self._writer.submit(self._write, self._number, state, runs, spools)
        self._release()

    def _release(self) -> None:
        self._n_waiting = 0
        self._round += 1
        self._wanted = False
        self._due = time.monotonic() + INTERVAL_S
        self._change.notify_all()

    def _write(self, number: int, state: dict[str, NDArray[Any]], runs: list[Path], spools: list[Path]) -> None:
        path = self._folder / f"state-{number:06d}.npz"
        np.savez(path, **state)  # type: ignore[arg-type]
        for file in (path, *spools, *(run for run in runs if run not in self._synced)):
            sync_file(file)
        self._synced.update(runs)
        sync_folder(self._folder)
        names = [file.name for file in (path, *spools, *runs)]
        self._journal.append({"number": number, "state": path.name, "runs": [run.name for run in runs], "files": names})
        for old in self._folder.glob("state-*.npz"):
            if old < path:
                old.unlink()


def load_state(folder: Path, entry: dict[str, Any]) -> dict[str, NDArray[Any]]:
    """The arrays of the state that an entry of the journal names."""
    with np.load(folder / entry["state"]) as file:
        return dict(file)
