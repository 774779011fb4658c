"""A benchmark task for tests: systems that do right, do wrong, fail, are killed, never end, or are not installed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from luckyfast.bench.task import Inputs, Settings


class CountingTask:
    """Write a number into a file; the right one is 7."""

    name = "counting"
    title = "counting to seven"
    systems: Mapping[str, tuple[str, ...]] = {
        "right": ("json",),
        "wrong": ("json",),
        "disordered": ("json",),
        "failing": ("json",),
        "killed": ("json",),
        "endless": ("json",),
        "absent": ("no_such_module",),
    }
    default_runs = (2, 1)

    def prepare(self, cache: Path, settings: Settings) -> Inputs:
        log = cache / "order.txt"
        log.write_text("")
        return Inputs(
            {"log": str(log), "scale": settings.scale}, expected="7", warm_up={"log": str(cache / "warm.txt")}
        )

    def run(self, system: str, values: Mapping[str, Any], out: Path) -> Mapping[str, float]:
        with Path(values["log"]).open("a") as log:
            log.write(f"{system}\n")
        if system == "failing":
            raise RuntimeError("no such luck")
        if system == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if system == "endless":
            time.sleep(3600)
        (out / "number").write_text("6" if system == "wrong" else "7")
        return {"digits": 1.0}

    def check(self, system: str, values: Mapping[str, Any], out: Path) -> str:
        if system == "disordered":
            raise ValueError("out of order")
        return (out / "number").read_text()


TASK = CountingTask()
