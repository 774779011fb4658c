"""Describe the machine and the software that a benchmark ran on."""

from __future__ import annotations

import os
import platform
import re
from importlib import metadata
from pathlib import Path
from typing import Any

from luckyfast.config import available_cores

__all__ = ["describe_machine"]

_PACKAGES = ("luckyfast", "numba", "numpy", "pyarrow", "torch", "onnxruntime", "polars", "duckdb", "pandas")


def describe_machine() -> dict[str, Any]:
    """Describe processor, memory, system, Python and package versions as a JSON object.

    Example:
        >>> sorted(describe_machine())[:4]
        ['architecture', 'cores', 'cpu_cache', 'cpu_flags']
    """
    cpu = _read_cpu()
    return {
        "system": platform.system(),
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "cpu_model": cpu["model"],
        "cpu_cache": cpu["cache"],
        "cpu_flags": cpu["flags"],
        "cores": available_cores(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "load_before": list(os.getloadavg()),
        "python": platform.python_version(),
        "packages": {name: version for name in _PACKAGES if (version := _version(name)) is not None},
    }


def _read_cpu() -> dict[str, Any]:
    """Read what Linux tells about the first processor."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return {"model": platform.processor(), "cache": "", "flags": []}
    first = cpuinfo.read_text().split("\n\n")[0]
    fields: dict[str, str] = dict(re.findall(r"^([^\t:\n]+)\t*: (.*)$", first, flags=re.MULTILINE))
    names = ("cpu family", "model", "stepping")
    detail = ", ".join(f"{name} {fields[name]}" for name in names if name in fields)
    model = fields.get("model name", platform.processor())
    flags = set(fields.get("flags", fields.get("Features", "")).split())
    return {
        "model": f"{model} ({detail})" if detail else model,
        "cache": fields.get("cache size", ""),
        "flags": sorted(flags & {"avx2", "avx512bw", "avx512f", "bmi2", "fma", "asimd", "sve", "neon"}),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
