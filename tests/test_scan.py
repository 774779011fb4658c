"""The scanner against a state machine, for every instruction set and every place where a block may end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from naive_reader import read_rows

from luckyfast import _engine
from luckyfast.ingestion.plan import Dialect, FilePlan, Source
from luckyfast.ingestion.stream import SourceReader, new_buffer

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


def read_blocks(path: Path, block_bytes: int, quote: int | None) -> list[tuple[int, bytes]]:
    """(offset, bytes) of every row, as the blocks of a source bring them."""
    source = Source(path, "none", path.stat().st_size)
    plan = FilePlan(source, Dialect(44, quote, False, ("a", "b"), 0), (0,), (1,), (1,), None)
    reader = SourceReader(0, plan, block_bytes)
    buffer, rows = new_buffer(block_bytes), []
    while (block := reader.read(buffer)) is not None:
        data = block.buffer[: block.stop].tobytes()
        rows += [(block.offset + start, data[start : own[-1]]) for start, own, _ in scan(data, quote, -1)]
    return [row for row in rows if row[1] not in (b"", b"\r")]


@settings(max_examples=60, deadline=None)
@given(data=TEXTS)
@example(data=b'a,"b\nc')
@example(data=b'a,"b\n\nc"x,d\ne,f')
def test_any_block_border_gives_the_same_rows(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("log") / "log.csv"
    path.write_bytes(data)
    for quote in (34, None):
        naive = [(offset, raw) for offset, raw, _ in read_rows(data, 44, quote)]
        for block_bytes in range(1, len(data) + 2):
            assert read_blocks(path, block_bytes, quote) == naive


def test_quote_open_beyond_the_longest_record_costs_one_line(tmp_path: Path) -> None:
    line = b"1,abcdefghijklmnop\n"
    path = tmp_path / "log.csv"
    path.write_bytes(line + b'2,"oops\n' + line * 400_000)
    for block_bytes in (1 << 16, 1 << 21):
        rows = read_blocks(path, block_bytes, 34)
        assert len(rows) == 400_002
        assert rows[1] == (len(line), b'2,"oops')


def test_quote_open_beyond_the_longest_record_costs_one_line_without_line_end(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(b'1,2\n3,"4')
    assert read_blocks(path, 1 << 16, 34) == [(0, b"1,2"), (4, b'3,"4')]


def test_row_without_end_is_one_long_row(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(b"1,2\n" + b"x" * (9 << 20) + b"\n3,4\n")
    plan = FilePlan(
        Source(path, "none", path.stat().st_size), Dialect(44, 34, False, ("a", "b"), 0), (0,), (1,), (1,), None
    )
    reader = SourceReader(0, plan, 1 << 20)
    buffer, blocks = new_buffer(1 << 20), []
    while (block := reader.read(buffer)) is not None:
        blocks.append((block.offset, block.buffer[: block.stop].tobytes(), block.long_row))
    assert blocks[0] == (0, b"1,2\n", None)
    assert blocks[1][0] == 4
    assert blocks[1][2] == b"x" * (1 << 16)
    assert blocks[2] == (5 + (9 << 20), b"3,4\n", None)
