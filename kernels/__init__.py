"""Numba kernels: NumPy arrays in, preallocated arrays out, one thread, no Python objects."""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from pathlib import Path


def _keep_compiled_code() -> None:
    """Where Numba could write its cache neither beside the kernels nor in the user's own folder it would fail, so there
    the cache lies in a temporary folder: that of this user, or one of this process where somebody else has the name.
    """
    if "NUMBA_CACHE_DIR" in os.environ or _is_writable(Path(__file__).parent / "__pycache__"):
        return
    user_cache = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))  # noqa: PTH111
    if user_cache.is_absolute() and _is_writable(user_cache / "numba"):
        return
    folder = Path(tempfile.gettempdir()) / f"luckyfast-kernels-{os.getuid()}"
    if not _is_own(folder):
        folder = Path(tempfile.mkdtemp(prefix="luckyfast-kernels-"))
    os.environ["NUMBA_CACHE_DIR"] = str(folder)
    if "numba" in sys.modules:
        sys.modules["numba"].config.CACHE_DIR = str(folder)


def _is_own(folder: Path) -> bool:
    """Whether there is such a folder now that nobody else can write into: what lies in a cache is run."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError:
        return False
    status = folder.lstat()
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o022


def _is_writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True


_keep_compiled_code()
