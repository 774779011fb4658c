"""Describe the machine and the software that a benchmark ran on."""

from __future__ import annotations

import os
import platform
import re
from importlib import metadata
from pathlib import Path
from typing import Any

from luckyfast.config import available_cores

__all__ = ["describe_machine", "unlike_machines"]

_PACKAGES = ("luckyfast", "numba", "numpy", "pyarrow", "torch", "onnxruntime", "polars", "duckdb", "pandas")
_SAME_MACHINE = ("system", "architecture", "cpu_model", "cpu_cache", "cores")


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


def unlike_machines(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Say in what two machine descriptions differ so that times cannot be compared; empty when they can.

    Example:
        >>> here = describe_machine()
        >>> unlike_machines(here, here), unlike_machines(here, here | {"cores": 999})[0][-9:]
        ([], 'cores 999')
    """
    differences = [
        f"{name} {one.get(name)} against {name} {other.get(name)}"
        for name in _SAME_MACHINE
        if one.get(name) != other.get(name)
    ]
    sizes = [float(machine.get("memory_bytes", 0)) for machine in (one, other)]
    if abs(sizes[0] - sizes[1]) > 0.05 * max(sizes):
        differences.append(f"{sizes[0] / 1e9:.1f} GB of memory against {sizes[1] / 1e9:.1f} GB")
    return differences


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
