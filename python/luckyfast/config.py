"""Sizes, durations, and what this process may use."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from luckyfast.errors import BudgetError

__all__ = [
    "EXPORT_FORMAT",
    "EXPORT_FORMAT_VERSION",
    "MAX_VISITS",
    "available_cores",
    "available_memory",
    "format_duration",
    "format_size",
    "parse_duration",
    "parse_size",
    "peak_memory",
    "resident_memory",
]

MAX_VISITS = 2**14
"""Longer histories are learnt from piece by piece, targets see at least so many visits before them, and the latest of
them are what is predicted from."""
EXPORT_FORMAT, EXPORT_FORMAT_VERSION = "luckyfast-onnx", 1
"""What the export writes and what is read to predict."""
_SIZE_UNITS = {"": 1, "K": 1000, "M": 1000**2, "G": 1000**3, "T": 1000**4}
_SIZE_UNITS |= {f"{unit}I": 1024**power for power, unit in enumerate("KMGT", start=1)}
_DURATION_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_size(text: str | int) -> int:
    """Read a size of memory such as ``512MB``, ``1.5GiB`` or ``800000000``.

    Args:
        text: a number with an optional unit: K, M, G, T (powers of 1000) or Ki, Mi, Gi, Ti (powers of 1024); a B may
            follow.

    Returns:
        Bytes.

    Raises:
        BudgetError: the text is no positive size.

    Example:
        >>> parse_size("512MB"), parse_size("1GiB")
        (512000000, 1073741824)
    """
    if isinstance(text, int):
        number, unit = float(text), ""
    else:
        match = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*([KMGT]?I?)B?\s*", text.upper())
        if match is None or match[2] not in _SIZE_UNITS:
            raise BudgetError(f"not a size of memory: {text!r}", hint="write it like 512MB, 1.5GB or 2GiB")
        number, unit = float(match[1]), match[2]
    n_bytes = int(number * _SIZE_UNITS[unit])
    if n_bytes <= 0:
        raise BudgetError(f"a size of memory must be positive, not {text!r}", hint="write it like 512MB or 2GiB")
    return n_bytes


def parse_duration(text: str | float) -> float:
    """Read a time budget such as ``90s``, ``20m``, ``8h``, ``2d`` or ``1h30m``.

    Args:
        text: numbers with units s, m, h, d; a bare number is seconds.

    Returns:
        Seconds.

    Raises:
        BudgetError: the text is no positive duration.

    Example:
        >>> parse_duration("20m"), parse_duration("1h30m")
        (1200.0, 5400.0)
    """
    if isinstance(text, int | float):
        seconds = float(text)
    else:
        compact = text.replace(" ", "").lower()
        parts = re.findall(r"(\d+(?:\.\d*)?)([smhd]?)", compact)
        if not parts or "".join(number + unit for number, unit in parts) != compact:
            raise BudgetError(f"not a duration: {text!r}", hint="write it like 90s, 20m, 8h, 2d or 1h30m")
        seconds = sum(float(number) * _DURATION_UNITS[unit or "s"] for number, unit in parts)
    if not 0 < seconds < float("inf"):
        raise BudgetError(f"a duration must be positive, not {text!r}", hint="write it like 90s, 20m or 8h")
    return seconds


def format_size(n_bytes: float) -> str:
    """Write bytes for people, in powers of 1000.

    Example:
        >>> format_size(208_000_000)
        '208 MB'
    """
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= scale:
            value = n_bytes / scale
            return f"{value:.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"
    return f"{n_bytes:.0f} B"


def format_duration(seconds: float) -> str:
    """Write seconds for people.

    Example:
        >>> format_duration(5400), format_duration(3.2), format_duration(119.7)
        ('1h30m', '3.2s', '2m00s')
    """
    if round(seconds, 1) < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{rest:02d}s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours}h{minutes:02d}m"


def available_memory() -> int:
    """The memory this process may use: the machine's free memory, or what its control groups leave if that is less.

    Returns:
        Bytes.
    """
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        match = re.search(r"MemAvailable:\s+(\d+) kB", meminfo.read_text())
        if match:
            free = int(match[1]) * 1024
    return min([free, *_cgroup_room()])


def resident_memory() -> int:
    """The resident size of this process now, or its peak where the system does not say.

    Returns:
        Bytes.

    Example:
        >>> 0 < resident_memory() <= peak_memory()
        True
    """
    size = _status_bytes("VmRSS")
    return peak_memory() if size is None else size


def peak_memory() -> int:
    """The largest resident size that this process has had.

    Returns:
        Bytes.
    """
    # ru_maxrss begins with what the parent held when it started this process
    size = _status_bytes("VmHWM")
    if size is not None:
        return size
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _status_bytes(name: str) -> int | None:
    """A size that Linux tells of this process; None elsewhere."""
    status = Path("/proc/self/status")
    return int(status.read_text().split(f"{name}:")[1].split()[0]) * 1024 if status.exists() else None


def available_cores() -> int:
    """The number of cores this process may run on, respecting affinity and control-group quotas.

    Returns:
        At least 1.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = Path("/sys/fs/cgroup/cpu.max")
    if quota.exists():
        limit, period = quota.read_text().split()
        if limit != "max":
            cores = min(cores, max(1, int(limit) // int(period)))
    return cores


def _cgroup_room() -> list[int]:
    room = []
    for limit_file, usage_file in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        if Path(limit_file).exists() and Path(usage_file).exists():
            limit = Path(limit_file).read_text().strip()
            if limit != "max" and int(limit) < 1 << 60:
                room.append(max(int(limit) - int(Path(usage_file).read_text()), int(limit) // 4))
    return room
