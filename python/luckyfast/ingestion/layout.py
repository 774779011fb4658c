"""The raw files of one run seen as tables with named columns, whatever order each file has them in."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from luckyfast.errors import InputError, SchemaError
from luckyfast.ingestion.columnar import sample_columns
from luckyfast.ingestion.dialect import UTF8_MARK, detect_dialect, sample_rows, show_row
from luckyfast.ingestion.filenames import FILENAME
from luckyfast.ingestion.jsonlines import looks_like_json, sample_json
from luckyfast.ingestion.plan import Dialect, Source
from luckyfast.ingestion.roles import ColumnSample
from luckyfast.ingestion.sampling import sample_text
from luckyfast.ingestion.sources import N_BLOCKS, Sample

__all__ = [
    "RawTable",
    "column_index",
    "describe_differences",
    "describe_encodings",
    "main_tables",
    "missing_column",
    "pool_columns",
    "read_tables",
]

N_FULL_SAMPLES = 24
N_SAMPLED_ROWS = 20_000
NO_DELIMITER = 0x1F
"""A byte that no JSON text has: lines of it are cut at their ends only."""


@dataclass(frozen=True)
class RawTable:
    """One source, how it is cut into fields, and sampled rows as text.

    `filled` says that it has data rows, `decoded` why it is read in another encoding than UTF-8; `filename` is the
    value of its name where that has a role.
    """

    source: Source
    dialect: Dialect
    rows: list[tuple[str, ...]]
    filled: bool
    decoded: str = ""
    filename: str | None = None


def read_tables(
    sources: Sequence[Source],
    *,
    delimiter: int | None = None,
    quote: int | str | None = "detect",
    encoding: str | None = None,
    unless_utf8: bool = False,
    columns: Sequence[str] | None = None,
) -> list[RawTable]:
    """Sample every source and decide how it is cut into fields.

    Of many files, 24 spread over all are sampled well and the others only at their beginning. A file without a header
    that has as many fields as the files with one is taken as their continuation.

    Args:
        sources: what to read.
        delimiter: the delimiter, where the user gave it.
        quote: the quote, None for no quotes, or "detect".
        encoding: the encoding, where the user gave it.
        unless_utf8: it is that of earlier files: what is UTF-8 or UTF-16 by itself is read as such.
        columns: the column names, for files that have no header.

    Returns:
        One table per source, in the same order.

    Raises:
        InputError: a file cannot be read or holds no delimited text, or there is no data row at all.
        SchemaError: there is no header and no `columns`.
    """
    step = max(1, len(sources) // N_FULL_SAMPLES)
    n_rows = max(100, N_SAMPLED_ROWS // len(sources))
    tables = []
    for i, source in enumerate(sources):
        if source.is_columnar:
            columnar, values = sample_columns(source, n_rows)
            tables.append(RawTable(source, Dialect(NO_DELIMITER, None, True, tuple(columnar), 0), values, bool(values)))
            continue
        source, sample, decoded = sample_text(source, encoding, full=i % step == 0, unless_utf8=unless_utf8)
        if looks_like_json(sample.head):
            tables.append(_json_table(source, sample, n_rows, decoded))
            continue
        dialect = detect_dialect(Path(source.label), sample, delimiter=delimiter, quote=quote, columns=columns)
        filled = not sample.complete or bool(sample.head[dialect.header_stop :].strip())
        if not dialect.header:
            # rows can only be matched with columns once the width is known
            dialect = replace(dialect, header=_first_row(sample.head, dialect), has_header=False)
            tables.append(RawTable(source, dialect, [], filled, decoded))
            continue
        rows = sample_rows(sample, dialect, n_head=n_rows // 2, n_block=n_rows // (2 * N_BLOCKS))
        # a header that comes again says nothing of the values
        rows = [row for row in rows if row != dialect.header]
        tables.append(RawTable(source, dialect, rows, filled, decoded))
    if columns is None:
        tables = _name_continuations(tables)
    if not any(table.filled for table in tables):
        names = ", ".join(table.source.label for table in tables[:3])
        raise InputError(f"no data rows: {names} holds only a header", hint="give files that hold rows")
    return tables


def main_tables(tables: Sequence[RawTable]) -> list[RawTable]:
    """The tables that share the column names which most bytes have, whatever their order."""
    sizes: dict[frozenset[str], int] = {}
    for table in tables:
        sizes[_column_set(table)] = sizes.get(_column_set(table), 0) + table.source.size_bytes
    largest = max(sizes, key=lambda names: sizes[names])
    return [table for table in tables if _column_set(table) == largest]


def pool_columns(tables: Sequence[RawTable]) -> list[ColumnSample]:
    """The sampled values of tables with the same columns, joined, in the column order of the first."""
    names = list(dict.fromkeys(tables[0].dialect.header))
    places = [[column_index(table, name) for name in names] for table in tables]
    values: list[list[str]] = [[] for _ in names]
    for table, indices in zip(tables, places, strict=True):
        # rows of another width are not in the sample
        columns_of_table = list(zip(*table.rows, strict=True))
        for i, index in enumerate(indices):
            values[i] += columns_of_table[index] if index is not None and table.rows else [""] * len(table.rows)
    columns = [ColumnSample(name, tuple(column)) for name, column in zip(names, values, strict=True)]
    if tables[0].filename is not None:
        from_names = [table.filename or "" for table in tables for _ in table.rows]
        columns.append(ColumnSample(FILENAME, tuple(from_names)))
    return columns


def describe_differences(tables: Sequence[RawTable]) -> str:
    """How the files differ from the first: order of columns, columns of their own or lacking, no header, no rows."""
    first = tables[0]
    order = [name.casefold() for name in first.dialect.header]
    others = tables[1:]
    reordered = [t for t in others if _column_set(t) == _column_set(first) and _folded(t) != order]
    notes = []
    if reordered:
        notes.append(f"{_count(reordered)} another column order than {_name(first)}")
    for header in dict.fromkeys(_column_set(table) for table in others if _column_set(table) != _column_set(first)):
        alike = [table for table in others if _column_set(table) == header]
        more, less = sorted(header - _column_set(first)), sorted(_column_set(first) - header)
        changes = [*(f"also {name}" for name in more), *(f"no {name}" for name in less)]
        notes.append(f"{_count(alike)} {', '.join(changes)}")
    unnamed = [table for table in others if first.dialect.has_header and not table.dialect.has_header]
    if unnamed:
        notes.append(f"{_count(unnamed)} no header: taken as continuation of the others")
    hollow = [table for table in tables if not table.filled]
    if hollow:
        notes.append(f"{_count(hollow)} only a header")
    return "; ".join(notes)


def describe_encodings(tables: Sequence[RawTable]) -> str:
    """Which files are read in another encoding than UTF-8, and why; empty where none is."""
    notes = []
    for encoding in dict.fromkeys(table.source.encoding for table in tables if table.decoded):
        alike = [table for table in tables if table.source.encoding == encoding]
        which = "" if len(alike) == len(tables) else f"{_count(alike).removesuffix(' has').removesuffix(' have')} as "
        notes.append(f"{which}{encoding} ({alike[0].decoded}); --encoding NAME if that is wrong")
    return "; ".join(notes)


def column_index(table: RawTable, name: str) -> int | None:
    """The place of a column in a file: by its exact name, or else regardless of case if that is one column.

    Raises:
        SchemaError: the file has the name twice.
    """
    header = table.dialect.header
    exact = [i for i, own in enumerate(header) if own == name]
    if len(exact) > 1 and name:
        raise SchemaError(
            f"{table.source.label} has {len(exact)} columns named {name!r}",
            hint="rename them in the header, so that one can be meant",
        )
    alike = exact or [i for i, own in enumerate(header) if own.casefold() == name.strip().casefold()]
    return alike[0] if len(alike) == 1 else None


def missing_column(where: str, name: str, header: Iterable[str], *, hint: str | None = None) -> SchemaError:
    """The error for a column that a table does not have."""
    names = [own for own in header if own]
    close = difflib.get_close_matches(name, names, n=1)
    if hint is None:
        hint = f"did you mean {close[0]}?" if close else "name one of its columns, or leave this file out"
    return SchemaError(f"{where} has no column {name!r}; it has {', '.join(names)}", hint=hint)


def _json_table(source: Source, sample: Sample, n_rows: int, decoded: str) -> RawTable:
    names, rows = sample_json(source.label, sample)
    start = len(UTF8_MARK) if sample.head.startswith(UTF8_MARK) else 0
    dialect = Dialect(NO_DELIMITER, None, True, tuple(names), start)
    step = max(1, len(rows) // n_rows)
    return RawTable(replace(source, form="json"), dialect, rows[::step], True, decoded)


def _name_continuations(tables: list[RawTable]) -> list[RawTable]:
    named = [table for table in tables if table.dialect.has_header]
    result = []
    for table in tables:
        if table.dialect.has_header:
            result.append(table)
            continue
        row = table.dialect.header
        headers = {other.dialect.header for other in named if len(other.dialect.header) == len(row)}
        if len(headers) != 1:
            raise SchemaError(
                f"{table.source.label} has no header: its first row is {show_row([field.encode() for field in row])}",
                hint=f"name its {len(row)} columns in order, for example --columns "
                + ",".join(f"c{i}" for i in range(1, len(row) + 1)),
            )
        result.append(replace(table, dialect=replace(table.dialect, header=headers.pop())))
    return result


def _first_row(head: bytes, dialect: Dialect) -> tuple[str, ...]:
    from luckyfast.ingestion.records import read_records

    rows = read_records(head[dialect.header_stop :], dialect.delimiter, dialect.quote, complete=True, n_rows=1).rows
    return tuple(field.decode(errors="replace") for field in rows[0])


def _count(tables: Sequence[RawTable]) -> str:
    name = _name(tables[0])
    return f"{name} has" if len(tables) == 1 else f"{len(tables)} files ({name}, ...) have"


def _name(table: RawTable) -> str:
    return Path(table.source.label).name


def _folded(table: RawTable) -> list[str]:
    return [name.casefold() for name in table.dialect.header]


def _column_set(table: RawTable) -> frozenset[str]:
    return frozenset(name.casefold() for name in table.dialect.header)
