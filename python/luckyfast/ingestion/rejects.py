"""Rejected rows: each keeps its source, byte offset, line, reason and raw bytes; nothing is lost silently."""

from __future__ import annotations

import os
import pickle
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
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
    "bad_json",
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
    """What became of one block, that is, of `n_bytes` of a source from `offset` on."""

    source: int
    offset: int
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
    next_offset: int = 0
    held: list[Rejects] = field(default_factory=list)
    early: dict[int, BlockReport] = field(default_factory=dict)
    spooled: bool = False


class RejectLog:
    """Collects the reports of all blocks, in any order, in bounded memory.

    Args:
        first_offsets: for each source where its first block begins.
        folder: where rejects wait that are too many to hold in memory.
        n_rules: how many rules leave rows out.
    """

    def __init__(self, first_offsets: Sequence[int], folder: Path, n_rules: int = 0) -> None:
        self.n_rows = 0
        self.filtered = np.zeros(n_rules, np.int64)
        self.n_rejected = 0
        self.n_bytes = 0
        self._n_of_reason = np.zeros(len(REASONS), np.int64)
        self._folder = folder
        self._sources = [_SourceLog(next_offset=offset) for offset in first_offsets]
        self._n_held = 0
        self._n_early = 0
        self._stopped = False
        self._change = threading.Condition()

    @property
    def by_reason(self) -> Counter[str]:
        """Reason to number of rows."""
        return Counter({reason: n for reason, n in zip(REASONS, self._n_of_reason.tolist(), strict=True) if n})

    def begin(self, source: int, n_header_lines: int) -> None:
        """Tell how many lines come before the first block of a source."""
        with self._change:
            self._sources[source].n_lines += n_header_lines

    def add(self, report: BlockReport) -> None:
        """Take in the report of one block; one that comes far too early has to wait for those before it."""
        log = self._sources[report.source]
        n_early = sum(column.nbytes for part in report.rejects for column in part)
        with self._change:
            while self._n_early + n_early > _HELD_BYTES and report.offset != log.next_offset and not self._stopped:
                self._change.wait()
            n_rejected = report.n_rejected
            self.n_rows += report.n_rows
            if len(report.filtered):
                self.filtered += report.filtered
            self.n_rejected += n_rejected
            self.n_bytes += report.n_bytes
            log.n_rows += report.n_rows
            log.n_rejected += n_rejected
            log.early[report.offset] = report
            self._n_early += n_early
            while (ready := log.early.pop(log.next_offset, None)) is not None:
                for part in ready.rejects:
                    log.held.append(part._replace(line=part.line + (log.n_lines + 1)))
                    self._n_of_reason += np.bincount(part.reason, minlength=len(REASONS))
                    n_bytes = sum(column.nbytes for column in part)
                    self._n_held += n_bytes
                    self._n_early -= n_bytes
                log.n_lines += ready.n_lines
                log.next_offset += ready.n_bytes
                self._change.notify_all()
            if self._n_held > _HELD_BYTES:
                self._spool()

    def to_arrays(self) -> tuple[dict[str, NDArray[Any]], list[Path]]:
        """All of it as arrays, for a checkpoint while no report is missing; and the files where the rejects lie."""
        with self._change:
            self._spool()
            logs = self._sources
            files = [self._path(i) for i, log in enumerate(logs) if log.spooled]
            spooled = [self._path(i).stat().st_size if log.spooled else 0 for i, log in enumerate(logs)]
            sources = [
                (log.next_offset, log.n_lines, log.n_rows, log.n_rejected, n)
                for log, n in zip(logs, spooled, strict=True)
            ]
            return {
                "sources": np.array(sources, np.int64),
                "filtered": self.filtered.copy(),
                "n_of_reason": self._n_of_reason.copy(),
                "log_bytes": np.array(self.n_bytes),
            }, files

    def next_offsets(self) -> list[int]:
        """For each source, up to where all of it has come in."""
        return [log.next_offset for log in self._sources]

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Become what `to_arrays` has written down; rejects that came later are cut off."""
        self.filtered, self._n_of_reason = state["filtered"], state["n_of_reason"]
        self.n_bytes = int(state["log_bytes"])
        for i, (log, values) in enumerate(zip(self._sources, state["sources"].tolist(), strict=True)):
            first_offset = log.next_offset
            log.next_offset, log.n_lines, log.n_rows, log.n_rejected, n_spooled = values
            log.spooled = n_spooled > 0
            if log.next_offset == first_offset:
                log.n_lines = 0  # its header will be read again
            if log.spooled:
                os.truncate(self._path(i), n_spooled)
        self.n_rows = sum(log.n_rows for log in self._sources)
        self.n_rejected = sum(log.n_rejected for log in self._sources)

    def stop(self) -> None:
        """Let nobody wait for a report that will not come."""
        with self._change:
            self._stopped = True
            self._change.notify_all()

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
            writer.write_table(_to_table(names, group, schema), row_group_size=_GROUP_ROWS)
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


def _to_table(names: Sequence[str], group: Sequence[tuple[int, Rejects]], schema: Any) -> Any:
    import pyarrow as pa

    joined = Rejects(*(np.concatenate(column) for column in zip(*(part for _, part in group), strict=True)))
    sources = [source for source, _ in group]
    known, choices = np.unique(sources, return_inverse=True)
    columns = [
        repeated_column(
            np.repeat(choices, [len(part.offset) for _, part in group]), [names[i].encode() for i in known.tolist()]
        ),
        flat_column(joined.offset, pa.int64()),
        flat_column(joined.line, pa.int64()),
        repeated_column(joined.reason, [reason.encode() for reason in REASONS]),
        slice_column(joined.raw, joined.size, pa.binary()),
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _add_examples(examples: dict[str, list[tuple[str, int, bytes]]], name: str, rejects: Rejects) -> None:
    for reason in np.flatnonzero(np.bincount(rejects.reason)).tolist():
        shown = examples.setdefault(REASONS[reason], [])
        if len(shown) == _N_EXAMPLES:
            continue
        for i in np.flatnonzero(rejects.reason == reason)[: _N_EXAMPLES - len(shown)].tolist():
            one = rejects.cut(i, i + 1)
            shown.append((name, int(one.line[0]), one.raw.tobytes()))
