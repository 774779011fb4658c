"""The scanner against a state machine, for every instruction set and every place where a block may end."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from naive_reader import read_rows

from luckyfast import _engine
from luckyfast.errors import InputError
from luckyfast.ingestion.feed import Feed
from luckyfast.ingestion.plan import Dialect, FilePlan, Source
from luckyfast.ingestion.stream import Block, SourceReader, Workspace

Reader = Callable[[Path, int, int | None], list[Block]]
LEVELS = [0, 1, 2]
TEXTS = st.lists(
    st.sampled_from([b",", b'"', b"\n", b"\r\n", b"\r", b"a", b"bc", b'""', b'","', b'"\n"']), max_size=60
).map(b"".join)


def scan(data: bytes, quote: int | None, level: int) -> list[tuple[int, list[int], bool]]:
    """(start, separators, unclosed) of each line of complete records."""
    buffer = np.zeros(len(data) + 64, np.uint8)
    buffer[: len(data)] = np.frombuffer(data, np.uint8)
    separators, stops = np.zeros(len(data) + 64, np.uint32), np.zeros(len(data) + 64, np.uint32)
    mark = -1 if quote is None else quote
    n_rows, n_lines, _ = _engine.scan(buffer, 0, len(data), False, 44, mark, separators, stops, level)
    assert n_lines == data.count(b"\n")
    rows, first, start = [], 0, 0
    for stop in stops[:n_rows].tolist():
        own = separators[first : stop & 0x7FFFFFFF].tolist()
        rows.append((start, own, stop > 0x7FFFFFFF))
        first, start = stop & 0x7FFFFFFF, own[-1] + 1
    return rows


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("quote", [34, None])
@settings(max_examples=300, deadline=None)
@given(data=TEXTS)
@example(data=b'a,"b\nc,"d",e\n')
@example(data=b'5" pipe,"x, y","say ""hi"""\n')
@example(data=b'"' + b"x" * 70 + b'\n","' + b"y" * 70 + b'"\n')
def test_scan_matches_state_machine(data: bytes, quote: int | None, level: int) -> None:
    if not data.endswith(b"\n"):
        data += b"\n"
    naive = [(offset, fields) for offset, _, fields in read_rows(data, 44, quote)]
    found = [row for row in scan(data, quote, level) if data[row[0] : row[1][-1]] not in (b"", b"\r")]
    assert [start for start, _, _ in found] == [offset for offset, _ in naive]
    assert [unclosed for _, _, unclosed in found] == [fields is None for _, fields in naive]
    assert [len(own) for _, own, unclosed in found if not unclosed] == [len(f) for _, f in naive if f is not None]


def make_file(path: Path, quote: int | None) -> FilePlan:
    source = Source(path, "none", path.stat().st_size)
    return FilePlan(source, Dialect(44, quote, False, ("a", "b"), 0), (0,), (1,), (1,), None)


def rows_of(block: Block) -> list[tuple[int, bytes]]:
    """(offset, bytes) of every row of a block."""
    data, separators = block.workspace.buffer.tobytes(), block.workspace.separators.tolist()
    rows, start = [], block.row_start
    for stop in block.workspace.row_stops[slice(*block.rows)].tolist():
        end = separators[(stop & 0x7FFFFFFF) - 1]
        rows.append((block.origin + start, data[start:end]))
        start = end + 1
    assert block.n_lines == data[block.row_start : start].count(b"\n")
    return rows


def read_in_order(path: Path, block_bytes: int, quote: int | None) -> list[Block]:
    """The blocks of a source that is read from its start, as compressed ones are."""
    reader, blocks = SourceReader(0, make_file(path, quote), block_bytes), []
    while (block := reader.read(Workspace(block_bytes))) is not None:
        blocks.append(block)
    return blocks


def read_at_once(path: Path, block_bytes: int, quote: int | None, n_workers: int = 1) -> list[Block]:
    """The blocks of a plain file that workers read at once."""
    feed, blocks, errors = Feed([make_file(path, quote)], block_bytes, n_workers), [], []

    def work() -> None:
        try:
            rest = None
            while True:
                workspace = Workspace(block_bytes)
                workspace.rest = rest
                block = feed.next(workspace)
                if block is None:
                    return
                rest = workspace.rest
                blocks.append(block)
        except BaseException as error:
            errors.append(error)
            feed.stop()

    threads = [threading.Thread(target=work) for _ in range(n_workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors
    return sorted(blocks, key=lambda block: block.offset)


READERS = [read_in_order, read_at_once]


def read_rows_of(blocks: list[Block], n_bytes: int) -> list[tuple[int, bytes]]:
    """The rows of blocks, which must follow each other without a gap."""
    offset = 0
    for block in blocks:
        assert block.offset == offset
        offset += block.n_bytes
    assert offset == n_bytes
    return [row for block in blocks for row in rows_of(block) if row[1] not in (b"", b"\r")]


@settings(max_examples=60, deadline=None)
@given(data=TEXTS)
@example(data=b'a,"b\nc')
@example(data=b'a,"b\n\nc"x,d\ne,f')
@example(data=b'a,"b\n,""\n,"\n"",c\nd"\ne,"f\n"\n')
def test_any_block_border_gives_the_same_rows(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("log") / "log.csv"
    path.write_bytes(data)
    for quote in (34, None):
        naive = [(offset, raw) for offset, raw, _ in read_rows(data, 44, quote)]
        for block_bytes in range(1, len(data) + 2):
            for read in READERS:
                assert read_rows_of(read(path, block_bytes, quote), len(data)) == naive


@pytest.mark.parametrize("n_workers", [1, 2, 4])
def test_workers_at_once_find_the_rows_that_one_finds(tmp_path: Path, n_workers: int) -> None:
    """Quotes open over many slices, so that guesses of where a record starts go wrong."""
    draw = random.Random(n_workers)
    pieces = [
        b"1,2\n",
        b'3,"4\n5"\n',
        b'6,"7\n8,""9""\n10"\n',
        b'11,5" pipe\n',
        b'"\n',
        b"\n",
        b'12,"' + b"x,y\n" * 30 + b'"\n',
    ]
    data = b"".join(draw.choices(pieces, k=3000))
    path = tmp_path / "log.csv"
    path.write_bytes(data)
    naive = [(offset, raw) for offset, raw, _ in read_rows(data, 44, 34)]
    for slice_bytes in (50, 333, 4096):
        assert read_rows_of(read_at_once(path, slice_bytes, 34, n_workers), len(data)) == naive


@pytest.mark.parametrize("read", READERS)
def test_quote_open_beyond_the_longest_record_costs_one_line(tmp_path: Path, read: Reader) -> None:
    line = b"1,abcdefghijklmnop\n"
    path = tmp_path / "log.csv"
    path.write_bytes(line + b'2,"oops\n' + line * 400_000)
    for block_bytes in (1 << 16, 1 << 21):
        rows = read_rows_of(read(path, block_bytes, 34), path.stat().st_size)
        assert len(rows) == 400_002
        assert rows[1] == (len(line), b'2,"oops')


@pytest.mark.parametrize("read", READERS)
def test_quote_open_beyond_the_longest_record_costs_one_line_without_line_end(tmp_path: Path, read: Reader) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(b'1,2\n3,"4')
    assert read_rows_of(read(path, 1 << 16, 34), 8) == [(0, b"1,2"), (4, b'3,"4')]


@pytest.mark.parametrize("read", READERS)
def test_row_without_end_is_one_long_row(tmp_path: Path, read: Reader) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(b"1,2\n" + b"x" * (9 << 20) + b"\n3,4\n")
    blocks = [block for block in read(path, 1 << 20, 34) if block.long_row or block.rows[1]]
    assert [block.long_row for block in blocks] == [None, b"x" * (1 << 16), None]
    assert [block.offset for block in blocks] == [0, 4, 5 + (9 << 20)]
    assert rows_of(blocks[0]) + rows_of(blocks[2]) == [(0, b"1,2"), (5 + (9 << 20), b"3,4")]


def test_file_that_shrinks_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(b"1,2\n" * 1000)
    feed, workspace = Feed([make_file(path, 34)], 1000, 1), Workspace(1000)
    assert feed.next(workspace) is not None
    path.write_bytes(b"1,2\n" * 300)
    with pytest.raises(InputError, match="became shorter"):
        list(iter(lambda: feed.next(workspace), None))
    feed.close()
