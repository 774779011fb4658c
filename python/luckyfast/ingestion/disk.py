"""Whether what a run is about to write will fit on the disks, asked before the first byte of it is written."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from luckyfast.config import format_size
from luckyfast.errors import InputError

__all__ = ["check_disk"]


def check_disk(needed: Mapping[Path, int]) -> None:
    """Stop a run that would fill a disk.

    Args:
        needed: folder to the bytes that will be written into it; folders on one disk are added up.

    Raises:
        InputError: a disk has less room than that.

    Example:
        >>> check_disk({Path("."): 1})
    """
    disks: dict[int, list[Path]] = {}
    for folder in needed:
        disks.setdefault(folder.stat().st_dev, []).append(folder)
    for folders in disks.values():
        n_bytes, free = sum(needed[folder] for folder in folders), shutil.disk_usage(folders[0]).free
        if n_bytes > free:
            names = " and ".join(str(folder) for folder in folders)
            raise InputError(
                f"about {format_size(n_bytes)} will be written to {names}, where {format_size(free)} are free",
                hint="free some space, choose other places with OUT and --temp, or give more --memory",
            )
