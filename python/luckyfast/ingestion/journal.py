"""The folder of an unfinished run, and the journal in it from which the run can go on after it was killed.

`OUT.partial` lies beside OUT; the `dataset` in it becomes OUT by one rename at the very end. Its `journal` has one line
per checkpoint, each with a checksum of its text; a line is appended only when the files it names are on the disk.
Whatever the last whole line does not name is of no use and is removed when the run goes on.
"""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import shutil
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from luckyfast.errors import DatasetError, OutputExistsError

__all__ = ["Journal", "partial_folder", "removal_command"]

_NAME = "journal"


def partial_folder(out: Path) -> Path:
    """Where the run that will give `out` keeps its work.

    Example:
        >>> partial_folder(Path("data/receipts")).as_posix()
        'data/receipts.partial'
    """
    return out.with_name(f"{out.name}.partial")


def removal_command(folder: Path, header: Mapping[str, Any]) -> str:
    """What removes all that a run has left, for people; with `--temp` its spills lie elsewhere.

    Example:
        >>> removal_command(Path("my data.partial"), {"spills": "/scratch/luckyfast-7"})
        "rm -r 'my data.partial' /scratch/luckyfast-7"
    """
    spills = Path(header.get("spills", folder))
    places = [folder] if spills.is_relative_to(folder.resolve()) else [folder, spills]
    return shlex.join(["rm", "-r", *map(str, places)])


def _removal_of(folder: Path) -> str:
    file = folder / _NAME
    entries = _read_entries(file)[0] if file.is_file() else []
    return removal_command(folder, entries[0] if entries else {})


class Journal:
    """The journal of one run, held by one process at a time.

    Attributes:
        header: what the run is about; a run can only be resumed by one with the same header.
        last: the entry of the last checkpoint, or None.

    Args:
        folder: the partial folder, which exists.
    """

    def __init__(self, folder: Path, descriptor: int, header: dict[str, Any], last: dict[str, Any] | None) -> None:
        self.folder = folder
        self.header = header
        self.last = last
        self._descriptor = descriptor

    @classmethod
    def begin(cls, out: Path, header: Mapping[str, Any], *, resume: bool) -> Journal:
        """Make the partial folder of a run, or take over that of an interrupted one.

        Args:
            out: the dataset that the run will give.
            header: what the run is about, as plain values; "sources" and "settings" are compared when resuming.
            resume: go on with an interrupted run if there is one.

        Raises:
            OutputExistsError: there is an interrupted run and `resume` is False, or another process works at it.
            DatasetError: the interrupted run was about something else.
        """
        folder = partial_folder(out)
        if os.path.lexists(folder) and not resume:
            running = _is_held(folder / _NAME)
            raise OutputExistsError(
                f"{folder} is there: another luckyfast is writing {out}"
                if running
                else f"{folder} is left over from an interrupted run",
                hint="wait for it, or choose another output folder"
                if running
                else f"go on with the same command and --resume, or remove it: {_removal_of(folder)}",
            )
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / _NAME, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            _hold(descriptor, out)
            entries, n_bytes = _read_entries(folder / _NAME)
            os.ftruncate(descriptor, n_bytes)
            if entries:
                _compare(entries[0], header, folder)
            journal = cls(folder, descriptor, entries[0] if entries else dict(header), None)
            if len(entries) > 1:
                journal.last = entries[-1]
            elif not entries:
                journal.restart()
            return journal
        except BaseException:
            os.close(descriptor)
            raise

    def restart(self) -> None:
        """Forget all checkpoints."""
        os.ftruncate(self._descriptor, 0)
        self._write(self.header)
        self.last = None

    def append(self, entry: Mapping[str, Any]) -> None:
        """Add a checkpoint; it holds once this returns, even if the machine loses its power."""
        self._write(entry)
        os.fsync(self._descriptor)
        self.last = dict(entry)

    def _write(self, entry: Mapping[str, Any]) -> None:
        text = json.dumps(entry)
        line = f"{zlib.crc32(text.encode()):08x} {text}\n".encode()
        while line:
            line = line[os.write(self._descriptor, line) :]

    def close(self) -> None:
        """Let another process take the run over."""
        os.close(self._descriptor)

    def remove(self) -> None:
        """Remove the partial folder, the journal first: without it nothing can be mistaken for a checkpoint."""
        (self.folder / _NAME).unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)


def _read_entries(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The whole lines from the beginning on, and how many bytes they take."""
    entries: list[dict[str, Any]] = []
    n_bytes = 0
    for line in path.read_bytes().splitlines(keepends=True):
        checksum, _, text = line.partition(b" ")
        if not line.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(text[:-1]):
            break
        entries.append(json.loads(text))
        n_bytes += len(line)
    return entries, n_bytes


def _compare(found: Mapping[str, Any], wanted: Mapping[str, Any], folder: Path) -> None:
    hint = f"give the same command as before, or remove it: {removal_command(folder, found)}"
    for key, what in (
        ("version", "written by another version of luckyfast"),
        ("sources", "of other raw files, or they have changed since"),
        ("settings", "with other roles, formats or rules"),
    ):
        if found.get(key) != wanted.get(key):
            raise DatasetError(f"the interrupted run in {folder} was {what}", hint=hint)


def _hold(descriptor: int, out: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise OutputExistsError(
            f"another luckyfast is writing {out}", hint="wait for it, or choose another output folder"
        ) from error


def _is_held(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False
