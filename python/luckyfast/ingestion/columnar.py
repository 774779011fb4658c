"""Parquet and Arrow files: their columns from a sample, and their batches as rows of text fields for the parser.

A value is written as text in the one way in which Arrow does it (whole decimals such as 17850.0 as 17850, times as ISO
8601), so that a log may lie partly in such files and partly in delimited ones.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from luckyfast import _engine
from luckyfast.errors import InputError
from luckyfast.ingestion.columns import flat_column
from luckyfast.ingestion.stream import Block, Workspace

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from luckyfast.ingestion.plan import FilePlan, Source

__all__ = ["ColumnarReader", "copy_beginning", "sample_columns"]

BATCH_ROWS = 1 << 14
_TEXT_BYTES = 1 << 20
_READ_BYTES = 1 << 18
_SEPARATOR, _LINE_END = b"\x1f", b"\n"


class ColumnarReader:
    """One open Parquet or Arrow file, read in order; for its methods see `SourceReader`.

    Each row counts as an equal share of the file's bytes, so that what is read compares with its size. The offset
    of a rejected row is its number, and the row is shown as the JSON of the columns that are read.

    Args:
        source: index of the source.
        plan: what to read.
        start: where to go on, if not at the beginning: the end of a block.
    """

    header_lines = 0

    def __init__(self, source: int, plan: FilePlan, start: int | None = None) -> None:
        self.source = source
        self._file = plan.source
        self._names = tuple(plan.dialect.header[column] for column in plan.needed)
        self._stack = ExitStack()
        self._batches: Iterator[list[Any]] | None = None
        self._offset = start or 0
        self._row_bytes = 1
        self._is_over = False

    @property
    def is_open(self) -> bool:
        """Whether reading has begun."""
        return self._batches is not None

    @property
    def disk_bytes(self) -> int:
        """How much of the file has been read, which is only known at its end."""
        return self._file.size_bytes if self._is_over else 0

    def cut(self, workspace: Workspace) -> tuple[Block, int, bool] | None:
        """The next rows, not yet as text."""
        with _named_errors(self._file):
            if self._batches is None:
                self._row_bytes = max(1, self._file.size_bytes // max(1, _count_rows(self._file)))
                n_done = self._offset // self._row_bytes
                self._batches = _skip_rows(_read_batches(self._file, self._names, self._stack), n_done)
            columns = next(self._batches, None)
        if columns is None:
            self._is_over = True
            self.close()
            return None
        n_rows = len(columns[0])
        rows = _Rows(self._names, columns, self._offset // self._row_bytes)
        n_bytes = n_rows * self._row_bytes
        block = Block(self.source, self._offset, n_bytes, workspace, n_lines=n_rows, original=rows)
        self._offset += n_bytes
        return block, n_rows, False

    def index(self, block: Block, n_rows: int, _: bool) -> Block:
        """Write the rows of a block as text, a field per column and an empty one behind them, with their index."""
        assert isinstance(block.original, _Rows)
        with _named_errors(self._file):
            text, separators = _write_rows(block.original.columns)
        workspace = block.workspace
        workspace.make_room(len(text))
        workspace.buffer[: len(text)] = text
        n_fields = separators.shape[1]
        workspace.separators[: separators.size] = separators.ravel()
        workspace.row_stops[:n_rows] = np.arange(1, n_rows + 1, dtype=np.uint32) * np.uint32(n_fields)
        block.rows, block.scratch = (0, n_rows), len(text) + _engine.SLACK
        return block

    def close(self) -> None:
        """Close the file before its end."""
        self._stack.close()


class _Rows:
    """The rows of a batch."""

    def __init__(self, names: Sequence[str], columns: list[Any], first: int) -> None:
        self.columns = columns
        self._names = names
        self._first = first

    def take(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], list[bytes]]:
        """See `Original`; the bytes are JSON, so that they can be mended and read again."""
        import pyarrow as pa

        chosen = flat_column(rows, pa.int64())
        values = [column.take(chosen).to_pylist() for column in self.columns]
        raws = [
            json.dumps(dict(zip(self._names, row, strict=True)), default=_show, ensure_ascii=False)
            for row in zip(*values, strict=True)
        ]
        return self._first + rows, [raw.encode("utf-8", "surrogateescape") for raw in raws]


def copy_beginning(source: Source, path: Path) -> int:
    """Write the first rows of a file as an Arrow file; returns its size in bytes."""
    import pyarrow as pa

    with ExitStack() as stack, _named_errors(source):
        sink = stack.enter_context(pa.OSFile(str(path), "wb"))
        writer = stack.enter_context(pa.ipc.new_file(sink, _schema(source)))
        n_rows = 0
        for batch in _open_batches(source, stack):
            writer.write_batch(batch[: BATCH_ROWS - n_rows])
            n_rows += batch.num_rows
            if n_rows >= BATCH_ROWS:
                break
    return path.stat().st_size


def sample_columns(source: Source, n_rows: int) -> tuple[list[str], list[tuple[str, ...]]]:
    """The columns of a file and some rows of it as text.

    Args:
        source: a Parquet or Arrow file.
        n_rows: about so many rows, from the beginning, the middle and the end.

    Returns:
        The names, those inside structs joined by dots; lists and maps are left out. And the rows.

    Raises:
        InputError: the file cannot be read or is damaged.
    """
    with ExitStack() as stack, _named_errors(source):
        names = [name for field in _schema(source) for name in _flatten_field(field, "")]
        parts = []
        for columns in _sample_batches(source, names, stack, n_rows):
            texts = [[value.decode(errors="replace") for value in _as_text(column).to_pylist()] for column in columns]
            parts += list(zip(*texts, strict=True))
    return names, parts


def _sample_batches(source: Source, names: Sequence[str], stack: ExitStack, n_rows: int) -> Iterator[list[Any]]:
    if source.form == "parquet":
        file = _open_parquet(source, stack)
        n_groups = file.num_row_groups
        groups = sorted({0, n_groups // 2, n_groups - 1}) if n_groups else []
        for group in groups:
            batches = file.iter_batches(max(1, n_rows // len(groups)), row_groups=[group], columns=list(names))
            batch = next(batches, None)
            if batch is not None:
                yield [_find_column(batch, name) for name in names]
        return
    file = _open_arrow(source, stack)
    n_batches = file.num_record_batches
    places = sorted({0, n_batches // 2, n_batches - 1}) if n_batches else []
    for place in places:
        batch = file.get_batch(place)[: max(1, n_rows // len(places))]
        yield [_find_column(batch, name) for name in names]


def _read_batches(source: Source, names: Sequence[str], stack: ExitStack) -> Iterator[list[Any]]:
    """Batches of the columns of these names."""
    for batch in _open_batches(source, stack, names):
        columns = [_find_column(batch, name) for name in names]
        # text takes about as much as the columns do
        n_bytes = sum(column.nbytes for column in columns)
        n_rows = max(1, min(BATCH_ROWS, batch.num_rows * _TEXT_BYTES // max(n_bytes, 1)))
        for start in range(0, batch.num_rows, n_rows):
            yield [column[start : start + n_rows] for column in columns]


def _skip_rows(batches: Iterator[list[Any]], n_rows: int) -> Iterator[list[Any]]:
    for columns in batches:
        if n_rows < len(columns[0]):
            yield [column[n_rows:] for column in columns] if n_rows else columns
        n_rows = max(0, n_rows - len(columns[0]))


def _open_batches(source: Source, stack: ExitStack, names: Sequence[str] | None = None) -> Iterator[Any]:
    if source.form == "parquet":
        yield from _open_parquet(source, stack).iter_batches(BATCH_ROWS, columns=None if names is None else list(names))
    else:
        file = _open_arrow(source, stack)
        yield from (file.get_batch(i) for i in range(file.num_record_batches))


def _count_rows(source: Source) -> int:
    with ExitStack() as stack:
        if source.form == "parquet":
            return int(_open_parquet(source, stack).metadata.num_rows)
        return int(_open_arrow(source, stack).count_rows())


def _schema(source: Source) -> Any:
    with ExitStack() as stack:
        if source.form == "parquet":
            return _open_parquet(source, stack).schema_arrow
        return _open_arrow(source, stack).schema


def _open_parquet(source: Source, stack: ExitStack) -> Any:
    import pyarrow.parquet as pq

    # with a buffer of its own, a row group is not held whole
    return stack.enter_context(pq.ParquetFile(str(source.path), buffer_size=_READ_BYTES, pre_buffer=False))


def _open_arrow(source: Source, stack: ExitStack) -> Any:
    import pyarrow as pa

    file = stack.enter_context(pa.OSFile(str(source.path)))
    return stack.enter_context(pa.ipc.open_file(file))


def _flatten_field(field: Any, prefix: str) -> Iterator[str]:
    import pyarrow as pa

    if pa.types.is_struct(field.type):
        for inner in field.type:
            yield from _flatten_field(inner, f"{prefix}{field.name}.")
    elif not pa.types.is_nested(field.type):
        yield prefix + field.name


def _find_column(batch: Any, name: str) -> Any:
    """The column of a name, or the one inside structs that its parts name."""
    import pyarrow.compute as pc

    for i, own in enumerate(batch.schema.names):
        if own == name:
            return batch.column(i)
        if name.startswith(f"{own}."):
            column, rest = batch.column(i), name[len(own) + 1 :]
            return pc.struct_field(column, _struct_path(column.type, rest))
    raise KeyError(name)


def _struct_path(kind: Any, name: str) -> list[str]:
    for inner in kind:
        if inner.name == name:
            return [name]
        if name.startswith(f"{inner.name}.") and hasattr(inner.type, "num_fields"):
            return [inner.name, *_struct_path(inner.type, name[len(inner.name) + 1 :])]
    raise KeyError(name)


def _as_text(column: Any) -> Any:
    """A column as bytes of text, nothing for null."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), None, column)
    binary = pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)
    if not binary and not pa.types.is_fixed_size_binary(column.type):
        column = column.cast(pa.large_string())
    return pc.fill_null(column.cast(pa.large_binary()), b"")


def _write_rows(columns: list[Any]) -> tuple[NDArray[np.uint8], NDArray[np.uint32]]:
    """Rows of columns as text, and where each field of each row ends."""
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = [_as_text(column) for column in columns]
    n_rows = len(texts[0])
    line_end, separator = (pa.scalar(byte, pa.large_binary()) for byte in (_LINE_END, _SEPARATOR))
    rows = pc.binary_join_element_wise(*texts, line_end, separator)
    starts = np.frombuffer(rows.buffers()[1], np.int64)[rows.offset : rows.offset + n_rows + 1]
    text = np.frombuffer(rows.buffers()[2], np.uint8)[starts[0] : starts[-1]]
    separators = np.empty((n_rows, len(texts) + 1), np.uint32)
    at = starts[:-1] - starts[0] - 1
    for i, column in enumerate(texts):
        stops = np.frombuffer(column.buffers()[1], np.int64)[column.offset : column.offset + n_rows + 1]
        at = at + 1 + np.diff(stops)
        separators[:, i] = at
    separators[:, -1] = starts[1:] - starts[0] - 1
    return text, separators


def _show(value: Any) -> str:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)


class _named_errors:  # noqa: N801
    """Errors of Arrow as those of a file."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        import pyarrow as pa

        if isinstance(error, pa.ArrowException | OSError):
            raise InputError(
                f"{self._source.path} is a {self._source.form.capitalize()} file but damaged or cut short: "
                f"{str(error).splitlines()[0][:200]}",
                hint="copy it again, and test it with pyarrow",
            ) from error
