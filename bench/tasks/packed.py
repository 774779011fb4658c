"""Raw receipts in a gzip file to histories sorted by customer and time, beside the decompressor alone.

The input is the log of the `ingest` task as one gzip member (level 6), which can only be unpacked from its beginning by
one thread. `decompress` is ISA-L, which ingest uses too, and does nothing but unpack the file piece by piece: whatever
comes after it can only hide behind it. `zlib` is the same with Python's own gzip module.
"""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from ..task import Inputs, Settings, Task
from .ingest import QUICK_LINES, IngestTask, known_checksum

__all__ = ["TASK", "PackedTask"]

_PIECE = 1 << 20
_UNPACKERS = ("decompress", "zlib")


class PackedTask(IngestTask):
    """See the module's text."""

    name = "gzip"
    title = "gzip: raw receipts (CSV, gzip) to histories sorted by customer and time"
    systems: Mapping[str, tuple[str, ...]] = {
        "luckyfast": ("luckyfast.ingestion.run",),
        "decompress": ("isal.igzip",),
        "zlib": ("gzip",),
        "polars": ("polars",),
        "duckdb": ("duckdb",),
    }
    default_runs = (5, 1)

    def prepare(self, cache: Path, settings: Settings) -> Inputs:
        """Pack the log of the ingest task, in the quick form only its first lines."""
        inputs = super().prepare(cache, replace(settings, scale=1) if settings.quick else settings)
        log, sample, expected = Path(inputs.values["csv"]), cache / "receipts-sample.csv", inputs.expected
        if settings.quick:
            whole, log = log, cache / "receipts-quick.csv"
            if not log.exists():
                partial = log.with_suffix(".partial")
                with whole.open("rb") as file:
                    partial.write_bytes(b"".join(islice(file, QUICK_LINES + 1)))
                partial.rename(log)
            expected = known_checksum(log, 1, QUICK_LINES)
        packed = {path: path.with_suffix(".csv.gz") for path in (log, sample)}
        for plain, path in packed.items():
            if not path.exists():
                partial = path.with_suffix(".partial")
                with plain.open("rb") as source, gzip.open(partial, "wb", compresslevel=6) as target:
                    shutil.copyfileobj(source, target, _PIECE)
                partial.rename(path)
        n_bytes = log.stat().st_size
        values = {**inputs.values, "csv": str(packed[log]), "plain_bytes": n_bytes, "expected": expected}
        warm_up = {**values, "csv": str(packed[sample])}
        return Inputs(values, expected, n_bytes, warm_up)

    def run(self, system: str, values: Mapping[str, Any], out: Path) -> Mapping[str, float]:
        """Write the histories, or only count the bytes of the text."""
        if system not in _UNPACKERS:
            return super().run(system, values, out)
        if system == "decompress":
            from isal.igzip import open as open_packed
        else:
            from gzip import open as open_packed  # type: ignore[assignment]
        room, n = memoryview(bytearray(_PIECE)), 0
        with open_packed(values["csv"], "rb") as file:  # type: ignore[no-untyped-call]
            while got := file.readinto(room):
                n += got
        (out / "result.txt").write_text(str(n), encoding="utf-8")
        return {}

    def check(self, system: str, values: Mapping[str, Any], out: Path) -> str:
        """Add up the histories; of a decompressor alone only the number of bytes can be checked."""
        if system not in _UNPACKERS:
            return super().check(system, values, out)
        n = int((out / "result.txt").read_text(encoding="utf-8"))
        if n != values["plain_bytes"]:
            raise ValueError(f"only {n} bytes came out")
        return str(values["expected"])


TASK: Task = PackedTask()
