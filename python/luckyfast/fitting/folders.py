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

from luckyfast.errors import ModelError, OutputExistsError, UserError
from luckyfast.files import sync_folder, sync_tree

__all__ = ["BASELINES_FILE", "JOURNAL", "MODEL", "find_place", "publish", "read_header", "study_folder"]

JOURNAL = "trials.jsonl"
BASELINES_FILE = "baselines.json"
MODEL = "model"
"""What a run makes in its folder, beside trials."""


def find_place(model: Path, *, overwrite: bool) -> Path:
    """Where a model is to be written; a link is followed, since it is the model that is replaced and not the link.

    Raises:
        OutputExistsError: something is there, and it is not to be replaced, or is no model.
    """
    place = model.resolve() if model.is_symlink() or model.name in ("", "..") else model
    _assert_free(place, overwrite=overwrite)
    return place


def _assert_free(place: Path, *, overwrite: bool) -> None:
    if not os.path.lexists(place):
        return
    if not overwrite:
        raise OutputExistsError(f"{place} exists already", hint="choose another folder with --out, or add --overwrite")
    if not _is_model(place):
        raise OutputExistsError(
            f"{place} is no model: only a model is replaced", hint="choose another folder with --out, or remove it"
        )


def _is_model(folder: Path) -> bool:
    """Whether a folder is a model, perhaps a damaged one, or has nothing in it."""
    if not folder.is_dir():
        return False
    names = {path.name for path in folder.iterdir()}
    return not names or "model.onnx" in names or {"config.json", "weights.npz"} <= names


@contextmanager
def study_folder(model: Path, plan: dict[str, Any], *, resume: bool, overwrite: bool) -> Iterator[Path]:
    """The folder beside the model in which a run works: left there where it ends early and there is something to go on
    from: a trial that has finished, a checkpoint of one, or the baselines. Baselines alone are not worth a question to
    who made a mistake and tries again.

    Raises:
        OutputExistsError: an earlier search is there, and nothing says what to do with it; or the folder is something
            else.
        ModelError: an earlier search is to be resumed, and it is another one; or one works there now.
    """
    folder = _study_of(model)
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        kept = _is_worth_keeping(folder)
        names = {path.name for path in folder.iterdir()}
        if JOURNAL not in names and names - {MODEL}:  # a run writes its journal before all else
            raise OutputExistsError(
                f"{folder} is where a run would work, and something else is in it",
                hint="choose another folder with --out, or move it away",
            )
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
        with_baselines = True
        try:
            yield folder
        except UserError:
            with_baselines = False
            raise
        finally:
            if not _is_worth_keeping(folder, with_baselines=with_baselines):
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


def publish(work: Path, study: Path, model: Path, *, overwrite: bool) -> None:
    """Give a model that is whole its name, in place of one that is there, and forget how it came about.

    Raises:
        OutputExistsError: something has appeared there meanwhile.
    """
    _assert_free(model, overwrite=overwrite)
    if model.exists():
        shutil.rmtree(model)
    sync_tree(work)
    work.rename(model)
    sync_folder(model.parent)
    shutil.rmtree(study, ignore_errors=True)  # a trial in an executor of somebody else's may still write there


def _is_worth_keeping(folder: Path, *, with_baselines: bool = True) -> bool:
    from luckyfast.search.jobs import CHECKPOINTS

    journal = folder / JOURNAL
    if not journal.is_file():
        return False
    if with_baselines and (folder / BASELINES_FILE).is_file():
        return True
    return b'"event": "end"' in journal.read_bytes() or any(folder.glob(CHECKPOINTS))


def _assert_same(model: Path, plan: dict[str, Any]) -> None:
    header = read_header(model) or {}
    for name, value in plan.items():
        if header.get(name) != json.loads(json.dumps(value)):
            raise ModelError(
                f"the search in {_study_of(model)} had another {name}",
                hint="give the same dataset, settings, space, search, trials and seed, or start anew with --overwrite",
            )
