"""Raw receipts as JSON lines to histories sorted by customer and time, on disk.

The input is the Complete Journey log with one object per line, the product's columns in an object of its own, of which
one is needed (653 MB times the scale). The end result and the formulations are those of the task `ingest`; polars and
DuckDB are told the types, and DuckDB only of the needed values, which is the fastest way that was found for each.
pyarrow reads JSON only whole, pandas only as Python objects: both are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..histories import JSON_PRODUCT
from ..receipts import write_json_receipts
from ..task import Inputs, Settings, Task
from .ingest import QUICK_LINES, IngestTask, known_checksum

__all__ = ["TASK", "JsonLinesTask"]

_SAMPLE_LINES = 20_000


class JsonLinesTask(IngestTask):
    """See the module's text."""

    name = "jsonlines"
    title = "jsonlines: raw receipts (JSON lines) to histories sorted by customer and time"
    systems: Mapping[str, tuple[str, ...]] = {
        "luckyfast": ("luckyfast.ingestion.run",),
        "polars": ("polars",),
        "duckdb": ("duckdb",),
    }
    default_runs = (5, 1)

    def prepare(self, cache: Path, settings: Settings) -> Inputs:
        """Write the log (in the quick form its first lines), and tell the right checksum from the receipts."""
        n_lines, scale = (QUICK_LINES, 1) if settings.quick else (None, settings.scale)
        log = cache / ("jsonlines-quick.jsonl" if settings.quick else f"jsonlines-x{scale}.jsonl")
        sample = cache / "sample.jsonl"
        if not log.exists():
            write_json_receipts(log, nested=JSON_PRODUCT, scale=scale, n_lines=n_lines)
        with log.open("rb") as file:
            if not sample.exists():
                sample.write_bytes(b"".join(file.readline() for _ in range(_SAMPLE_LINES)))
            while file.read(1 << 24):  # so that every system finds the file in the page cache
                pass
        values = {"memory_bytes": settings.memory_bytes, "n_threads": settings.n_threads, "scale": scale}
        return Inputs(
            values={**values, "jsonl": str(log)},
            expected=known_checksum(log, scale, n_lines),
            n_bytes=log.stat().st_size,
            warm_up={**values, "jsonl": str(sample)},
        )


TASK: Task = JsonLinesTask()
