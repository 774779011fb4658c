"""The first stage of ingest alone: where every field of a CSV log ends, on one core.

The log of the `ingest` task is read in blocks of 1 MiB, and each block is cut at its last record and indexed: the
position of every delimiter and line end outside quotes, in an array. `read` only copies the blocks out of the page
cache: no system that reads the file through `read(2)` can be faster. The instruction sets below the best one show what
the wide ones give; `numpy` looks for the two bytes and knows nothing of quotes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from io import RawIOBase
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..task import Inputs, Settings, Task
from .ingest import TASK as INGEST

__all__ = ["TASK", "ScanTask"]

_BLOCK = 1 << 20
_DELIMITER, _QUOTE, _NEWLINE = b',"\n'
_LEVELS = {"luckyfast": -1, "luckyfast-avx2": 1, "luckyfast-portable": 0}

Bytes = npt.NDArray[np.uint8]


class ScanTask:
    """See the module's text."""

    name = "scan"
    title = "scan: every field's end in raw receipts (CSV), one core"
    systems: Mapping[str, tuple[str, ...]] = {
        "luckyfast": ("luckyfast._engine", "numpy"),
        "luckyfast-avx2": ("luckyfast._engine", "numpy"),
        "luckyfast-portable": ("luckyfast._engine", "numpy"),
        "numpy": ("numpy",),
        "read": ("numpy",),
    }
    default_runs = (5, 3)

    def prepare(self, cache: Path, settings: Settings) -> Inputs:
        """Take the log of the ingest task; count its rows and fields byte by byte."""
        inputs = INGEST.prepare(cache, replace(settings, n_threads=1))
        csv = Path(inputs.values["csv"])
        counted = csv.with_suffix(".fields.json")
        if not counted.exists():
            rows = fields = 0
            with csv.open("rb") as file:
                while block := file.read(_BLOCK):
                    rows += block.count(b"\n")
                    fields += block.count(b",") + block.count(b"\n")
            counted.write_text(json.dumps([rows, fields]), encoding="utf-8")
        rows, fields = json.loads(counted.read_text(encoding="utf-8"))
        expected = f"{rows} rows, {fields} fields"
        return replace(inputs, values={**inputs.values, "expected": expected}, expected=expected)

    def run(self, system: str, values: Mapping[str, Any], out: Path) -> Mapping[str, float]:
        """Index the log; what is kept of each block's index are its counts."""
        with Path(values["csv"]).open("rb", buffering=0) as file:
            if system == "read":
                result = f"{sum(stop for _, stop in _read_blocks(file, lambda _, stop: stop))} bytes"
            elif system == "numpy":
                result = _scan_with_numpy(file)
            else:
                result = _scan_with_luckyfast(file, _LEVELS[system])
        (out / "result.txt").write_text(result, encoding="utf-8")
        return {}

    def check(self, system: str, values: Mapping[str, Any], out: Path) -> str | None:
        """Show the numbers of rows and fields; of `read`, only that it read everything can be checked."""
        result = (out / "result.txt").read_text(encoding="utf-8")
        if system != "read":
            return result
        if result != f"{Path(values['csv']).stat().st_size} bytes":
            raise ValueError(f"only {result} were read")
        return str(values["expected"])


def _scan_with_luckyfast(file: RawIOBase, level: int) -> str:
    from luckyfast import _engine

    if level > 0 and _engine.kernel_name(level) == _engine.kernel_name(0):
        raise RuntimeError("this processor lacks these instructions")
    separators, row_stops = (np.empty(2 * _BLOCK + _engine.SLACK, np.uint32) for _ in range(2))
    n_rows = n_fields = 0

    def find_stop(block: Bytes, stop: int) -> int:
        return int(_engine.find_boundary(block, 0, stop, False, False, _DELIMITER, _QUOTE, level)[0])

    for block, stop in _read_blocks(file, find_stop):
        rows, _, _ = _engine.scan(block, 0, stop, False, _DELIMITER, _QUOTE, separators, row_stops, level)
        n_rows += rows
        n_fields += int(row_stops[rows - 1]) if rows else 0
    return f"{n_rows} rows, {n_fields} fields"


def _scan_with_numpy(file: RawIOBase) -> str:
    n_rows = n_fields = 0

    def find_stop(block: Bytes, stop: int) -> int:
        return block[:stop].tobytes().rfind(b"\n") + 1

    for block, stop in _read_blocks(file, find_stop):
        line_ends = block[:stop] == _NEWLINE
        separators = np.flatnonzero(line_ends | (block[:stop] == _DELIMITER))
        n_rows += len(np.flatnonzero(line_ends))
        n_fields += len(separators)
    return f"{n_rows} rows, {n_fields} fields"


def _read_blocks(file: RawIOBase, find_stop: Callable[[Bytes, int], int]) -> Iterator[tuple[Bytes, int]]:
    """Read a file that ends with a line end; yield each block with the end of its last record, and carry the rest."""
    block = np.empty(2 * _BLOCK, np.uint8)
    carried = 0
    while n_read := file.readinto(block.data[carried : carried + _BLOCK]):
        stop = find_stop(block, carried + n_read)
        yield block, stop
        carried += n_read - stop
        block[:carried] = block[stop : stop + carried].copy()


TASK: Task = ScanTask()
