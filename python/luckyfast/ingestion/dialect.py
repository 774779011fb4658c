"""How the bytes of a delimited file are cut into fields: delimiter, quote, header."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from luckyfast.errors import InputError, SchemaError
from luckyfast.ingestion.plan import Dialect
from luckyfast.ingestion.records import Records, read_records, read_texts
from luckyfast.ingestion.sources import Sample

__all__ = ["detect_dialect", "parse_delimiter", "parse_quote", "sample_rows", "show_byte"]

UTF8_MARK = b"\xef\xbb\xbf"
COMMON_DELIMITERS = b"\t;|,:"
RARE_DELIMITERS = b"\x01\x1f\x1e\x02^~#!&%@*+="
MIN_CONSISTENCY = 0.7
_PROBE_BYTES = 1 << 15
_PROBE_ROWS = 1000
_NAMED_DELIMITERS = {
    "tab": "\t",
    "\\t": "\t",
    "comma": ",",
    "semicolon": ";",
    "pipe": "|",
    "colon": ":",
    "\\x01": "\x01",
}
_EXCEL_SEPARATOR = re.compile(rb"sep=([^\r\n])\r?\n")
_REMARKS = re.compile(rb"(?:#[^\n]*\n(?:\r?\n)*)+")
_DATA_FIELD = re.compile(rb"\s*(?:[-+]?\d[\d.,:/ TZ+-]*|\d{4}-\d{2}-\d{2}.*)\s*")


def detect_dialect(
    path: Path,
    sample: Sample,
    *,
    delimiter: int | None = None,
    quote: int | str | None = "detect",
    columns: Sequence[str] | None = None,
) -> Dialect:
    """Decide how one file is cut into fields.

    Args:
        path: the file, for messages.
        sample: its beginning.
        delimiter: the delimiter, where the user gave it.
        quote: the quote, None for no quotes, or "detect".
        columns: the column names of files that have no header.

    Returns:
        The dialect. Without a header and without `columns`, `header` is empty.

    Raises:
        InputError: a layout that is not read.
        SchemaError: `columns` do not fit the number of fields, or an argument is unknown.

    Example:
        >>> dialect = detect_dialect(Path("log.csv"), Sample(b"customer;date\\n7;2024-05-01\\n", (), True))
        >>> chr(dialect.delimiter), dialect.header, dialect.header_stop
        (';', ('customer', 'date'), 14)
    """
    start = len(UTF8_MARK) if sample.head.startswith(UTF8_MARK) else 0
    text = sample.head[start:]
    if not text.strip():
        raise InputError(f"{path} holds only empty lines", hint="give files that hold rows")
    if (excel := _EXCEL_SEPARATOR.match(text)) and delimiter in (None, excel[1][0]):
        delimiter, start, text = excel[1][0], start + excel.end(), text[excel.end() :]
    probe, whole = text[:_PROBE_BYTES], sample.complete and len(text) <= _PROBE_BYTES
    if delimiter is None:
        delimiter = _choose_delimiter(path, probe, whole, quote)
    if (remarks := _REMARKS.match(text)) and not _is_row(remarks[0], text[remarks.end() :], delimiter):
        start, text = start + remarks.end(), text[remarks.end() :]
        probe = text[:_PROBE_BYTES]
    if isinstance(quote, str):
        quote = _choose_quote(probe, whole, delimiter)
    records = read_records(text, delimiter, quote, complete=sample.complete, n_rows=_PROBE_ROWS)
    if not records.rows:
        raise InputError(
            f"{path}: no end of line within the first {len(text)} bytes",
            hint="give a delimited text file with one row per line; `--quote none` if its quotes are data",
        )
    if max(len(row) for row in records.rows) < 2:
        raise SchemaError(
            f"{path}: the delimiter {show_byte(delimiter)} does not occur, each row is one field",
            hint="leave --delimiter out to have it found, or name another",
        )
    return _with_header(path, records, start, delimiter, quote, columns)


def sample_rows(sample: Sample, dialect: Dialect, *, n_head: int, n_block: int) -> list[tuple[str, ...]]:
    """Rows of a sample that have as many fields as the header: the first of the head, then some of each block."""
    rows = read_texts(sample.head[dialect.header_stop :], dialect, complete=sample.complete, n_rows=n_head)
    for block in sample.blocks:
        rows += read_texts(block[block.find(b"\n") + 1 :], dialect, complete=False, n_rows=n_block)
    return rows


def parse_delimiter(text: str) -> int:
    """Read `--delimiter`: one byte, or tab, comma, semicolon, pipe, colon.

    Example:
        >>> parse_delimiter("tab"), parse_delimiter(";")
        (9, 59)
    """
    text = _NAMED_DELIMITERS.get(text.lower(), text)
    data = text.encode()
    if len(data) != 1 or data in b'\r\n"':
        raise SchemaError(
            f"a delimiter is one byte, not {text!r}", hint="for example --delimiter ';' or --delimiter tab"
        )
    return data[0]


def parse_quote(text: str) -> int | None:
    """Read `--quote`: one byte, or none.

    Example:
        >>> parse_quote('"'), parse_quote("none")
        (34, None)
    """
    data = text.encode()
    if text.lower() == "none":
        return None
    if len(data) != 1 or data in b"\r\n":
        raise SchemaError(f"a quote is one byte or none, not {text!r}", hint="for example --quote none")
    return data[0]


def show_byte(byte: int | None) -> str:
    """Name a delimiter or quote for people."""
    if byte is None:
        return "none"
    return {9: "tab", 32: "space"}.get(byte, chr(byte) if 32 < byte < 127 else f"\\x{byte:02x}")


def _is_row(remarks: bytes, rest: bytes, delimiter: int) -> bool:
    """Whether a line that begins like a remark has as many fields as the first line that does not."""
    counts = [text.split(b"\n", 1)[0].count(bytes([delimiter])) for text in (remarks, rest)]
    return counts[0] == counts[1]


def _choose_delimiter(path: Path, probe: bytes, whole: bool, quote: int | str | None) -> int:
    if remarks := _REMARKS.match(probe):
        rest = probe[remarks.end() :]
        try:
            return _choose_delimiter(path, rest, whole, quote)
        except InputError:
            pass  # the remarks may be the log
    for candidates in (COMMON_DELIMITERS, RARE_DELIMITERS):
        scores: dict[int, float] = {}
        for candidate in candidates:
            if candidate not in probe:
                continue
            tried = _choose_quote(probe, whole, candidate) if isinstance(quote, str) else quote
            rows = read_records(probe, candidate, tried, complete=whole).rows
            scores[candidate] = _consistency(rows)
        best = max(scores.values(), default=0.0)
        if best >= MIN_CONSISTENCY:
            fitting = [c for c in candidates if scores.get(c, 0.0) >= max(MIN_CONSISTENCY, best - 0.2)]
            # a colon inside times is consistent too, so it counts only where nothing else fits
            return fitting[0]
    raise _no_delimiter(path, probe, whole)


def _no_delimiter(path: Path, probe: bytes, whole: bool) -> InputError:
    lines = [line.rstrip(b"\r") for line in probe.split(b"\n")[: None if whole else -1] if line.strip()]
    first = lines[0][:60].decode(errors="replace") if lines else ""
    widths = Counter(len(line) for line in lines)
    if lines and widths.most_common(1)[0][1] >= 0.8 * len(lines) and all(b" " in line for line in lines[:20]):
        return InputError(
            f"{path} looks like columns of fixed width, filled with spaces, not like delimited text: {first!r}",
            hint=f"turn it into CSV first: sed -E 's/^ +//; s/ +/,/g' {path} > NEW; name its --columns",
        )
    if lines and all(b" " in line.strip() for line in lines[:20]):
        return InputError(
            f"{path}: no delimiter gives the same number of fields in most lines; the first is {first!r}",
            hint="if spaces are the delimiter, say --delimiter ' '; otherwise name it: --delimiter X",
        )
    return InputError(
        f"{path}: no delimiter gives the same number of fields in most lines; the first is {first!r}",
        hint="name the delimiter with --delimiter, or give files that are delimited text",
    )


def _consistency(rows: Sequence[tuple[bytes, ...]]) -> float:
    """The share of rows with the most common number of fields, 0 where the first row differs or there is one field."""
    if not rows:
        return 0.0
    counts = Counter(len(row) for row in rows)
    n_fields, n_rows = counts.most_common(1)[0]
    if n_fields < 2 or counts[len(rows[0])] < n_rows:
        return 0.0
    return n_rows / len(rows)


def _choose_quote(probe: bytes, whole: bool, delimiter: int) -> int | None:
    """`"` unless the sample shows that it is data: many fields with stray quotes, and rows that fit without quoting."""
    mark = ord('"')
    if mark not in probe:
        other = read_records(probe, delimiter, ord("'"), complete=whole) if b"'" in probe else None
        n_fields = sum(map(len, other.rows)) if other else 0
        is_other = other and other.n_quoted > max(10 * other.n_misquoted, 0.2 * n_fields)
        return ord("'") if is_other else mark
    quoted = read_records(probe, delimiter, mark, complete=whole)
    if quoted.n_misquoted > quoted.n_quoted:
        return None
    if quoted.n_misquoted > 0.1 * quoted.n_quoted:
        plain = read_records(probe, delimiter, None, complete=whole)
        return None if _consistency(plain.rows) >= _consistency(quoted.rows) else mark
    return mark


def _with_header(
    path: Path, records: Records, start: int, delimiter: int, quote: int | None, columns: Sequence[str] | None
) -> Dialect:
    rows = records.rows
    first = _distinct([field.decode(errors="replace").strip() for field in rows[0]])
    after_first = start + records.stops[0]
    if columns is None:
        has_header = looks_like_header(rows)
        names, stop = (first, after_first) if has_header else ((), start)
        return Dialect(delimiter, quote, has_header, names, stop)
    if first == _distinct(columns):
        return Dialect(delimiter, quote, True, first, after_first)
    n_fields = Counter(len(row) for row in rows).most_common(1)[0][0]
    if len(columns) != n_fields:
        raise SchemaError(
            f"--columns names {len(columns)} columns but the rows of {path} have {n_fields} fields",
            hint=f"name all {n_fields} columns in their order; the first row is {show_row(rows[0])}",
        )
    if looks_like_header(rows) and len(rows) > 1:
        raise SchemaError(
            f"{path} has a header of its own, which differs from --columns: {', '.join(first)}",
            hint="leave --columns out, and name the roles by the file's own columns",
        )
    return Dialect(delimiter, quote, False, _distinct(columns), start)


def _distinct(names: Sequence[str]) -> tuple[str, ...]:
    """Names that occur more than once with a number each, so that one of them can be meant; empty ones stay."""
    twice = {name for name, n in Counter(names).items() if n > 1 and name}
    seen: Counter[str] = Counter()
    numbered = []
    for name in names:
        seen[name] += 1
        numbered.append(f"{name}#{seen[name]}" if name in twice else name)
    return tuple(numbered)


def looks_like_header(rows: Sequence[tuple[bytes, ...]]) -> bool:
    """Whether the first row names columns: no data in it, and in some column all others are data or none equals it."""
    # a header may come again where files were put one behind another
    first, others = rows[0], [row for row in rows[1:] if len(row) == len(rows[0]) and row != rows[0]]
    if any(_DATA_FIELD.fullmatch(field) for field in first) or not any(first):
        return False
    if not others:
        return len(set(first)) == len(first) and rows[0] not in rows[1:]
    for i in range(len(first)):
        filled = [row[i] for row in others if row[i]]
        if filled and sum(_DATA_FIELD.fullmatch(field) is not None for field in filled) > 0.8 * len(filled):
            return True
    return not any(first[i] == row[i] != b"" for row in others for i in range(len(first)))


def show_row(row: Sequence[bytes], n_chars: int = 100) -> str:
    """One row for a message, cut to a readable length."""
    text = ", ".join(field.decode(errors="replace") for field in row)
    return text if len(text) <= n_chars else text[: n_chars - 3] + "..."
