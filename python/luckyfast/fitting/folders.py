"""The folder in which a run of fit works and a search waits to be resumed, and the model that comes out of it."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from luckyfast.errors import ModelError, OutputExistsError

__all__ = ["JOURNAL", "publish", "read_header", "study_folder"]

JOURNAL = "trials.jsonl"


@contextmanager
def study_folder(model: Path, plan: dict[str, Any], *, resume: bool, overwrite: bool) -> Iterator[Path]:
    """The folder beside the model in which a run works: left there where it ends early and there is something to go on
    from, a trial that has finished or a checkpoint of one.

    Raises:
        OutputExistsError: an earlier search is there, and nothing says what to do with it.
        ModelError: an earlier search is to be resumed, and it is another one; or one works there now.
    """
    folder = _study_of(model)
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        kept = _is_worth_keeping(folder)
        if kept and resume:
            _assert_same(model, plan)
        elif kept and not overwrite:
            raise OutputExistsError(
                f"{folder} holds an unfinished search or training",
                hint="go on with --resume, or start anew with --overwrite",
            )
        else:
            for path in folder.iterdir():
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()
        try:
            yield folder
        finally:
            if not _is_worth_keeping(folder):
                shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a folder as the only process; the lock goes with the process, however it ends."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            hint = "wait for it, or choose another folder with --out"
            raise ModelError(f"another luckyfast fit works in {folder}", hint=hint) from error
        except OSError:
            pass  # some network file systems have no locks
        yield
    finally:
        os.close(descriptor)


def read_header(model: Path) -> dict[str, Any] | None:
    """What an unfinished search for a model was begun as; None where there is none."""
    from luckyfast.search.journal import read_events

    file = _study_of(model) / JOURNAL
    return next(iter(read_events(file)), None) if file.is_file() else None


def _study_of(model: Path) -> Path:
    return model.with_name(f"{model.name}.search")


def publish(work: Path, study: Path, model: Path) -> None:
    """Give a model that is whole its name, in place of one that is there, and forget how it came about."""
    if model.exists():
        shutil.rmtree(model)
    work.rename(model)
    shutil.rmtree(study)


def _is_worth_keeping(folder: Path) -> bool:
    from luckyfast.search.jobs import CHECKPOINTS

    journal = folder / JOURNAL
    return journal.is_file() and (b'"event": "end"' in journal.read_bytes() or any(folder.glob(CHECKPOINTS)))


def _assert_same(model: Path, plan: dict[str, Any]) -> None:
    header = read_header(model) or {}
    for name, value in plan.items():
        if header.get(name) != json.loads(json.dumps(value)):
            raise ModelError(
                f"the search in {_study_of(model)} had another {name}",
                hint="give the same dataset, settings, space and seed, or start anew with --overwrite",
            )
