"""The folder in which a run of fit works and a search waits to be resumed, and the model that comes out of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from luckyfast.errors import ModelError, OutputExistsError

__all__ = ["JOURNAL", "publish", "study_folder"]

JOURNAL = "trials.jsonl"


@contextmanager
def study_folder(model: Path, plan: dict[str, Any], *, resume: bool, overwrite: bool) -> Iterator[Path]:
    """The folder beside the model in which a run works: left there where it ends early and there is something to go on
    from, a trial that has finished or a checkpoint of one.

    Raises:
        OutputExistsError: an earlier search is there, and nothing says what to do with it.
        ModelError: an earlier search is to be resumed, and it is another one.
    """
    folder = model.with_name(f"{model.name}.search")
    if _is_worth_keeping(folder):
        if resume:
            _assert_same(folder, plan)
        elif not overwrite:
            raise OutputExistsError(
                f"{folder} holds an unfinished search or training",
                hint="go on with --resume, or start anew with --overwrite",
            )
    if folder.exists() and not (resume and _is_worth_keeping(folder)):
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield folder
    finally:
        if not _is_worth_keeping(folder):
            shutil.rmtree(folder, ignore_errors=True)


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


def _assert_same(folder: Path, plan: dict[str, Any]) -> None:
    from luckyfast.search.journal import read_events

    header = next(iter(read_events(folder / JOURNAL)))
    for name, value in plan.items():
        if header.get(name) != json.loads(json.dumps(value)):
            raise ModelError(
                f"the search in {folder} had another {name}",
                hint="give the same dataset, settings, space and seed, or start anew with --overwrite",
            )
