"""The process in which one run happens: ``python -m luckyfast.bench.worker run|check REQUEST RESULT``.

`run` imports the system, lets it do the task's small warm-up, and then times the work: what a system needs once in each
process (loading compiled kernels, starting threads) is start-up and not work. `check`, in another process, tells the
checksum of what was left.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

from .process import own_peak_rss
from .task import find_task

__all__ = ["main"]


def main(arguments: list[str]) -> int:
    """Carry out one request file and write the result file."""
    action, request_path, result_path = arguments
    request = json.loads(Path(request_path).read_text(encoding="utf-8"))
    result = (_run if action == "run" else _check)(request)
    Path(result_path).write_text(json.dumps(result), encoding="utf-8")
    return 0


def _run(request: dict[str, Any]) -> dict[str, Any]:
    _keep_to_cores(int(request["n_threads"]))
    task = find_task(request["task"])
    os.environ.update(request["environment"])
    for module in task.systems[request["system"]]:
        import_module(module)
    out = Path(request["out"])
    if request["warm_up"] is not None:
        small = out / "warm-up"
        small.mkdir()
        task.run(request["system"], request["warm_up"], small)
        shutil.rmtree(small)
    cpu_before, start = _cpu_s(), time.perf_counter()
    metrics = task.run(request["system"], request["values"], out)
    wall_s, cpu_s = time.perf_counter() - start, _cpu_s() - cpu_before
    return {"wall_s": wall_s, "cpu_s": cpu_s, "peak_rss_bytes": own_peak_rss(), "metrics": dict(metrics)}


def _check(request: dict[str, Any]) -> dict[str, Any]:
    task = find_task(request["task"])
    try:
        return {"checksum": task.check(request["system"], request["values"], Path(request["out"])), "error": None}
    except ValueError as error:
        return {"checksum": None, "error": str(error)}


def _keep_to_cores(n_threads: int) -> None:
    """Hold this process and all it starts to so many cores: the same limit for every system, whatever its settings."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:n_threads])


def _cpu_s() -> float:
    """User and system seconds of this process and its ended children so far."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
