"""The slow, forgiving record reader for samples: it also counts how well the quotes fit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from luckyfast.ingestion.plan import Dialect

__all__ = ["Records", "read_records", "read_texts"]

_MAX_RECORD_BYTES = 1 << 16
_SPARE_LINES = 100


@dataclass(frozen=True)
class Records:
    """The records of a sample.

    `rows` holds the fields without their quotes, `stops` the byte offset behind each record with its line end,
    `n_quoted` the fields that are quoted as RFC 4180 says, `n_misquoted` those with quotes anywhere else.
    """

    rows: list[tuple[bytes, ...]]
    stops: list[int]
    n_quoted: int
    n_misquoted: int


def read_records(data: bytes, delimiter: int, quote: int | None, *, complete: bool, n_rows: int = 1 << 20) -> Records:
    """Cut bytes into records; empty lines are skipped, and a last record that is cut off is left out.

    Args:
        data: decompressed bytes that start at the start of a record.
        delimiter: the byte between fields.
        quote: the byte around fields that hold delimiters or line ends, doubled inside; None if there is no such.
        complete: whether the data end where the file ends, so that a last line without a line end is whole.
        n_rows: read at most so many.

    Returns:
        The records in order. A quote that is never closed is data, and reading goes on with the next line.

    Example:
        >>> read_records(b'a,"b,c"\\nd,e\\n', ord(","), ord('"'), complete=True).rows
        [(b'a', b'b,c'), (b'd', b'e')]
    """
    if quote is None or quote not in data:
        return _read_lines(data, delimiter, complete=complete, n_rows=n_rows)
    separator = bytes([delimiter])
    rows: list[tuple[bytes, ...]] = []
    stops: list[int] = []
    n_quoted = n_misquoted = 0
    start = 0
    while start < len(data) and len(rows) < n_rows:
        newline = data.find(b"\n", start)
        if newline < 0 and not complete:
            break
        stop = len(data) if newline < 0 else newline
        line = data[start:stop].removesuffix(b"\r")
        if quote not in line:
            if line:
                rows.append(tuple(line.split(separator)))
                stops.append(min(stop + 1, len(data)))
            start = stop + 1
            continue
        parsed = _read_quoted(data, start, delimiter, quote)
        if not complete and (parsed[1] > len(data) if parsed else len(data) - start < _MAX_RECORD_BYTES):
            break
        if parsed is None:
            rows.append(tuple(line.split(separator)))
            n_misquoted += 1
            start = stop + 1
        else:
            fields, start, good, bad = parsed
            rows.append(tuple(fields))
            n_quoted += good
            n_misquoted += bad
        stops.append(min(start, len(data)))
    return Records(rows, stops, n_quoted, n_misquoted)


def read_texts(data: bytes, dialect: Dialect, *, complete: bool, n_rows: int) -> list[tuple[str, ...]]:
    """The records of `read_records` as text, without those that have another number of fields than the header."""
    n_fields = len(dialect.header)
    if dialect.delimiter < 0x80 and (dialect.quote is None or dialect.quote not in data) and b"\r" not in data:
        # PERF: decoded in one piece
        lines = data.decode(errors="replace").split("\n", n_rows)
        if len(lines) > n_rows or not complete or not lines[-1]:
            lines.pop()
        if all(lines):
            rows = [tuple(line.split(chr(dialect.delimiter))) for line in lines]
            return [row for row in rows if len(row) == n_fields]
    records = read_records(data, dialect.delimiter, dialect.quote, complete=complete, n_rows=n_rows)
    return [tuple([field.decode(errors="replace") for field in row]) for row in records.rows if len(row) == n_fields]


def _read_lines(data: bytes, delimiter: int, *, complete: bool, n_rows: int) -> Records:
    """The same for data without quotes, which is most of what is sampled."""
    separator = bytes([delimiter])
    rows: list[tuple[bytes, ...]] = []
    stops: list[int] = []
    # PERF: no more is cut than is wanted, some empty lines included
    lines = data.split(b"\n", n_rows + _SPARE_LINES)
    is_whole = len(lines) <= n_rows + _SPARE_LINES
    rest = b"" if is_whole else lines.pop()
    if is_whole and not complete:
        lines.pop()
    at = 0
    for line in lines:
        at += len(line) + 1
        if text := line.removesuffix(b"\r"):
            rows.append(tuple(text.split(separator)))
            stops.append(min(at, len(data)))
            if len(rows) == n_rows:
                return Records(rows, stops, 0, 0)
    if rest:
        more = _read_lines(rest, delimiter, complete=complete, n_rows=n_rows - len(rows))
        return Records(rows + more.rows, stops + [at + stop for stop in more.stops], 0, 0)
    return Records(rows, stops, 0, 0)


def _read_quoted(data: bytes, start: int, delimiter: int, quote: int) -> tuple[list[bytes], int, int, int] | None:
    """One record from `start`: its fields, where the next begins, good and bad quotes; None if one never closes."""
    mark = bytes([quote])
    fields: list[bytes] = []
    n_good = n_bad = 0
    at = start
    while True:
        if data[at : at + 1] == mark:
            close = _find_close(data, at + 1, quote, start + _MAX_RECORD_BYTES)
            if close < 0:
                return None
            stop = _field_stop(data, close + 1, delimiter)
            rest = data[close + 1 : stop].removesuffix(b"\r")
            n_good += not rest
            n_bad += bool(rest)
            fields.append(data[at + 1 : close].replace(mark + mark, mark) + rest)
        else:
            stop = _field_stop(data, at, delimiter)
            field = data[at:stop]
            n_bad += mark in field
            at_line_end = stop == len(data) or data[stop] != delimiter
            fields.append(field.removesuffix(b"\r") if at_line_end else field)
        if stop == len(data) or data[stop] != delimiter:
            return fields, stop + 1, n_good, n_bad
        at = stop + 1


def _find_close(data: bytes, at: int, quote: int, limit: int) -> int:
    while True:
        close = data.find(quote, at, limit)
        if close < 0 or data[close + 1 : close + 2] != bytes([quote]):
            return close
        at = close + 2


def _field_stop(data: bytes, at: int, delimiter: int) -> int:
    stops = [stop for stop in (data.find(delimiter, at), data.find(b"\n", at)) if stop >= 0]
    return min(stops, default=len(data))
