"""Files that are whole or not there: what is written takes its name at the end, and is on the disk when it counts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["completed", "sync_file", "sync_folder", "sync_tree"]


@contextmanager
def completed(file: Path) -> Iterator[Path]:
    """A file that takes its name only when it is complete; where something fails nothing of it stays.

    Args:
        file: its name at the end, in place of what has that name.

    Yields:
        The name to write it under meanwhile, in the same folder.

    Example:
        >>> with completed(tmp_path / "table.csv") as partial:
        ...     _ = partial.write_text("a,b")
        >>> (tmp_path / "table.csv").read_text()
        'a,b'
    """
    partial = file.with_name(f"{file.name}.partial-{os.getpid()}")
    try:
        yield partial
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def sync_file(path: Path) -> None:
    """Wait until a file's bytes are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(path: Path) -> None:
    """Wait until a folder's names are on the disk, where the system can say so."""
    if os.name == "posix":
        sync_file(path)


def sync_tree(folder: Path) -> None:
    """Wait until a folder's files and names are on the disk: whoever renames it afterwards renames all of it."""
    for path in folder.iterdir():
        sync_file(path)
    sync_folder(folder)
