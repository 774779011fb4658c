"""The first stage of ingest alone: where every field of a CSV log ends, on one core.

The log of the `ingest` task is read in blocks of 1 MiB that end with a record, as ingest does, and each block is
indexed: the position of every delimiter and line end outside quotes, in an array. `read` only copies the blocks out of
the page cache: no system that reads the file through `read(2)` can be faster. The instruction sets below the best one
show what the wide ones give; `numpy` looks for the two bytes and knows nothing of quotes or records.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from io import RawIOBase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..histories import plan_log
from ..task import Inputs, Settings, Task
from .ingest import TASK as INGEST

if TYPE_CHECKING:
    from luckyfast.ingestion.plan import FilePlan

__all__ = ["TASK", "ScanTask"]

_BLOCK = 1 << 20
_DELIMITER, _QUOTE, _NEWLINE = b',"\n'
_LEVELS = {"luckyfast": -1, "luckyfast-avx2": 1, "luckyfast-portable": 0}


class ScanTask:
    """See the module's text."""

    name = "scan"
    title = "scan: every field's end in raw receipts (CSV), one core"
    systems: Mapping[str, tuple[str, ...]] = {
        "luckyfast": ("luckyfast.ingestion.run",),
        "luckyfast-avx2": ("luckyfast.ingestion.run",),
        "luckyfast-portable": ("luckyfast.ingestion.run",),
        "numpy": ("numpy",),
        "read": ("numpy",),
    }
    default_runs = (5, 1)

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
        if system in _LEVELS:
            result = _scan_with_luckyfast(plan_log(values, out).files[0], _LEVELS[system])
        else:
            with Path(values["csv"]).open("rb", buffering=0) as file:
                result = _scan_with_numpy(file) if system == "numpy" else _read(file)
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


def _scan_with_luckyfast(plan: FilePlan, level: int) -> str:
    from luckyfast import _engine

    if level > 0 and _engine.kernel_name(level) == _engine.kernel_name(0):
        raise RuntimeError("this processor lacks these instructions")
    buffer = np.zeros(2 * _BLOCK + _engine.SLACK, np.uint8)
    separators, row_stops = (np.empty(len(buffer), np.uint32) for _ in range(2))
    n_rows = n_fields = n_left = 0
    with plan.source.path.open("rb", buffering=0) as file:
        while n_read := file.readinto(buffer[n_left : n_left + _BLOCK].data):
            n = n_left + n_read
            rows, _, _, stop = _engine.scan_until(
                buffer, 0, n, n, n_read < _BLOCK, _DELIMITER, _QUOTE, separators, row_stops, level
            )
            n_rows += rows
            n_fields += int(row_stops[rows - 1]) if rows else 0
            n_left = n - stop
            buffer[:n_left] = buffer[stop:n]
    return f"{n_rows} rows, {n_fields} fields"


def _scan_with_numpy(file: RawIOBase) -> str:
    n_rows = n_fields = 0
    for piece in _read_pieces(file):
        line_ends = piece == _NEWLINE
        n_rows += len(np.flatnonzero(line_ends))
        n_fields += len(np.flatnonzero(line_ends | (piece == _DELIMITER)))
    return f"{n_rows} rows, {n_fields} fields"


def _read(file: RawIOBase) -> str:
    return f"{sum(len(piece) for piece in _read_pieces(file))} bytes"


def _read_pieces(file: RawIOBase) -> Iterator[npt.NDArray[np.uint8]]:
    """Read a file piece by piece into one and the same array."""
    buffer = np.empty(_BLOCK, np.uint8)
    while n_read := file.readinto(buffer.data):
        yield buffer[:n_read]


TASK: Task = ScanTask()
