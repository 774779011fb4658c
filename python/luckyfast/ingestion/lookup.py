"""The table that holds the action of each product: read whole, checked, and laid out for joining."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luckyfast.errors import InputError, SchemaError
from luckyfast.ingestion.dialect import detect_dialect, sample_rows
from luckyfast.ingestion.plan import Dialect, Feature, Lookup, Source
from luckyfast.ingestion.sampling import sample_text
from luckyfast.ingestion.sources import find_sources, open_source

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["ACTION_SEPARATOR", "TableSample", "read_lookup", "sample_table"]

ACTION_SEPARATOR = " / "


@dataclass(frozen=True)
class TableSample:
    """The column names of a lookup table and its first rows as text; `dialect` is None for Parquet."""

    path: Path
    source: Source
    names: tuple[str, ...]
    rows: list[tuple[str, ...]]
    dialect: Dialect | None


def sample_table(path: Path) -> TableSample:
    """Look into a lookup table: CSV or TSV with a header, also compressed, or Parquet.

    Args:
        path: the table.

    Returns:
        Its column names and up to 2,000 rows.

    Raises:
        InputError: missing, unreadable, or no table.
        SchemaError: it has no header.
    """
    if not path.is_file():
        raise InputError(f"no such lookup table: {path}", hint="check the path after --lookup")
    source = find_sources([path])[0]
    if source.form == "parquet":
        batch = next(_open_parquet(path).iter_batches(batch_size=2000), None)
        names = _open_parquet(path).schema_arrow.names
        columns = [_as_text(column).to_pylist() for column in batch.columns] if batch is not None else []
        return TableSample(path, source, tuple(names), list(zip(*columns, strict=True)), None)
    source, sample, _ = sample_text(source, full=True)
    dialect = detect_dialect(path, sample)
    if not dialect.has_header:
        raise SchemaError(f"the lookup table {path} has no header", hint="add a first row that names its columns")
    rows = sample_rows(sample, dialect, n_head=2000, n_block=0)
    if not rows:
        raise InputError(f"the lookup table {path} has no data rows", hint="give a table with one row per key")
    return TableSample(path, source, dialect.header, rows, dialect)


def read_lookup(
    table: TableSample,
    *,
    on: str,
    action: Sequence[str],
    nulls: Sequence[bytes] = (),
    features: Sequence[Feature] = (),
) -> Lookup:
    """Read a lookup table whole.

    Args:
        table: what `sample_table` returned.
        on: the key column, of the table and of the logs.
        action: the columns whose values, joined by " / ", are the action; none where it is no column of the table.
        nulls: texts that mean "no action".
        features: the columns that are kept beside the events.

    Returns:
        The table with its keys in file order. A row with any action column empty has the action "".

    Raises:
        InputError: rows that do not fit the header, or no rows.
        SchemaError: a column is missing, or one key has two different actions or values.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "products.csv"
        >>> _ = path.write_text("product_id,category\\n007,CHEESE\\n8,\\n")
        >>> lookup = read_lookup(sample_table(path), on="product_id", action=["category"])
        >>> lookup.key_bytes.tobytes(), lookup.key_start.tolist(), lookup.values
        (b'0078', [0, 3, 4], ('CHEESE', ''))
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    for name in (on, *action, *(feature.name for feature in features)):
        if table.names.count(name) != 1:
            problem = "has no column" if name not in table.names else "has more than one column"
            raise SchemaError(
                f"the lookup table {table.path} {problem} {name!r}; it has {', '.join(table.names)}",
                hint="name its columns with --on and --action",
            )
    wanted = list(dict.fromkeys((on, *action, *(feature.name for feature in features))))
    columns = _read_parquet(table.path, wanted) if table.dialect is None else _read_csv(table, wanted)
    keys = columns[on]
    columns_of: list[tuple[str, Sequence[str], Sequence[bytes]]] = [("action", action, nulls)] if action else []
    columns_of += [(feature.name, (feature.name,), feature.nulls) for feature in features]
    distinct, values = None, []
    for what, names, own_nulls in columns_of:
        value = _join_parts([columns[name] for name in names], own_nulls)
        pairs = pa.table({"key": keys, "value": value}).filter(pc.not_equal(keys, ""))
        if pairs.num_rows == 0:
            raise InputError(
                f"the lookup table {table.path} has no data rows", hint="give a table with one row per key"
            )
        # rows of one key come in the same order every time, since each key has one value
        distinct = _one_per_key(pairs, table.path, on, what)
        values.append(tuple(distinct["value"].to_pylist()))
    assert distinct is not None
    key_array = pa.concat_arrays(distinct["key"].chunks).cast(pa.large_binary())
    n_keys = len(key_array)
    key_start = np.frombuffer(key_array.buffers()[1], np.int64)[key_array.offset : key_array.offset + n_keys + 1]
    blob = np.frombuffer(key_array.buffers()[2], np.uint8)[key_start[0] : key_start[-1]]
    actions = values.pop(0) if action else ()
    return Lookup(table.path, on, n_keys, blob.copy(), key_start - key_start[0], actions, tuple(values))


def _join_parts(parts: Sequence[pa.ChunkedArray], nulls: Sequence[bytes]) -> pa.ChunkedArray:
    """Columns joined by " / ", nothing where one has no value."""
    import pyarrow as pa
    import pyarrow.compute as pc

    null_texts = pa.array([null.decode() for null in nulls], pa.large_string())
    parts = [pc.if_else(pc.is_in(part, value_set=null_texts), "", part) for part in parts]
    values = pc.binary_join_element_wise(*parts, pa.scalar(ACTION_SEPARATOR, pa.large_string()))
    for part in parts:
        values = pc.if_else(pc.equal(part, ""), "", values)
    return values


def _one_per_key(rows: pa.Table, path: Path, on: str, what: str) -> pa.Table:
    """The keys with the one value of each."""
    import pyarrow.compute as pc

    distinct = rows.group_by(["key", "value"], use_threads=False).aggregate([]).combine_chunks()
    counts = pc.value_counts(distinct["key"])
    twice = counts.filter(pc.greater(counts.field("counts"), 1))
    if len(twice):
        key = twice.field("values")[0].as_py()
        found = distinct.filter(pc.equal(distinct["key"], key))["value"].to_pylist()[:2]
        raise SchemaError(
            f"the lookup table {path} gives {len(twice)} keys more than one {what}: "
            f"{on} {key} is both {found[0]!r} and {found[1]!r}",
            hint="keep one row per key",
        )
    return distinct


def _read_csv(table: TableSample, wanted: list[str]) -> dict[str, pa.ChunkedArray]:
    import pyarrow as pa
    import pyarrow.csv as pa_csv

    dialect = table.dialect
    assert dialect is not None
    broken: list[str] = []

    def keep_broken(row: pa_csv.InvalidRow) -> str:
        broken.append(f"{row.actual_columns} fields instead of {row.expected_columns}: {(row.text or '')[:60]!r}")
        return "skip"

    # columns are named by position, since pyarrow refuses duplicate names even of columns that nobody wants
    labels = [str(i) for i in range(len(dialect.header))]
    indices = {name: str(table.names.index(name)) for name in wanted}
    with open_source(table.source) as stream:
        stream.read(dialect.header_stop)
        rest = stream.read()
    try:
        read = pa_csv.read_csv(
            pa.BufferReader(rest),
            read_options=pa_csv.ReadOptions(column_names=labels, use_threads=False),
            parse_options=pa_csv.ParseOptions(
                delimiter=chr(dialect.delimiter),
                quote_char=chr(dialect.quote) if dialect.quote is not None else False,
                newlines_in_values=True,
                invalid_row_handler=keep_broken,
            ),
            convert_options=pa_csv.ConvertOptions(
                column_types={index: pa.large_string() for index in indices.values()},
                include_columns=list(indices.values()),
                strings_can_be_null=False,
            ),
        )
    except pa.ArrowInvalid as error:
        raise InputError(f"cannot read the lookup table {table.path}: {error}", hint="check its rows") from error
    if broken:
        raise InputError(
            f"{len(broken)} rows of the lookup table {table.path} do not fit its header; the first has {broken[0]}",
            hint="mend these rows: the actions of their keys would be lost",
        )
    return {name: read[index] for name, index in indices.items()}


def _read_parquet(path: Path, wanted: list[str]) -> dict[str, pa.ChunkedArray]:
    import pyarrow as pa

    read = _open_parquet(path).read(columns=wanted, use_threads=False)
    texts = {name: [_as_text(chunk) for chunk in read[name].chunks] for name in wanted}
    return {name: pa.chunked_array(chunks, pa.large_string()) for name, chunks in texts.items()}


def _as_text(column: pa.Array) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    # pandas turns integer keys with gaps into floats
    if pa.types.is_floating(column.type) and pc.all(pc.equal(pc.floor(column), column)).as_py() is not False:
        column = column.cast(pa.int64())
    return pc.fill_null(column.cast(pa.large_string()), "")


def _open_parquet(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise InputError(f"cannot read the lookup table {path}: {error}", hint="copy it again") from error
