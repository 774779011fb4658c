"""Rejected rows: each keeps its source, byte offset, line, reason and raw bytes; nothing is lost silently."""

from __future__ import annotations

import pickle
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

__all__ = ["REASONS", "BlockReport", "Reject", "RejectLog", "write_rejects"]

REASONS = (
    "unclosed_quote",
    "field_count",
    "missing_customer",
    "missing_time",
    "bad_time",
    "missing_action",
    "unmatched_lookup",
    "bad_encoding",
    "too_long",
)
"""In the order in which they are looked for: a row with several faults is counted under the first."""

_HELD_BYTES = 8 << 20
_GROUP_BYTES = 8 << 20
_GROUP_ROWS = 1 << 16
_N_EXAMPLES = 3


class Reject(NamedTuple):
    """One rejected row: `line` counts the lines before it, in its block or its source."""

    offset: int
    line: int
    reason: int
    raw: bytes


@dataclass
class BlockReport:
    """What became of one block."""

    source: int
    sequence: int
    n_bytes: int
    n_rows: int = 0
    n_lines: int = 0
    rejects: list[Reject] = field(default_factory=list)


@dataclass
class _SourceLog:
    n_lines: int = 0
    n_rows: int = 0
    n_rejected: int = 0
    next_sequence: int = 0
    held: list[Reject] = field(default_factory=list)
    early: dict[int, BlockReport] = field(default_factory=dict)
    spooled: bool = False


class RejectLog:
    """Collects the reports of all blocks, in any order, in bounded memory.

    Args:
        n_sources: how many sources there are.
        folder: where rejects wait that are too many to hold in memory.
    """

    def __init__(self, n_sources: int, folder: Path) -> None:
        self.by_reason: Counter[str] = Counter()
        self.n_rows = 0
        self.n_rejected = 0
        self.n_bytes = 0
        self._folder = folder
        self._sources = [_SourceLog() for _ in range(n_sources)]
        self._n_held = 0
        self._lock = threading.Lock()

    def begin(self, source: int, n_header_lines: int) -> None:
        """Tell how many lines come before the first block of a source."""
        with self._lock:
            self._sources[source].n_lines += n_header_lines

    def add(self, report: BlockReport) -> None:
        """Take in the report of one block."""
        with self._lock:
            self.n_rows += report.n_rows
            self.n_rejected += len(report.rejects)
            self.n_bytes += report.n_bytes
            log = self._sources[report.source]
            log.n_rows += report.n_rows
            log.n_rejected += len(report.rejects)
            log.early[report.sequence] = report
            while (ready := log.early.pop(log.next_sequence, None)) is not None:
                for reject in ready.rejects:
                    log.held.append(reject._replace(line=log.n_lines + reject.line + 1))
                    self.by_reason[REASONS[reject.reason]] += 1
                    self._n_held += len(reject.raw) + 200
                log.n_lines += ready.n_lines
                log.next_sequence += 1
            if self._n_held > _HELD_BYTES:
                self._spool()

    def source_counts(self, source: int) -> tuple[int, int]:
        """Rows and rejected rows of a source."""
        return self._sources[source].n_rows, self._sources[source].n_rejected

    def __iter__(self) -> Iterator[tuple[int, Reject]]:
        """All rejects, by source and position."""
        for index, log in enumerate(self._sources):
            if log.spooled:
                with self._path(index).open("rb") as spool:
                    while spool.peek(1):
                        for reject in pickle.load(spool):
                            yield index, Reject(*reject)
            for reject in log.held:
                yield index, reject

    def _spool(self) -> None:
        for index, log in enumerate(self._sources):
            if log.held:
                with self._path(index).open("ab") as spool:
                    pickle.dump([tuple(reject) for reject in log.held], spool)
                log.held.clear()
                log.spooled = True
        self._n_held = 0

    def _path(self, index: int) -> Path:
        return self._folder / f"rejects-{index}.pickle"


def write_rejects(log: RejectLog, names: Sequence[str], path: Path) -> dict[str, list[tuple[str, int, bytes]]]:
    """Write all rejects as Parquet.

    Args:
        log: the collected rejects.
        names: what to call each source.
        path: the file to write.

    Returns:
        For each reason the first few rejects as (source, line, raw bytes).
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        [
            pa.field("source", pa.string()),
            pa.field("byte_offset", pa.int64()),
            pa.field("line", pa.int64()),
            pa.field("reason", pa.string()),
            pa.field("raw", pa.binary()),
        ]
    )
    examples: dict[str, list[tuple[str, int, bytes]]] = {}
    with pq.ParquetWriter(path, schema) as writer:
        group: list[tuple[int, Reject]] = []
        n_bytes = 0

        def flush() -> None:
            columns = [
                [names[source] for source, _ in group],
                [reject.offset for _, reject in group],
                [reject.line for _, reject in group],
                [REASONS[reject.reason] for _, reject in group],
                [reject.raw for _, reject in group],
            ]
            arrays = [pa.array(column, f.type) for column, f in zip(columns, schema, strict=True)]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
            group.clear()

        for source, reject in log:
            seen = examples.setdefault(REASONS[reject.reason], [])
            if len(seen) < _N_EXAMPLES:
                seen.append((names[source], reject.line, reject.raw))
            group.append((source, reject))
            n_bytes += len(reject.raw)
            if len(group) >= _GROUP_ROWS or n_bytes >= _GROUP_BYTES:
                flush()
                n_bytes = 0
        if group:
            flush()
    return examples
