"""Sources as blocks of bytes that begin and end at record borders, and the index of each block.

Blocks are read into buffers that are used again and again; mapped files would count as memory. A compressed source is
read in order by one worker at a time (`SourceReader`); for plain files see `slices`.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, BinaryIO, Protocol

import numpy as np

from luckyfast import _engine
from luckyfast.ingestion.encodings import encode_text, encoded_bytes
from luckyfast.ingestion.plan import FilePlan, Source
from luckyfast.ingestion.sources import open_source

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from luckyfast.ingestion.slices import Slice

__all__ = ["KEPT_OF_LONG_ROW", "MAX_RECORD_BYTES", "SCRATCH_BYTES", "Block", "Original", "SourceReader", "Workspace"]

MAX_RECORD_BYTES = 1 << 22
"""Longer rows are rejected, and a quote open for longer was opened by mistake; no block size moves this border."""

KEPT_OF_LONG_ROW = 1 << 16
SCRATCH_BYTES = 1 << 16
_NEWLINE = 10


class Workspace:
    """What one worker reads into, used again for block after block.

    Attributes:
        buffer: uint8, room for a block, the line end that a file may lack, what wide loads read too much, and scratch.
        separators, row_stops: uint32, the index of the block; room for every byte to be a separator.
        rest: left by a source that has not yet given out all of its part, for itself.

    Args:
        block_bytes: size of most blocks.
    """

    def __init__(self, block_bytes: int) -> None:
        # what is read of the next block with it must fit too, or buffers would come and go
        self._n_usual = block_bytes + block_bytes // 32 + 1024 + 2 * _engine.SLACK + SCRATCH_BYTES
        self.rest: Slice | None = None
        self._allocate(self._n_usual)

    def _allocate(self, n_bytes: int) -> None:
        self.buffer = np.zeros(n_bytes, np.uint8)
        self.separators, self.row_stops = np.empty(n_bytes, np.uint32), np.empty(n_bytes, np.uint32)

    def make_room(self, n_bytes: int, n_kept: int = 0) -> None:
        """See that `n_bytes` fit into the buffer; its first `n_kept` bytes stay."""
        if len(self.buffer) < n_bytes + 2 * _engine.SLACK + SCRATCH_BYTES:
            kept = self.buffer[:n_kept].copy()
            self._allocate(2 * n_bytes + 2 * _engine.SLACK + SCRATCH_BYTES)
            self.buffer[:n_kept] = kept

    def shrink(self) -> None:
        """Give back what an unusually long record took."""
        if len(self.buffer) > self._n_usual:
            self._allocate(self._n_usual)


class Original(Protocol):
    """What the rows of a block were before only the needed values of them were taken."""

    def take(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], list[bytes]]:
        """Offsets in the source, and the raw bytes, of rows that are counted from the block's first."""


@dataclass
class Block:
    """Complete records of one source, indexed.

    Attributes:
        source: index of the source.
        offset, n_bytes: which bytes of the decompressed source it stands for.
        workspace: its buffer holds the records.
        scratch: from here on the buffer has room for the parser.
        rows: (first, stop) in the workspace's index.
        row_start: where the first of them begins in the buffer; the blocks's line numbers count from it.
        n_lines: line ends in the block.
        has_escapes: quoted fields need more than their two quotes taken off.
        origin: offset in the source of the buffer's first byte.
        long_row: the first bytes of a row too long to be read, which then is all that the block holds.
        original: where the records of the buffer come from, if they are not those of the source.
        is_projected: its rows hold the needed values of JSON lines alone.
    """

    source: int
    offset: int
    n_bytes: int
    workspace: Workspace
    scratch: int = 0
    rows: tuple[int, int] = (0, 0)
    row_start: int = 0
    n_lines: int = 0
    has_escapes: bool = False
    origin: int = 0
    long_row: bytes | None = None
    original: Original | None = None
    is_projected: bool = False


def row_bounds(block: Block, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where some rows begin and end in the buffer of their block, whose first row is number 0."""
    workspace, numbers = block.workspace, block.rows[0] + rows
    last = np.uint32(_engine.UNCLOSED - 1)
    ends = workspace.separators[(workspace.row_stops[numbers] & last) - np.uint32(1)].astype(np.int64)
    before = workspace.separators[(workspace.row_stops[np.maximum(numbers, 1) - 1] & last) - np.uint32(1)]
    return np.where(rows == 0, block.row_start, before.astype(np.int64) + 1), ends


class _Decoded:
    """The rows of a block of decoded text as they stand in the file; `start` is where the block begins there."""

    def __init__(self, block: Block, source: Source, start: int) -> None:
        self._block = block
        self._source = source
        self._start = start

    def take(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], list[bytes]]:
        """See `Original`."""
        encoding, buffer = self._source.encoding, self._block.workspace.buffer
        starts, ends = row_bounds(self._block, rows)
        widths = [encoded_bytes(buffer[i:j], encoding) for i, j in pairwise([0, *starts.tolist()])]
        raws = [
            encode_text(buffer[i:j].tobytes(), encoding, self._source.line_end)
            for i, j in zip(starts.tolist(), ends.tolist(), strict=True)
        ]
        return self._start + np.cumsum(np.array(widths, np.int64)), raws


def long_row_block(source: int, offset: int, n_bytes: int, workspace: Workspace) -> Block:
    """The block of one row that is too long; the buffer holds its beginning."""
    beginning = workspace.buffer[:KEPT_OF_LONG_ROW].tobytes()
    return Block(source, offset, n_bytes, workspace, n_lines=1, long_row=beginning)


class SourceReader:
    """One open source, read in order.

    `next_block` must be called by one thread at a time; `index` needs no such turn.

    Args:
        source: index of the source.
        plan: what to read.
        block_bytes: size of most blocks.
        start: offset of the first record to read, where an earlier run has come to; after the header if None.
    """

    def __init__(self, source: int, plan: FilePlan, block_bytes: int, start: int | None = None) -> None:
        if 2 * block_bytes > MAX_RECORD_BYTES:
            raise ValueError("blocks must be at most half as long as the longest record")
        self.source = source
        self.header_lines = 0
        self._plan = plan
        self._block_bytes = block_bytes
        self._stack = ExitStack()
        self._stream: BinaryIO | None = None
        self._file: BinaryIO | None = None
        self._carry = np.zeros(0, np.uint8)
        self._offset = plan.dialect.header_stop if start is None else start
        self._goes_on = start is not None
        self._is_decoded = plan.source.encoding != "utf-8" or plan.source.line_end != "lf"
        self._n_encoded = 0
        self._at_eof = False
        self._lacks_line_end = False

    @property
    def is_open(self) -> bool:
        """Whether reading has begun."""
        return self._stream is not None

    @property
    def disk_bytes(self) -> int:
        """How much of the file on disk has been read; after its end, all of it."""
        size = self._plan.source.size_bytes
        if self._file is None or self._file.closed:
            return size if self._at_eof else 0
        return min(self._file.tell(), size)

    def read(self, workspace: Workspace) -> Block | None:
        """The next block, indexed; None at the end of the source."""
        found = self.cut(workspace)
        return self.index(*found) if found is not None else None

    def cut(self, workspace: Workspace) -> tuple[Block, int, bool] | None:
        """The next block, where it ends in the buffer, and whether its first line opens a quote by mistake."""
        try:
            with self._stack:
                found = self._cut(workspace)
                if found is not None:
                    self._stack = self._stack.pop_all()
                return found
        except BaseException:
            self._at_eof = True
            raise

    def index(self, block: Block, stop: int, first_unclosed: bool) -> Block:
        """Index a block that was cut."""
        if block.long_row is None:
            dialect, workspace = self._plan.dialect, block.workspace
            quote = -1 if dialect.quote is None else dialect.quote
            n_rows, block.n_lines, block.has_escapes = _engine.scan(
                workspace.buffer,
                0,
                stop,
                first_unclosed,
                dialect.delimiter,
                quote,
                workspace.separators,
                workspace.row_stops,
            )
            block.rows = (0, n_rows)
        return block

    def close(self) -> None:
        """Close the source before its end."""
        self._stack.close()

    def _open(self) -> BinaryIO:
        stream = self._stack.enter_context(open_source(self._plan.source, self._note_file))
        left = self._offset
        while left > 0 and (piece := stream.read(min(left, 1 << 16))):
            self.header_lines += 0 if self._goes_on else piece.count(b"\n")
            self._count_encoded(np.frombuffer(piece, np.uint8))
            left -= len(piece)
        return stream

    def _note_file(self, file: BinaryIO) -> None:
        self._file = file

    def _cut(self, workspace: Workspace) -> tuple[Block, int, bool] | None:
        if self._stream is None:
            self._stream = self._open()
        first_unclosed = False
        n = len(self._carry)
        workspace.make_room(n)
        workspace.buffer[:n] = self._carry
        while True:
            if not self._at_eof and n < MAX_RECORD_BYTES:
                wanted = min(self._block_bytes, MAX_RECORD_BYTES - n)
                workspace.make_room(n + wanted, n)
                got = self._fill(workspace, n, wanted)
                n += got
                self._at_eof = got < wanted
                if self._at_eof and n > 0 and workspace.buffer[n - 1] != _NEWLINE:
                    self._lacks_line_end = True
                    workspace.buffer[n] = _NEWLINE
                    n += 1
            if n == 0:
                return None
            dialect = self._plan.dialect
            quote = -1 if dialect.quote is None else dialect.quote
            stop = _engine.find_boundary(workspace.buffer, 0, n, self._at_eof, first_unclosed, dialect.delimiter, quote)
            if stop > 0:
                n_bytes = stop - (self._lacks_line_end and stop == n)
                block = Block(self.source, self._offset, n_bytes, workspace, n + _engine.SLACK, origin=self._offset)
                if self._is_decoded:
                    block.original = _Decoded(block, self._plan.source, self._n_encoded)
                    self._count_encoded(workspace.buffer[:n_bytes])
                self._carry = workspace.buffer[stop:n].copy()
                self._offset += stop
                return block, stop, first_unclosed
            if n >= MAX_RECORD_BYTES:
                if (workspace.buffer[:n] == _NEWLINE).any():
                    first_unclosed = True
                else:
                    return self._skip_line(workspace, n), 0, False

    def _skip_line(self, workspace: Workspace, n: int) -> Block:
        """Read on to the end of a line that is too long, of which the buffer holds the first `n` bytes."""
        piece = np.zeros(self._block_bytes, np.uint8)
        self._carry = piece[:0]
        self._count_encoded(workspace.buffer[:n])
        while not self._at_eof and not len(self._carry):
            got = self._read(memoryview(piece))  # type: ignore[arg-type]
            self._at_eof = got < len(piece)
            line_ends = np.flatnonzero(piece[:got] == _NEWLINE)
            self._count_encoded(piece[: int(line_ends[0]) + 1] if len(line_ends) else piece[:got])
            if len(line_ends):
                n += int(line_ends[0]) + 1
                self._carry = piece[int(line_ends[0]) + 1 : got].copy()
                break
            n += got
        block = long_row_block(self.source, self._offset, n, workspace)
        self._offset += n
        return block

    def _count_encoded(self, text: NDArray[np.uint8]) -> None:
        if self._is_decoded:
            self._n_encoded += encoded_bytes(text, self._plan.source.encoding)

    def _fill(self, workspace: Workspace, n: int, wanted: int) -> int:
        return self._read(memoryview(workspace.buffer)[n : n + wanted])  # type: ignore[arg-type]

    def _read(self, room: memoryview) -> int:
        n = 0
        while n < len(room):
            got = self._stream.readinto(room[n:])  # type: ignore[union-attr]
            if not got:
                break
            n += got
        return n
