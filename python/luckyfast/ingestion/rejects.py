"""Rejected rows: each keeps its source, byte offset, line, reason and raw bytes; nothing is lost silently."""

from __future__ import annotations

import pickle
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from luckyfast.ingestion.columns import flat_column, repeated_column, slice_column

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["REASONS", "BlockReport", "RejectLog", "Rejects", "write_rejects"]

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

_HELD_BYTES = 4 << 20
_GROUP_BYTES = 2 << 20
_GROUP_ROWS = 1 << 14
_N_EXAMPLES = 3


class Rejects(NamedTuple):
    """Rejected rows of one source, in order.

    `line` counts the lines before the row, in its block or, once logged, in its source; `raw` holds the bytes of all
    rows, `size` of them each.
    """

    offset: NDArray[np.int64]
    line: NDArray[np.int64]
    reason: NDArray[np.uint8]
    size: NDArray[np.int64]
    raw: NDArray[np.uint8]

    @classmethod
    def of_long_row(cls, offset: int, beginning: bytes) -> Rejects:
        """The one reject of a row that is too long to be kept whole."""
        one = (np.array([value], np.int64) for value in (offset, 0, len(beginning)))
        at, line, size = one
        reason = np.array([REASONS.index("too_long")], np.uint8)
        return cls(at, line, reason, size, np.frombuffer(beginning, np.uint8))

    def cut(self, first: int, stop: int) -> Rejects:
        """The rejects first:stop."""
        start = int(self.size[:first].sum())
        raw = self.raw[start : start + int(self.size[first:stop].sum())]
        return Rejects(
            self.offset[first:stop], self.line[first:stop], self.reason[first:stop], self.size[first:stop], raw
        )


@dataclass
class BlockReport:
    """What became of one block."""

    source: int
    sequence: int
    n_bytes: int
    n_rows: int = 0
    n_lines: int = 0
    filtered: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    rejects: list[Rejects] = field(default_factory=list)

    @property
    def n_rejected(self) -> int:
        """Rejected rows of the block."""
        return sum(len(part.offset) for part in self.rejects)


@dataclass
class _SourceLog:
    n_lines: int = 0
    n_rows: int = 0
    n_rejected: int = 0
    next_sequence: int = 0
    held: list[Rejects] = field(default_factory=list)
    early: dict[int, BlockReport] = field(default_factory=dict)
    spooled: bool = False


class RejectLog:
    """Collects the reports of all blocks, in any order, in bounded memory.

    Args:
        n_sources: how many sources there are.
        folder: where rejects wait that are too many to hold in memory.
        n_rules: how many rules leave rows out.
    """

    def __init__(self, n_sources: int, folder: Path, n_rules: int = 0) -> None:
        self.n_rows = 0
        self.filtered = np.zeros(n_rules, np.int64)
        self.n_rejected = 0
        self.n_bytes = 0
        self._n_of_reason = np.zeros(len(REASONS), np.int64)
        self._folder = folder
        self._sources = [_SourceLog() for _ in range(n_sources)]
        self._n_held = 0
        self._lock = threading.Lock()

    @property
    def by_reason(self) -> Counter[str]:
        """Reason to number of rows."""
        return Counter({reason: n for reason, n in zip(REASONS, self._n_of_reason.tolist(), strict=True) if n})

    def begin(self, source: int, n_header_lines: int) -> None:
        """Tell how many lines come before the first block of a source."""
        with self._lock:
            self._sources[source].n_lines += n_header_lines

    def add(self, report: BlockReport) -> None:
        """Take in the report of one block."""
        with self._lock:
            n_rejected = report.n_rejected
            self.n_rows += report.n_rows
            if len(report.filtered):
                self.filtered += report.filtered
            self.n_rejected += n_rejected
            self.n_bytes += report.n_bytes
            log = self._sources[report.source]
            log.n_rows += report.n_rows
            log.n_rejected += n_rejected
            log.early[report.sequence] = report
            while (ready := log.early.pop(log.next_sequence, None)) is not None:
                for part in ready.rejects:
                    log.held.append(part._replace(line=part.line + (log.n_lines + 1)))
                    self._n_of_reason += np.bincount(part.reason, minlength=len(REASONS))
                    self._n_held += sum(column.nbytes for column in part)
                log.n_lines += ready.n_lines
                log.next_sequence += 1
            if self._n_held > _HELD_BYTES:
                self._spool()

    def source_counts(self, source: int) -> tuple[int, int]:
        """Rows and rejected rows of a source."""
        return self._sources[source].n_rows, self._sources[source].n_rejected

    def __iter__(self) -> Iterator[tuple[int, Rejects]]:
        """All rejects, by source and position."""
        for index, log in enumerate(self._sources):
            if log.spooled:
                with self._path(index).open("rb") as spool:
                    while spool.peek(1):
                        yield index, Rejects(*pickle.load(spool))
            for part in log.held:
                yield index, part

    def _spool(self) -> None:
        for index, log in enumerate(self._sources):
            if log.held:
                with self._path(index).open("ab") as spool:
                    for part in log.held:
                        pickle.dump(tuple(part), spool, protocol=5)
                log.held.clear()
                log.spooled = True
        self._n_held = 0

    def _path(self, index: int) -> Path:
        return self._folder / f"rejects-{index}.pickle"


def write_rejects(log: RejectLog, names: Sequence[str], path: Path) -> dict[str, list[tuple[str, int, bytes]]]:
    """Write all rejects as Parquet, in groups of rows that depend on the rejects alone.

    Args:
        log: the collected rejects.
        names: what to call each source.
        path: the file to write.

    Returns:
        For each reason the first few rejects as (source, line, raw bytes).
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {
        "source": pa.string(),
        "byte_offset": pa.int64(),
        "line": pa.int64(),
        "reason": pa.string(),
        "raw": pa.binary(),
    }
    schema = pa.schema([pa.field(name, kind) for name, kind in kinds.items()])
    examples: dict[str, list[tuple[str, int, bytes]]] = {}
    with pq.ParquetWriter(path, schema, use_dictionary=["source", "reason"]) as writer:
        group: list[tuple[int, Rejects]] = []
        n_rows = n_bytes = 0

        def flush() -> None:
            nonlocal n_rows, n_bytes
            tables = [_to_table(names[source], part, schema) for source, part in group]
            writer.write_table(pa.concat_tables(tables).combine_chunks(), row_group_size=_GROUP_ROWS)
            group.clear()
            n_rows = n_bytes = 0

        for source, rejects in log:
            _add_examples(examples, names[source], rejects)
            first, n = 0, len(rejects.offset)
            while first < n:
                held = np.cumsum(rejects.size[first:])
                full = int(np.searchsorted(held, _GROUP_BYTES - n_bytes, side="left")) + 1
                stop = min(n, first + full, first + _GROUP_ROWS - n_rows)
                group.append((source, rejects.cut(first, stop)))
                n_rows += stop - first
                n_bytes += int(held[stop - first - 1])
                first = stop
                if n_rows >= _GROUP_ROWS or n_bytes >= _GROUP_BYTES:
                    flush()
        if group:
            flush()
    return examples


def _to_table(name: str, rejects: Rejects, schema: Any) -> Any:
    import pyarrow as pa

    columns = [
        repeated_column(np.zeros(len(rejects.offset), np.int8), [name.encode()]),
        flat_column(rejects.offset, pa.int64()),
        flat_column(rejects.line, pa.int64()),
        repeated_column(rejects.reason, [reason.encode() for reason in REASONS]),
        slice_column(rejects.raw, rejects.size, pa.binary()),
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _add_examples(examples: dict[str, list[tuple[str, int, bytes]]], name: str, rejects: Rejects) -> None:
    for reason in np.unique(rejects.reason).tolist():
        shown = examples.setdefault(REASONS[reason], [])
        for i in np.flatnonzero(rejects.reason == reason)[: _N_EXAMPLES - len(shown)].tolist():
            one = rejects.cut(i, i + 1)
            shown.append((name, int(one.line[0]), one.raw.tobytes()))
