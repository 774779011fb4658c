"""Folders that take their name when they are whole, and the folder in which a search waits to be resumed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from luckyfast.errors import ModelError, OutputExistsError

__all__ = ["JOURNAL", "new_folder", "study_folder"]

JOURNAL = "trials.jsonl"


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder that takes its final name only when everything in it is written."""
    work = folder.with_name(f"{folder.name}.partial-{os.getpid()}")
    work.mkdir(parents=True)
    try:
        yield work
        if folder.exists():
            shutil.rmtree(folder)
        work.rename(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


@contextmanager
def study_folder(model: Path, plan: dict[str, Any], *, resume: bool, overwrite: bool) -> Iterator[Path]:
    """The folder of a search beside its model: it is left where a run ends early and trials have finished.

    Raises:
        OutputExistsError: an earlier search is there, and nothing says what to do with it.
        ModelError: an earlier search is to be resumed, and it is another one.
    """
    folder = model.with_name(f"{model.name}.search")
    if _has_finished(folder):
        if resume:
            _assert_same(folder, plan)
        elif not overwrite:
            raise OutputExistsError(
                f"{folder} holds an unfinished search", hint="go on with --resume, or start anew with --overwrite"
            )
    if folder.exists() and not (resume and _has_finished(folder)):
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield folder
    finally:
        if not _has_finished(folder):
            shutil.rmtree(folder, ignore_errors=True)


def _has_finished(folder: Path) -> bool:
    journal = folder / JOURNAL
    return journal.is_file() and b'"event": "end"' in journal.read_bytes()


def _assert_same(folder: Path, plan: dict[str, Any]) -> None:
    from luckyfast.search.journal import read_events

    header = next(iter(read_events(folder / JOURNAL)))
    for name, value in plan.items():
        if header.get(name) != json.loads(json.dumps(value)):
            raise ModelError(
                f"the search in {folder} had another {name}",
                hint="give the same dataset, settings, space and seed, or start anew with --overwrite",
            )
