"""Predictions that somebody else made for the target visits, from a Parquet file of any order and size."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from luckyfast.dataset import Dataset, Histories
from luckyfast.errors import InputError, OutputExistsError
from luckyfast.files import completed
from luckyfast.kernels.submissions import fill_rows, find_visits, hash_names
from luckyfast.windows import Split, target_visits

__all__ = ["VALUES", "Submission", "open_submission", "write_targets"]

VALUES = ("score", "probability", "chance")
"""What a file may say of an action; the name of the column says which."""

PARTITION_BYTES = 2**25
_READ_ROWS = 2**16
_WRITE_BYTES = 2**26
_BLOCK_SCORES = 2**20
_RECORD = np.dtype([("customer", "u8"), ("visit", "u8"), ("action", "i4"), ("value", "f4")])
_HINT = "see what a file holds with: luckyfast evaluate --help"


def write_targets(dataset: Dataset, split: Split, path: str | Path, *, overwrite: bool = False) -> int:
    """Write which visits are to be predicted, and nothing of what they hold.

    Args:
        dataset: the dataset.
        split: its split.
        path: Parquet file to write, one row per visit: ``customer``, ``time``, ``visit`` (its key in the dataset),
            ``part`` (``valid`` to calibrate on, or ``test``) and ``n_earlier``, how many earlier visits there are.
        overwrite: replace the file if it exists.

    Returns:
        The number of visits.

    Raises:
        OutputExistsError: the file exists.

    Example:
        >>> write_targets(dataset, split_by_time(dataset), folder / "targets.parquet") > 0
        True
    """
    file = Path(path)
    if file.exists() and not overwrite:
        raise OutputExistsError(f"{file} exists already", hint="choose another file, or add --overwrite")
    time = pa.timestamp("us") if dataset.time_kind == "clock" else pa.int64()
    columns = {
        "customer": pa.string(),
        "time": time,
        "visit": pa.uint64(),
        "part": pa.string(),
        "n_earlier": pa.int32(),
    }
    n_targets = 0
    with completed(file) as partial, pq.ParquetWriter(partial, pa.schema(columns)) as writer:
        for histories in dataset.batches():
            for part in ("valid", "test"):
                targets = target_visits(histories, split, part)
                if part == "test":  # those of too short histories are measured apart; nothing is calibrated on them
                    targets = np.sort(np.concatenate((targets, target_visits(histories, split, part, short=True))))
                owners = np.searchsorted(histories.visit_start, targets, side="right") - 1
                n_earlier = (targets - histories.visit_start[owners]).astype(np.int32)
                values = (
                    histories.customers.take(pa.array(owners)),
                    pa.array(histories.visit_time[targets]).cast(time),
                    pa.array(histories.visit_key[targets]),
                    pa.array([part] * len(targets), pa.string()),
                    pa.array(n_earlier),
                )
                writer.write_table(pa.table(list(values), schema=pa.schema(columns)))
                n_targets += len(targets)
    return n_targets


@contextmanager
def open_submission(path: str | Path, dataset: Dataset) -> Iterator[Submission]:
    """Read a file of predictions into a temporary folder, sorted by customer; memory does not grow with the file.

    The file has one row per visit and action (``customer``, ``time`` or ``visit``, ``action``, and one of
    ``score``, ``probability``, ``chance``), in any order, or one row per visit (``customer``, ``time`` or ``visit``,
    a list ``actions``, best first, and optionally a list ``score``, ``probability`` or ``chance``). ``visit`` is the
    key in the targets file, or the visit's own id as text; with ``time`` alone the prediction is for all visits of
    that customer at that time.

    Args:
        path: the Parquet file.
        dataset: the dataset whose visits are predicted.

    Yields:
        The submission.

    Raises:
        InputError: the file is missing or damaged, or lacks a column, or its values are no predictions.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError(f"no such file: {file}", hint="give a Parquet file of predictions")
    with tempfile.TemporaryDirectory(prefix="luckyfast-") as folder:
        try:
            with pq.ParquetFile(file) as parquet:
                form = _Form.of(file, parquet.schema_arrow)
                size = _n_values(parquet, form.action) * _RECORD.itemsize
                bits = max((size - 1) // PARTITION_BYTES, 0).bit_length()
                submission = Submission(
                    file.stem, form.kind, by_key=form.visit == "visit", bits=bits, folder=Path(folder)
                )
                submission.n_unknown = _partition(submission, parquet, form, dataset)
        except (pa.ArrowException, OSError) as error:  # damaged pages are the latter, without a number
            if isinstance(error, OSError) and error.errno:
                raise
            raise InputError(f"{file} cannot be read as Parquet: {error}", hint="write it again") from error
        yield submission


def _n_values(parquet: pq.ParquetFile, column: str) -> int:
    """How many values a column has, those in its lists counted."""
    paths = [parquet.schema.column(index).path.split(".")[0] for index in range(len(parquet.schema))]
    index = paths.index(column)
    groups = range(parquet.num_row_groups)
    return sum(parquet.metadata.row_group(group).column(index).num_values for group in groups)


class Submission:
    """Predictions sorted by customer: what :func:`open_submission` gives.

    Args:
        name: of the system.
        kind: one of :data:`VALUES`.
        by_key: whether visits are known by their key and not by their time.
        bits: leading bits of the customer's hash that number the partitions.
        folder: where the partitions are.
    """

    def __init__(self, name: str, kind: str, *, by_key: bool, bits: int, folder: Path) -> None:
        self.name, self.kind = name, kind
        self.n_unknown = 0
        self._by_key, self._bits, self._folder = by_key, bits, folder
        self._loaded: tuple[int, _Partition] | None = None
        self._n_visits: dict[int, int] = {}

    @property
    def n_visits(self) -> int:
        """Visits in the partitions that were read so far: all of them after a pass over the dataset."""
        return sum(self._n_visits.values())

    def score(
        self, histories: Histories, targets: NDArray[np.int64], n_actions: int
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]]:
        """Lay out the predictions of some visits.

        Args:
            histories: a batch of the dataset.
            targets: int64 [n], ascending visits local to the batch.
            n_actions: number of actions, the unknown one included.

        Yields:
            Blocks ``(targets int64 [m], scores float32 [m, n_actions], found int64 [m])``; where a visit has no
            prediction, ``found`` is -1 and the row is even.
        """
        hashes = _hash(histories.customers)
        owners = np.searchsorted(histories.visit_start, targets, side="right") - 1
        visits = (histories.visit_key if self._by_key else histories.visit_time.view(np.uint64))[targets]
        partitions = _leading(hashes[owners], self._bits)
        # Customers are ordered by their hash, so partitions follow each other.
        bounds = np.append(np.flatnonzero(np.diff(partitions, prepend=-1)), len(targets))
        size = max(_BLOCK_SCORES // n_actions, 1)
        for begin, end in itertools.pairwise(bounds.tolist()):
            partition = self._load(int(partitions[begin]))
            for start in range(begin, end, size):
                part = slice(start, min(start + size, end))
                found = np.empty(part.stop - start, np.int64)
                find_visits(partition.customers, partition.visits, hashes[owners[part]], visits[part], found)
                rows = np.empty((len(found), n_actions), np.float32)
                fill_rows(found, partition.start, partition.actions, partition.values, VALUES.index(self.kind), rows)
                yield targets[part], rows, found

    def _load(self, number: int) -> _Partition:
        if self._loaded is None or self._loaded[0] != number:
            file = self._folder / str(number)
            records = np.fromfile(file, _RECORD) if file.exists() else np.empty(0, _RECORD)
            self._loaded = number, _Partition.of(records)
            self._n_visits[number] = len(self._loaded[1].visits)
        return self._loaded[1]


@dataclass(frozen=True, eq=False)
class _Partition:
    """Predictions in ascending order of customer and visit; visit ``v`` has the pairs ``start[v]:start[v + 1]``."""

    customers: NDArray[np.uint64]
    visits: NDArray[np.uint64]
    start: NDArray[np.int64]
    actions: NDArray[np.int32]
    values: NDArray[np.float32]

    @classmethod
    def of(cls, records: NDArray[Any]) -> _Partition:
        records = records[np.lexsort((records["action"], records["visit"], records["customer"]))]
        customers, visits, actions = (np.ascontiguousarray(records[name]) for name in ("customer", "visit", "action"))
        begins = np.ones(len(records), np.bool_)
        begins[1:] = (customers[1:] != customers[:-1]) | (visits[1:] != visits[:-1])
        if (~begins[1:] & (actions[1:] == actions[:-1])).any():
            raise InputError("a visit has two predictions for the same action", hint="keep one of them")
        start = np.flatnonzero(begins)
        values = np.ascontiguousarray(records["value"])
        return cls(customers[start], visits[start], np.append(start, len(records)), actions, values)


@dataclass(frozen=True)
class _Form:
    """Which columns of a file are read."""

    file: Path
    visit: str
    action: str
    value: str | None

    @property
    def kind(self) -> str:
        return self.value or "score"

    @property
    def columns(self) -> list[str]:
        return ["customer", self.visit, self.action, *([self.value] if self.value else [])]

    @classmethod
    def of(cls, file: Path, schema: pa.Schema) -> _Form:
        """Find the columns by their names.

        Raises:
            InputError: some are missing, or it is not clear what to read.
        """

        def one_of(*names: str) -> list[str]:
            return [name for name in names if name in schema.names]

        def refuse(problem: str) -> InputError:
            return InputError(f"{file} {problem}; it has {', '.join(schema.names[:12])}", hint=_HINT)

        visit, action, value = one_of("visit", "time")[:1], one_of("action", "actions"), one_of(*VALUES)
        for found, what in ((one_of("customer"), "customer"), (visit, "visit or time"), (action, "action or actions")):
            if not found:
                raise refuse(f"has no column {what}")
        if len(action) > 1 or len(value) > 1:
            raise refuse(f"says more than one thing: {' and '.join(action if len(action) > 1 else value)}")
        if action == ["action"] and not value:
            raise refuse(f"has no column {', '.join(VALUES[:-1])} or {VALUES[-1]}")
        for name in [*action[action == ["action"] :], *(value if action == ["actions"] else [])]:
            if not (pa.types.is_list(schema.field(name).type) or pa.types.is_large_list(schema.field(name).type)):
                raise refuse(f"has no list in its column {name}")
        return cls(file, visit[0], action[0], value[0] if value else None)


def _partition(submission: Submission, parquet: pq.ParquetFile, form: _Form, dataset: Dataset) -> int:
    """Write the records of a file into partitions; returns how many values were for unknown actions."""
    names = pa.array(dataset.vocabulary[1:], pa.string())
    waiting: list[NDArray[Any]] = []
    n_unknown = 0

    def flush() -> None:
        if not waiting:
            return
        records = np.concatenate(waiting)
        waiting.clear()
        numbers = _leading(records["customer"], submission._bits)
        order = np.argsort(numbers, kind="stable")
        bounds = np.append(np.flatnonzero(np.diff(numbers[order], prepend=-1)), len(order))
        for begin, end in itertools.pairwise(bounds.tolist()):
            with (submission._folder / str(numbers[order[begin]])).open("ab") as sink:
                records[order[begin:end]].tofile(sink)

    for batch in parquet.iter_batches(_READ_ROWS, columns=form.columns):
        records, known = _records(batch, form, dataset.time_kind, names)
        n_unknown += int((~known).sum())
        waiting.append(records[known])
        if sum(part.nbytes for part in waiting) >= _WRITE_BYTES:
            flush()
    flush()
    return n_unknown


def _records(
    batch: pa.RecordBatch, form: _Form, time_kind: str, names: pa.Array
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """The records of some rows, and which of them name a known action."""

    def column(name: str) -> pa.Array:
        values = batch.column(batch.schema.get_field_index(name))
        if values.null_count:
            raise InputError(f"{form.file} has rows without {name}", hint="leave such rows out")
        return values

    customers = _hash(_text(form, "customer", column("customer")))
    visits = _visits(form, column(form.visit), time_kind)
    actions = column(form.action)
    lists = form.action == "actions"
    sizes = pc.list_value_length(actions).to_numpy() if lists else np.ones(batch.num_rows, np.int64)
    actions = actions.flatten() if lists else actions
    if form.value is None:
        # Best first: the place in the list is the score.
        places = np.arange(len(actions)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        values = -places.astype(np.float32)
    else:
        given = column(form.value)
        if lists and not pc.list_value_length(given).equals(pc.list_value_length(batch.column(form.action))):
            raise InputError(f"{form.file} has lists of unequal length", hint=f"give each action one {form.value}")
        given = given.flatten() if lists else given
        values = _cast(form, form.value, given, pa.float32()).to_numpy(zero_copy_only=False)
    if not np.isfinite(values).all():
        raise InputError(f"{form.file} has a {form.kind} that is no number", hint="leave such rows out")
    if form.kind != "score" and len(values) and not 0.0 <= values.min() <= values.max() <= 1.000001:
        raise InputError(f"{form.file} has a {form.kind} outside 0 to 1", hint="call the column score if it is one")
    ids = pc.fill_null(pc.index_in(_text(form, form.action, actions), names), -1).to_numpy()
    records = np.empty(len(values), _RECORD)
    records["customer"], records["visit"] = np.repeat(customers, sizes), np.repeat(visits, sizes)
    records["action"], records["value"] = ids + 1, values
    return records, ids >= 0


def _visits(form: _Form, column: pa.Array, time_kind: str) -> NDArray[np.uint64]:
    """Keys or times of visits as 64 bits."""
    if form.visit == "visit":
        if pa.types.is_integer(column.type):
            keys: NDArray[np.uint64] = column.to_numpy(zero_copy_only=False).astype(np.uint64)
            return keys
        return _hash(_text(form, "visit", column))
    if time_kind == "order" or pa.types.is_integer(column.type):
        times = _cast(form, "time", column, pa.int64())
    else:
        times = _cast(form, "time", column, pa.timestamp("us", getattr(column.type, "tz", None))).view(pa.int64())
    values: NDArray[np.uint64] = times.to_numpy(zero_copy_only=False).view(np.uint64)
    return values


def _text(form: _Form, name: str, column: pa.Array) -> pa.Array:
    return _cast(form, name, column, pa.string())


def _cast(form: _Form, name: str, column: pa.Array, type_: pa.DataType) -> pa.Array:
    try:
        return column.cast(type_)
    except pa.ArrowException as error:
        raise InputError(
            f"{form.file} has a column {name} of type {column.type}, which is not read as {type_}", hint=_HINT
        ) from error


def _hash(names: pa.Array) -> NDArray[np.uint64]:
    """The hash that orders customers in a dataset."""
    hashes = np.empty(len(names), np.uint64)
    _, offsets, data = names.buffers()
    if len(names):
        bounds = np.frombuffer(offsets, np.int32)[names.offset : names.offset + len(names) + 1].astype(np.int64)
        hash_names(np.frombuffer(data or b"", np.uint8), bounds, hashes)
    return hashes


def _leading(hashes: NDArray[np.uint64], bits: int) -> NDArray[np.int64]:
    """The first bits of each hash."""
    if bits == 0:
        return np.zeros(len(hashes), np.int64)
    return (hashes >> np.uint64(64 - bits)).astype(np.int64)
