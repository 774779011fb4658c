"""Sources as blocks of bytes that begin and end at record borders.

Blocks are read into buffers that are used again and again; mapped files would count as memory. Every block begins
outside quotes, so that one pass over it finds where its last record ends; what follows is carried to the next block.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from luckyfast import _engine
from luckyfast.ingestion.plan import FilePlan
from luckyfast.ingestion.sources import open_source

__all__ = ["MAX_RECORD_BYTES", "SCRATCH_BYTES", "Block", "Feed", "SourceReader", "new_buffer"]

MAX_RECORD_BYTES = 1 << 22
"""Longer rows are rejected, and a quote open for longer was opened by mistake; no block size moves this border."""

SCRATCH_BYTES = 1 << 16
_KEPT_OF_LONG_ROW = 1 << 16
_NEWLINE = 10


@dataclass
class Block:
    """Complete records of one source.

    `buffer[:stop]` holds them, and from `scratch` on there is room for the parser. `offset` is where the block begins
    in the decompressed source; `long_row` holds the first bytes of a row too long to be read (then `stop` is 0).
    """

    source: int
    sequence: int
    offset: int
    buffer: NDArray[np.uint8]
    stop: int
    scratch: int
    first_unclosed: bool
    long_row: bytes | None
    n_bytes: int


def new_buffer(block_bytes: int, scratch_bytes: int = SCRATCH_BYTES) -> NDArray[np.uint8]:
    """Room for a block, the line end that a file may lack, what wide loads read too much, and scratch bytes."""
    return np.zeros(block_bytes + 2 * _engine.SLACK + scratch_bytes, np.uint8)


class SourceReader:
    """One open source."""

    def __init__(self, index: int, plan: FilePlan, block_bytes: int) -> None:
        if 2 * block_bytes > MAX_RECORD_BYTES:
            raise ValueError("blocks must be at most half as long as the longest record")
        self.index = index
        self.header_lines = 0
        self._plan = plan
        self._block_bytes = block_bytes
        self._stack = ExitStack()
        self._stream: BinaryIO | None = None
        self._carry = np.zeros(0, np.uint8)
        self._offset = plan.dialect.header_stop
        self._sequence = 0
        self._at_eof = False
        self._skips = False

    def read(self, buffer: NDArray[np.uint8]) -> Block | None:
        """The next block, in `buffer` or a larger one; None at the end of the source."""
        try:
            with self._stack:
                block = self._next_block(buffer)
                if block is not None:
                    self._stack = self._stack.pop_all()
                return block
        except BaseException:
            self._at_eof = True
            raise

    def close(self) -> None:
        """Close the source before its end."""
        self._stack.close()

    def _open(self) -> BinaryIO:
        stream = self._stack.enter_context(open_source(self._plan.source))
        left = self._plan.dialect.header_stop
        while left > 0 and (piece := stream.read(min(left, 1 << 16))):
            self.header_lines += piece.count(b"\n")
            left -= len(piece)
        return stream

    def _next_block(self, buffer: NDArray[np.uint8]) -> Block | None:
        if self._stream is None:
            self._stream = self._open()
        n_read = 0
        first_unclosed = False
        n = len(self._carry)
        buffer = _with_room(buffer, n)
        buffer[:n] = self._carry
        while True:
            if not self._at_eof and n < MAX_RECORD_BYTES and not first_unclosed:
                wanted = min(self._block_bytes, MAX_RECORD_BYTES - n)
                buffer = _with_room(buffer, n + wanted, n)
                got = _fill(self._stream, memoryview(buffer)[n : n + wanted])  # type: ignore[arg-type]
                n_read += got
                n += got
                self._at_eof = got < wanted
                if self._at_eof and n > 0 and buffer[n - 1] != _NEWLINE:
                    buffer[n] = _NEWLINE
                    n += 1
            if n == 0:
                return None
            if self._skips:
                n = self._skip_line(buffer, n)
                continue
            dialect = self._plan.dialect
            quote = -1 if dialect.quote is None else dialect.quote
            stop = _engine.find_boundary(buffer, 0, n, self._at_eof, first_unclosed, dialect.delimiter, quote)
            if stop > 0:
                return self._take(buffer, stop, n, first_unclosed, None, n_read)
            if n >= MAX_RECORD_BYTES:
                if (buffer[:n] == _NEWLINE).any():
                    first_unclosed = True
                else:
                    self._skips = True
                    return self._take(buffer, 0, 0, False, buffer[:_KEPT_OF_LONG_ROW].tobytes(), n_read, n)

    def _skip_line(self, buffer: NDArray[np.uint8], n: int) -> int:
        """Drop the bytes of a line that is too long; returns what is left in the buffer."""
        line_ends = np.flatnonzero(buffer[:n] == _NEWLINE)
        dropped = int(line_ends[0]) + 1 if len(line_ends) else n
        self._skips = not len(line_ends)
        buffer[: n - dropped] = buffer[dropped:n].copy()
        self._offset += dropped
        return n - dropped

    def _take(
        self,
        buffer: NDArray[np.uint8],
        stop: int,
        n: int,
        unclosed: bool,
        long_row: bytes | None,
        n_read: int,
        gone: int = 0,
    ) -> Block:
        scratch = max(stop, n) + _engine.SLACK
        block = Block(self.index, self._sequence, self._offset, buffer, stop, scratch, unclosed, long_row, n_read)
        self._carry = buffer[stop:n].copy()
        self._offset += stop + gone
        self._sequence += 1
        return block


def _with_room(buffer: NDArray[np.uint8], n_bytes: int, n_kept: int = 0) -> NDArray[np.uint8]:
    if len(buffer) >= n_bytes + 2 * _engine.SLACK + SCRATCH_BYTES:
        return buffer
    larger = new_buffer(2 * n_bytes)
    larger[:n_kept] = buffer[:n_kept]
    return larger


def _fill(stream: BinaryIO, room: memoryview) -> int:
    n = 0
    while n < len(room):
        got = stream.readinto(room[n:])  # type: ignore[attr-defined]
        if not got:
            break
        n += got
    return n


class Feed:
    """Hands blocks of many sources to workers.

    Each source is read in order under its own turn; as many sources are open as there are workers, so that compressed
    sources are unpacked side by side. Blocks come in the order of their sources and positions only within a source.
    """

    def __init__(
        self,
        files: Sequence[FilePlan],
        block_bytes: int,
        n_workers: int,
        on_open: Callable[[int, int], None] | None = None,
    ) -> None:
        self._waiting = [SourceReader(i, file, block_bytes) for i, file in enumerate(files)][::-1]
        self._idle: list[SourceReader] = []
        self._n_busy = 0
        self._n_open = n_workers
        self._change = threading.Condition()
        self._stopped = False
        self._on_open = on_open

    def stop(self) -> None:
        """Give out no more blocks."""
        with self._change:
            self._stopped = True
            self._change.notify_all()

    def next(self, buffer: NDArray[np.uint8]) -> Block | None:
        """The next block for one worker; None when there are no more."""
        while True:
            reader = self._claim()
            if reader is None:
                return None
            block = None
            first = reader._stream is None
            try:
                block = reader.read(buffer)
                if first and self._on_open:
                    self._on_open(reader.index, reader.header_lines)
            finally:
                with self._change:
                    self._n_busy -= 1
                    if block is not None:
                        self._idle.append(reader)
                        self._idle.sort(key=lambda other: other.index)
                    self._change.notify()
            if block is not None:
                return block

    def _claim(self) -> SourceReader | None:
        with self._change:
            while not self._stopped:
                if self._idle:
                    self._n_busy += 1
                    return self._idle.pop(0)
                if self._waiting and self._n_busy < self._n_open:
                    self._n_busy += 1
                    return self._waiting.pop()
                if not self._n_busy and not self._waiting:
                    self._change.notify_all()
                    return None
                self._change.wait()
            return None
