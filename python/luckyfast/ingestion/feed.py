"""Hands the blocks of all sources to the workers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence

from luckyfast.ingestion.columnar import ColumnarReader
from luckyfast.ingestion.plan import FilePlan
from luckyfast.ingestion.slices import SlicedFile
from luckyfast.ingestion.stream import Block, SourceReader, Workspace

__all__ = ["Feed"]

_PACKED_BLOCK_BYTES = 1 << 20  # PERF: what is unpacked is still in the cache when it is indexed


class Feed:
    """Blocks of many sources, in any order.

    A compressed source is unpacked by one worker at a time; as many of them are open as there are workers, so that
    they are unpacked side by side. Plain files are read by all workers at once.

    Args:
        files: what to read.
        block_bytes: size of most blocks.
        n_workers: how many threads will call `next`.
        on_open: told of each source its index and the lines of its header, before its first block is given out.
        starts: for each source that an earlier run has begun, the offset of its first record that is still to be read;
            -1 for those that it has finished.

    Attributes:
        finished: the packed sources that have been read to their end.
        disk_bytes: how many bytes of all files have been read from the disk.
    """

    def __init__(
        self,
        files: Sequence[FilePlan],
        block_bytes: int,
        n_workers: int,
        on_open: Callable[[int, int], None] | None = None,
        starts: Mapping[int, int] | None = None,
    ) -> None:
        starts = starts or {}
        self.finished = {source for source, start in starts.items() if start < 0}
        self.disk_bytes = 0
        self._plain: list[SlicedFile] = []
        self._packed: list[SourceReader | ColumnarReader] = []
        for source, file in enumerate(files):
            start = starts.get(source)
            if source in self.finished:
                self.disk_bytes += file.source.size_bytes
                continue
            if file.source.is_plain:
                self.disk_bytes += file.dialect.header_stop if start is None else start
                self._plain.append(SlicedFile(source, file, block_bytes, start))
            elif file.source.is_columnar:
                self._packed.append(ColumnarReader(source, file, start))
            else:
                self._packed.append(SourceReader(source, file, min(block_bytes, _PACKED_BLOCK_BYTES), start))
        self._n_plain_done = 0
        self._waiting = self._packed[::-1]
        self._idle: list[SourceReader | ColumnarReader] = []
        self._n_busy = 0
        self._n_open = n_workers
        self._change = threading.Condition()
        self._stopped = False
        self._on_open = on_open

    def next(self, workspace: Workspace) -> Block | None:
        """The next block for one worker, in its workspace; None when there are no more."""
        while not self._stopped:
            if workspace.rest is not None:
                piece, workspace.rest = workspace.rest, None
                return self._counted(piece.file.read_on(workspace, piece))
            workspace.shrink()
            claimed = self._claim()
            if claimed is None:
                return None
            if isinstance(claimed, tuple):
                found = claimed[0].read(workspace, claimed[1])
                block = self._counted(found) if found is not None else None
            else:
                block = self._read_packed(claimed, workspace)
            if block is not None:
                return block
        return None

    def _counted(self, block: Block) -> Block:
        with self._change:
            self.disk_bytes += block.n_bytes
        return block

    def stop(self) -> None:
        """Give out no more blocks."""
        with self._change:
            self._stopped = True
            self._change.notify_all()
        for file in self._plain:
            file.stop()

    def close(self) -> None:
        """Close all files, when no worker is left."""
        for file in self._plain:
            file.close()
        for reader in self._packed:
            reader.close()

    def _read_packed(self, reader: SourceReader | ColumnarReader, workspace: Workspace) -> Block | None:
        found = None
        first, before = not reader.is_open, reader.disk_bytes
        try:
            found = reader.cut(workspace)
            if first and self._on_open:
                self._on_open(reader.source, reader.header_lines)
        finally:
            with self._change:
                self._n_busy -= 1
                self.disk_bytes += reader.disk_bytes - before
                if found is None:
                    self.finished.add(reader.source)
                else:
                    self._idle.append(reader)
                    self._idle.sort(key=lambda other: other.source)
                self._change.notify()
        return reader.index(*found) if found is not None else None

    def _claim(self) -> tuple[SlicedFile, int] | SourceReader | ColumnarReader | None:
        with self._change:
            while not self._stopped:
                # packed sources first: each of them keeps one worker busy at most, plain files are good for all others
                if self._idle or (self._waiting and self._n_busy < self._n_open):
                    self._n_busy += 1
                    return self._idle.pop(0) if self._idle else self._waiting.pop()
                if (plain := self._claim_slice()) is not None:
                    return plain
                if not self._n_busy and not self._waiting:
                    self._change.notify_all()
                    return None
                self._change.wait()
            return None

    def _claim_slice(self) -> tuple[SlicedFile, int] | None:
        while self._n_plain_done < len(self._plain):
            file = self._plain[self._n_plain_done]
            if not file.is_open:
                file.open()
                if self._on_open:
                    self._on_open(file.source, file.header_lines)
            number = file.claim()
            if number is not None:
                return file, number
            self._n_plain_done += 1
        return None
