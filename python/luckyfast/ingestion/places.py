"""Where a run works, what is left of it when it ends, and how a finished dataset gets into its place in one step."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luckyfast import __version__
from luckyfast.errors import InputError, OutputExistsError, UserError, is_disk_full
from luckyfast.ingestion.journal import Journal, partial_folder, removal_command

if TYPE_CHECKING:
    from luckyfast.ingestion.plan import IngestPlan

__all__ = ["Workplace", "open_workplace"]

_REFUSED = (errno.EACCES, errno.EROFS, errno.EPERM)
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


class Workplace:
    """The folders of one run.

    Attributes:
        dataset: the dataset being written.
        spills: what does not fit into memory.
        journal: the checkpoints.
    """

    def __init__(self, plan: IngestPlan, journal: Journal, spills: Path) -> None:
        self.dataset = journal.folder / "dataset"
        self.spills = spills
        self.journal = journal
        self._plan = plan

    def publish(self) -> None:
        """Put the finished dataset where users look for it; a dataset that it replaces goes where it was written.

        Raises:
            OutputExistsError: something has appeared there meanwhile.
        """
        if self._plan.append:
            _exchange(self.dataset, self._plan.out)
        elif os.path.lexists(self._plan.out):
            raise OutputExistsError(f"{self._plan.out} has appeared meanwhile", hint="choose another output folder")
        else:
            self.dataset.rename(self._plan.out)

    def remove(self) -> None:
        """Remove everything; the journal goes first, since without the rest it would promise too much."""
        self.journal.remove()
        shutil.rmtree(self.spills, ignore_errors=True)


@contextmanager
def open_workplace(plan: IngestPlan) -> Iterator[Workplace]:
    """The workplace of a run. It is removed at the end, unless an interrupted run can be gone on with from there.

    Raises:
        OutputExistsError: the output is there already, or an interrupted run is and `plan.resume` is False.
        DatasetError: the interrupted run was about something else.
        InputError: the disk is full, or a folder cannot be written.
    """
    out, folder = plan.out, partial_folder(plan.out)
    if os.path.lexists(out) and not plan.append:
        if plan.resume and folder.is_dir() and (out / "manifest.json").is_file():
            journal = Journal.begin(out, _describe(plan, folder), resume=True)
            Workplace(plan, journal, Path(journal.header["spills"])).remove()
            journal.close()
            raise OutputExistsError(f"{out} is complete: the interrupted run had come to its end", hint="just use it")
        raise OutputExistsError(f"{out} exists already", hint="choose another output folder, or remove it first")
    is_left_over = os.path.lexists(folder)
    workplace = None
    try:
        # a signal may come at any moment, so nothing is made before this
        workplace = _set_up(plan, folder)
        yield workplace
    except BaseException as error:
        kept = _keep(workplace)
        if workplace is not None and not kept:
            workplace.remove()
        elif workplace is None and not is_left_over:
            shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError):
            raise _explain(error, plan, kept) from error
        if isinstance(error, KeyboardInterrupt):
            error.args = (kept,) if kept else ()
        elif isinstance(error, UserError) and kept:
            error.hint = f"{error.hint}; then {kept}"
        raise
    else:
        workplace.remove()
    finally:
        if workplace is not None:
            workplace.journal.close()


def _set_up(plan: IngestPlan, folder: Path) -> Workplace:
    temp = plan.temp
    new = folder / "spills" if temp is None else temp / f"luckyfast-{os.getpid()}-{os.urandom(4).hex()}"
    journal = Journal.begin(plan.out, _describe(plan, new), resume=plan.resume)
    spills = Path(journal.header["spills"])
    if journal.last is not None and not all((spills / name).is_file() for name in journal.last["files"]):
        # somebody has tidied up: nothing to go on from
        journal.restart()
    workplace = Workplace(plan, journal, spills)
    shutil.rmtree(workplace.dataset, ignore_errors=True)
    (workplace.dataset / "shards").mkdir(parents=True)
    (workplace.dataset / "rejects").mkdir()
    spills.mkdir(parents=True, exist_ok=True)
    known = set(journal.last["files"]) if journal.last is not None else set()
    for file in spills.iterdir():
        if file.name not in known:
            file.unlink()
    return workplace


def _keep(workplace: Workplace | None) -> str:
    """How to go on with an interrupted run, or nothing where it has not come to its first checkpoint."""
    if workplace is None or workplace.journal.last is None:
        return ""
    removal = removal_command(workplace.journal.folder, workplace.journal.header)
    return f"go on with the same command and --resume, or remove what was done: {removal}"


def _explain(error: OSError, plan: IngestPlan, kept: str) -> Exception:
    parent = plan.out.parent
    places = f"{parent} or {plan.temp}" if plan.temp else str(parent)
    if is_disk_full(error):
        hint = (
            f"free some space, then {kept}" if kept else "free some space, or choose other places with OUT and --temp"
        )
        return InputError(f"the disk is full (writing to {places})", hint=hint)
    if error.errno in _REFUSED:
        return InputError(
            f"cannot write to {places}: {error.strerror}", hint="choose another output folder, or another --temp"
        )
    return error


def _describe(plan: IngestPlan, spills: Path) -> dict[str, Any]:
    """What a run is about: the same for every run that gives the same bytes."""
    sources = [
        (str(file.source.path.resolve()), file.source.size_bytes, _mtime(file.source.path)) for file in plan.files
    ]
    lookup = plan.lookup
    table = lookup and (
        lookup.on,
        lookup.key_bytes.tobytes(),
        lookup.key_start.tobytes(),
        lookup.values,
        lookup.features,
    )
    files = [
        (
            file.source.label,
            file.source.form,
            file.source.encoding,
            file.constants,
            file.dialect,
            file.customer,
            file.time,
            file.action,
            file.visit,
            file.where,
            file.features,
        )
        for file in plan.files
    ]
    settings = (
        files,
        plan.roles,
        plan.time_format,
        sorted(plan.nulls.items()),
        table,
        plan.rules,
        plan.features,
        plan.append,
    )
    return {
        "version": __version__,
        "sources": _digest(sources),
        "settings": _digest(settings),
        "spills": str(spills.resolve()),
    }


def _mtime(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError as error:
        raise InputError(
            f"cannot read {path}: {error.strerror}", hint="it was there a moment ago: give it again"
        ) from error


def _digest(value: object) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()


def _exchange(a: Path, b: Path) -> None:
    """Give each folder the other's name; where the system can, there is no moment without either."""
    if sys.platform == "linux":
        rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
        if rename is not None and rename(_AT_FDCWD, bytes(a), _AT_FDCWD, bytes(b), _RENAME_EXCHANGE) == 0:
            return
    spare = Path(tempfile.mkdtemp(prefix=f"{b.name}.replaced-", dir=b.parent)) / b.name
    b.rename(spare)
    a.rename(b)
    shutil.rmtree(spare.parent)
