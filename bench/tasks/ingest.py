"""Raw receipts to histories sorted by customer and time, on disk.

The input is the Complete Journey log as one CSV file (17 columns, of which 4 are needed; 208 MB times the scale). The
same end result is asked of every system: the lines without a product category dropped, one record per household with
its baskets in the order of time, and for each basket its time, its id, its distinct categories and how often each was
bought.

Each peer is used in the fastest way that was found for it, and is told what luckyfast has to find out (the types, and
for polars the format of the times, which makes it twice as fast as guessing). Formulations that were tried (seconds
on two cores, 208 MB, one sitting; the kept one first):

- polars 2.1, streaming engine: count per (household, time, basket, category), gather per basket, gather per household
  and sort inside its lists, categories as Categorical, uncompressed Arrow file: 0.51. The same with categories as
  strings 0.58; with a global sort before the last grouping 0.63, with strings too 0.75; both groupings order-
  preserving after one sort 0.70; times parsed only once per basket 0.64 to 0.95; dates guessed 1.53; Parquet output
  1.58 (dates guessed); in-memory engine 2.24 (dates guessed); `value_counts` 1.79 (dates guessed). Only sorting the
  flat lines by household, time and basket, without gathering them: 0.58.
- DuckDB 2.0, insertion order not preserved: count, gather per basket, `list_sort` over one list of structs per
  household, with the columns' types given: 1.06. A list with ORDER BY of structs 1.22, four lists with ORDER BY each
  1.4, types inferred 1.4, `histogram` 1.5. Only sorting the flat lines: 0.71.
- pyarrow: counts per (household, time, basket, category) by `group_by`, one `sort_by`, borders found with NumPy.
- pandas: the pyarrow reader and types, `groupby` for the counts, the same borders.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from luckyfast.config import available_memory

from ..checksum import HistoryChecksum, hash_names
from ..histories import READERS, WRITERS
from ..receipts import COLUMNS, CUSTOMER_SHIFT, read_receipts, write_receipts
from ..task import Inputs, Settings, Task

__all__ = ["QUICK_LINES", "TASK", "IngestTask", "expected_checksum", "known_checksum"]

QUICK_LINES = 500_000
"""Receipt lines in the quick form of tasks whose log takes long to write."""

_SAMPLE_LINES = 20_000


class IngestTask:
    """See the module's text."""

    name = "ingest"
    title = "ingest: raw receipts (CSV) to histories sorted by customer and time"
    systems: Mapping[str, tuple[str, ...]] = {
        "luckyfast": ("luckyfast.ingestion.run",),
        "polars": ("polars",),
        "duckdb": ("duckdb",),
        "pyarrow": ("pyarrow.csv",),
        "pandas": ("pandas", "pyarrow.csv"),
    }
    default_runs = (5, 2)

    def prepare(self, cache: Path, settings: Settings) -> Inputs:
        """Write the log `settings.scale` times over, and tell the right checksum from the receipts themselves."""
        csv = cache / f"receipts-x{settings.scale}.csv"
        sample = cache / "receipts-sample.csv"
        if not csv.exists():
            write_receipts(csv, scale=settings.scale)
        with csv.open("rb") as file:
            if not sample.exists():
                sample.write_bytes(b"".join(file.readline() for _ in range(_SAMPLE_LINES)))
            if csv.stat().st_size < available_memory() // 2:
                while file.read(1 << 24):  # so that every system finds the file in the page cache
                    pass
        values = {"memory_bytes": settings.memory_bytes, "n_threads": settings.n_threads, "scale": settings.scale}
        return Inputs(
            values={**values, "csv": str(csv)},
            expected=known_checksum(csv, settings.scale),
            n_bytes=csv.stat().st_size,
            warm_up={**values, "csv": str(sample)},
        )

    def run(self, system: str, values: Mapping[str, Any], out: Path) -> Mapping[str, float]:
        """Write the histories of the log into `out`."""
        return WRITERS[system](values, out) or {}

    def check(self, system: str, values: Mapping[str, Any], out: Path) -> str:
        """Add up the histories in `out`."""
        del values
        total = HistoryChecksum()
        for block in READERS[system](out):
            total.add(
                block.customers, block.visit_start, block.visit_time, block.action_start, block.actions, block.counts
            )
        return str(total)


def known_checksum(log: Path, scale: int, n_lines: int | None = None) -> str:
    """The `expected_checksum` of a log, which is kept beside it."""
    kept = log.with_suffix(".json")
    if not kept.exists():
        kept.write_text(json.dumps({"checksum": expected_checksum(scale, n_lines)}), encoding="utf-8")
    checksum: str = json.loads(kept.read_text(encoding="utf-8"))["checksum"]
    return checksum


def expected_checksum(scale: int, n_lines: int | None = None) -> str:
    """The checksum of the log's histories, straight from the receipts and with NumPy alone.

    Args:
        scale: number of copies in the log.
        n_lines: so many of the first receipt lines; None for all.

    Returns:
        What `HistoryChecksum` shows for a right result.
    """
    columns = [COLUMNS[role] for role in ("customer", "visit", "time", "action")]
    lines = read_receipts(columns).slice(0, n_lines).drop_null()
    customer, visit = (lines[name].to_numpy() for name in columns[:2])
    time_us = lines[columns[2]].to_numpy().astype("datetime64[us]").astype(np.int64)
    names, action = np.unique(lines[columns[3]].to_numpy(zero_copy_only=False).astype(str), return_inverse=True)
    order = np.lexsort((action, visit, time_us, customer))
    keys = np.stack([customer, time_us, visit, action])[:, order]
    changed = keys[:, 1:] != keys[:, :-1]
    starts = [np.flatnonzero(np.append(True, changed[:depth].any(axis=0))) for depth in (1, 3, 4)]
    customer_start, visit_first, pair_first = starts
    counts = np.diff(np.append(pair_first, keys.shape[1]))
    total = HistoryChecksum()
    for copy in range(scale):
        total.add(
            hash_names(keys[0, customer_start] + copy * CUSTOMER_SHIFT),
            np.searchsorted(visit_first, np.append(customer_start, keys.shape[1])),
            keys[1, visit_first],
            np.searchsorted(pair_first, np.append(visit_first, keys.shape[1])),
            hash_names(names)[keys[3, pair_first]],
            counts,
        )
    return str(total)


TASK: Task = IngestTask()
