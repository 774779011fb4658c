"""Raw files must stay as they are while they are read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from luckyfast.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from luckyfast.ingestion.plan import FilePlan

__all__ = ["FileWatch"]


class FileWatch:
    """Remembers size and time of change of files.

    A log that something still writes to may end in half a row, which would be taken for a whole one.

    Args:
        files: what will be read.

    Raises:
        InputError: a file has gone, or has changed since it was sampled.
    """

    def __init__(self, files: Sequence[FilePlan]) -> None:
        self._seen: dict[Path, tuple[int, int]] = {}
        for file in files:
            path = file.source.path
            try:
                status = path.stat()
            except OSError as error:
                raise InputError(f"cannot read {path}: {error.strerror}", hint="it was there a moment ago") from error
            if file.source.member is None and status.st_size != file.source.size_bytes:
                raise _changed(path)
            self._seen[path] = status.st_size, status.st_mtime_ns

    def check(self) -> None:
        """Raise `InputError` if a file has changed; one that has gone was read to its end."""
        for path, seen in self._seen.items():
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            if (status.st_size, status.st_mtime_ns) != seen:
                raise _changed(path)


def _changed(path: Path) -> InputError:
    return InputError(
        f"{path} changed while it was read", hint="wait until nothing writes to it any more, or read a copy of it"
    )
