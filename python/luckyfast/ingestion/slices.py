"""Plain files that many workers read at once, each at its own place, with the same records as if read from the start.

A file is divided at fixed offsets; a slice holds the records that begin in it. Where its first record begins is only
known when the slice before it has been indexed, since a quote may still be open at the border. PERF: so a worker
guesses that none is (the first line end is a record's end), indexes its slice at once, and only then waits for the true
start. As quotes open only at the start of a field, a wrong guess falls back into step after a few lines: nearly always
the true start is one of the rows found, and the rows before it are dropped; otherwise the slice is indexed again.
"""

from __future__ import annotations

import os
import threading
from contextlib import ExitStack
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from luckyfast import _engine
from luckyfast.errors import InputError
from luckyfast.ingestion.plan import FilePlan
from luckyfast.ingestion.sources import open_source
from luckyfast.ingestion.stream import MAX_RECORD_BYTES, Block, Workspace, long_row_block

__all__ = ["Slice", "SlicedFile"]

_NEWLINE = 10
_PROBE_BYTES = 1 << 12


class Slice(NamedTuple):
    """What is left of a slice: from a record's start up to the first record that begins at `border` or behind it."""

    file: SlicedFile
    number: int
    start: int
    border: int


class SlicedFile:
    """One plain file.

    Args:
        source: index of the source.
        plan: what to read; it must not be compressed.
        slice_bytes: size of the slices.
        start: offset of the first record to read, where an earlier run has come to; after the header if None.
    """

    def __init__(self, source: int, plan: FilePlan, slice_bytes: int, start: int | None = None) -> None:
        self.source = source
        self.header_lines = 0
        self._plan = plan
        self._slice_bytes = slice_bytes
        self._tail_bytes = 16 + slice_bytes // 32
        self._stack = ExitStack()
        self._descriptor = -1
        self._size = 0
        self._n_slices = 0
        self._n_claimed = 0
        self._n_done = 0
        self._goes_on = start is not None
        self._first = plan.dialect.header_stop if start is None else start
        self._starts = {0: self._first}
        self._change = threading.Condition()
        self._stopped = False

    def open(self) -> None:
        """Open the file and count the lines of its header; what is appended to it later is not read."""
        self._descriptor = self._stack.enter_context(open_source(self._plan.source)).fileno()
        self._size = os.fstat(self._descriptor).st_size
        self._n_slices = max(0, -((self._first - self._size) // self._slice_bytes))
        if self._goes_on:
            return
        header = Workspace(self._plan.dialect.header_stop)
        n = min(self._plan.dialect.header_stop, self._size)
        self._read(header, 0, 0, n)
        self.header_lines = int((header.buffer[:n] == _NEWLINE).sum())

    @property
    def is_open(self) -> bool:
        """Whether the file has been opened."""
        return self._descriptor >= 0

    def claim(self) -> int | None:
        """The number of the next slice that nobody has; None when there is none."""
        with self._change:
            number = self._n_claimed
            if self._stopped or number >= self._n_slices:
                return None
            self._n_claimed += 1
            return number

    def read(self, workspace: Workspace, number: int) -> Block | None:
        """The first block of a claimed slice; None where no record begins in it, or after `stop`.

        There is more where it leaves something in `workspace.rest`, to be given to `read_on`.
        """
        border = min(self._border(number), self._size)
        # one byte before the slice tells whether a line begins with it
        origin = self._border(number - 1) - (number > 0)
        n = min(border + self._tail_bytes, self._size) - origin
        n = self._read(workspace, origin, 0, n)
        start = 0
        if number > 0:
            line_end = _find_line_end(workspace.buffer, border - origin)
            start = line_end + 1 if line_end >= 0 else n
        guessed = self._index(workspace, origin, start, n, border)
        true_start = self._await(number)
        if true_start is None:
            return None
        piece = Slice(self, number, true_start, border)
        if true_start >= border:
            self._finish(piece, true_start)
            return None
        block, stop = guessed
        if stop < border and stop < self._size:
            return self.read_on(workspace, piece)
        skipped = self._find_row(block, true_start - origin)
        if skipped is None:
            return self.read_on(workspace, piece)
        if skipped:
            if block.n_lines != block.rows[1]:
                block.n_lines = int((workspace.buffer[true_start - origin : stop - origin] == _NEWLINE).sum())
            else:
                block.n_lines -= skipped
        block.rows = (skipped, block.rows[1])
        block.row_start = true_start - origin
        block.offset, block.n_bytes = true_start, min(stop, self._size) - true_start
        self._finish(piece, stop)
        return block

    def read_on(self, workspace: Workspace, piece: Slice) -> Block:
        """The next block of a slice whose start is known."""
        _, _, start, border = piece
        n, wanted = 0, border + self._tail_bytes - start
        while True:
            wanted = min(wanted, self._size - start)
            workspace.make_room(wanted + 1, n)
            n = self._read(workspace, start, n, wanted)
            at_eof = start + wanted == self._size
            block, stop = self._index(workspace, start, 0, n, border)
            if stop >= border or at_eof:
                return self._take(piece, block, stop)
            if n - (stop - start) < MAX_RECORD_BYTES:
                wanted = min(max(2 * n, 1 << 16), stop - start + MAX_RECORD_BYTES)
            elif stop > start:
                return self._take(piece, block, stop)
            elif _find_line_end(workspace.buffer, n) >= 0:
                return self._take(piece, *self._unclosed_line(workspace, start, n))
            else:
                stop = self._end_of_line(start + n)
                return self._take(
                    piece, long_row_block(self.source, start, min(stop, self._size) - start, workspace), stop
                )

    def stop(self) -> None:
        """Let nobody wait for what will not come."""
        with self._change:
            self._stopped = True
            self._change.notify_all()

    def close(self) -> None:
        """Close the file before its end, when nobody reads it any more."""
        self._stack.close()

    def _border(self, number: int) -> int:
        return self._first + (number + 1) * self._slice_bytes

    def _read(self, workspace: Workspace, origin: int, n: int, wanted: int) -> int:
        """Fill the buffer from `n` to `wanted`, and end the file's last line; returns what the buffer holds."""
        workspace.make_room(wanted + 1, n)
        room = memoryview(workspace.buffer)[:wanted]  # type: ignore[arg-type]
        while n < wanted:
            try:
                got = os.preadv(self._descriptor, [room[n:]], origin + n)
            except OSError as error:
                raise InputError(
                    f"cannot read {self._plan.source.path}: {error.strerror}", hint="check the disk, then run it again"
                ) from error
            if not got:
                raise InputError(
                    f"{self._plan.source.path} became shorter while it was read",
                    hint="wait until nothing writes to it any more, then run it again",
                )
            n += got
        if n and origin + n == self._size and workspace.buffer[n - 1] != _NEWLINE:
            workspace.buffer[n] = _NEWLINE
            n += 1
        return n

    def _index(self, workspace: Workspace, origin: int, start: int, n: int, border: int) -> tuple[Block, int]:
        """The records that begin before the border, and where they end in the file."""
        dialect = self._plan.dialect
        n_rows, n_lines, has_escapes, stop = _engine.scan_until(
            workspace.buffer,
            start,
            n,
            max(border - origin, start),
            origin + n >= self._size,
            dialect.delimiter,
            -1 if dialect.quote is None else dialect.quote,
            workspace.separators,
            workspace.row_stops,
        )
        offset = origin + start
        block = Block(
            self.source,
            offset,
            min(stop, self._size - origin) - start,
            workspace,
            n + _engine.SLACK,
            (0, n_rows),
            start,
            n_lines,
            has_escapes,
            origin,
        )
        return block, origin + stop

    def _unclosed_line(self, workspace: Workspace, start: int, n: int) -> tuple[Block, int]:
        """The first line alone, which opens a quote by mistake."""
        stop = _find_line_end(workspace.buffer, n) + 1
        workspace.separators[0] = stop - 1
        workspace.row_stops[0] = 1 | _engine.UNCLOSED
        block = Block(
            self.source, start, stop, workspace, n + _engine.SLACK, (0, 1), n_lines=1, has_escapes=True, origin=start
        )
        return block, start + stop

    def _end_of_line(self, offset: int) -> int:
        """The place behind the next line end in the file."""
        piece = Workspace(self._slice_bytes)
        while offset < self._size and not self._stopped:
            n = self._read(piece, offset, 0, min(self._slice_bytes, self._size - offset))
            line_end = _find_line_end(piece.buffer, n)
            if line_end >= 0:
                return offset + line_end + 1
            offset += n
        return offset

    @staticmethod
    def _find_row(block: Block, start: int) -> int | None:
        """The number of the row that begins there."""
        if start == block.row_start:
            return 0
        workspace, n_rows = block.workspace, block.rows[1]
        stops = workspace.row_stops[:n_rows] & np.uint32(~_engine.UNCLOSED & 0xFFFFFFFF)
        line_ends = workspace.separators[stops - 1]
        row = int(np.searchsorted(line_ends, start - 1))
        return row + 1 if row < n_rows and line_ends[row] == start - 1 else None

    def _take(self, piece: Slice, block: Block, stop: int) -> Block:
        if stop < min(piece.border, self._size):
            block.workspace.rest = piece._replace(start=stop)
        else:
            self._finish(piece, stop)
        return block

    def _await(self, number: int) -> int | None:
        with self._change:
            while number not in self._starts:
                if self._stopped:
                    return None
                self._change.wait()
            return self._starts.pop(number)

    def _finish(self, piece: Slice, stop: int) -> None:
        with self._change:
            self._n_done += 1
            self._starts[piece.number + 1] = stop
            self._change.notify_all()
            if self._n_done == self._n_slices:
                self._stack.close()


def _find_line_end(buffer: NDArray[np.uint8], stop: int) -> int:
    """The first line end before `stop`, or -1."""
    for start in range(0, stop, _PROBE_BYTES):
        found = buffer[start : min(start + _PROBE_BYTES, stop)].tobytes().find(b"\n")
        if found >= 0:
            return start + found
    return -1
