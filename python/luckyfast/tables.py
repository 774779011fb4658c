"""Write predictions as Parquet, CSV or JSON lines; the file takes its name only when it is complete."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from luckyfast.errors import InputError, ModelError
from luckyfast.offers import offer_order

__all__ = ["MAX_COLUMNS", "TableWriter"]

MAX_COLUMNS = 4096
_BLOCK_BYTES = 2**24


class TableWriter:
    """A file of predictions under construction.

    Args:
        path: ``.parquet``, ``.csv`` or ``.jsonl``.
        actions: names of the actions, in the order of the columns of chances.
        top: actions per customer, one row each; None writes one row per customer with a column per action.

    Raises:
        InputError: the file has another ending, or its folder does not exist.
        ModelError: there are too many actions for one column each.
    """

    def __init__(self, path: Path, actions: list[str], top: int | None) -> None:
        kind = path.suffix.lower()
        if kind not in (".parquet", ".csv", ".jsonl"):
            raise InputError(f"no format for {path.name!r}", hint="let the file end in .parquet, .csv or .jsonl")
        if not path.parent.is_dir():
            raise InputError(f"no folder {path.parent}", hint="make it first, or choose another file with --out")
        if top is None and len(actions) > MAX_COLUMNS and kind != ".jsonl":
            raise ModelError(
                f"{len(actions)} actions are too many for one column each",
                hint="add --top 10, or write .jsonl",
            )
        self.rows = 0
        self._path, self._kind, self._actions, self._top = path, kind, actions, top
        self._work = path.with_name(f"{path.name}.partial-{os.getpid()}")
        self._names = pa.array(actions, pa.string())
        self._sink: Any = None
        self._waiting: list[pa.Table] = []

    def __enter__(self) -> TableWriter:
        schema = self._schema()
        if self._kind == ".parquet":
            self._sink = pq.ParquetWriter(self._work, schema)
        elif self._kind == ".csv":
            self._sink = pa_csv.CSVWriter(self._work, schema)
        else:
            self._sink = self._work.open("w", encoding="utf-8")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._flush()
            self._sink.close()
            if kind is None:
                self._work.replace(self._path)
        finally:
            self._work.unlink(missing_ok=True)

    def write(self, customers: pa.Array, in_visit: NDArray[np.float32], next_action: NDArray[np.float32]) -> None:
        """Add the predictions of some customers.

        Args:
            customers: string array of B customers.
            in_visit: float32 [B, n_actions], chances of being in the next visit.
            next_action: float32 [B, n_actions], distribution of the next single action.
        """
        if self._top is not None:
            table = self._ranked(customers, in_visit, next_action, min(self._top, len(self._actions)))
        elif self._kind == ".jsonl":
            self._write_objects(customers, in_visit)
            return
        else:
            columns = [pa.array(np.ascontiguousarray(column)) for column in in_visit.T]
            table = pa.table([customers, *columns], schema=self._schema())
        self.rows += table.num_rows
        self._waiting.append(table)
        if sum(waiting.nbytes for waiting in self._waiting) >= _BLOCK_BYTES:
            self._flush()

    def _flush(self) -> None:
        if not self._waiting:
            return
        table = pa.concat_tables(self._waiting)
        self._waiting = []
        if self._kind == ".jsonl":
            rows = ({name: _short(value) for name, value in row.items()} for row in table.to_pylist())
            self._sink.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        else:
            self._sink.write_table(table)

    def _ranked(
        self, customers: pa.Array, in_visit: NDArray[np.float32], next_action: NDArray[np.float32], top: int
    ) -> pa.Table:
        places = -offer_order(next_action, in_visit)
        best = np.argpartition(places, top - 1, axis=1)[:, :top]
        best.sort(axis=1)
        order = np.argsort(np.take_along_axis(places, best, axis=1), axis=1, kind="stable")
        best = np.take_along_axis(best, order, axis=1)
        n_rows = len(customers)
        return pa.table(
            [
                customers.take(pa.array(np.repeat(np.arange(n_rows), top))),
                pa.array(np.tile(np.arange(1, top + 1, dtype=np.int32), n_rows)),
                self._names.take(pa.array(best.ravel())),
                pa.array(np.take_along_axis(in_visit, best, axis=1).ravel()),
                pa.array(np.take_along_axis(next_action, best, axis=1).ravel()),
            ],
            schema=self._schema(),
        )

    def _write_objects(self, customers: pa.Array, in_visit: NDArray[np.float32]) -> None:
        for customer, chances in zip(customers.to_pylist(), in_visit.tolist(), strict=True):
            line = {"customer": customer, "chances": dict(zip(self._actions, map(_short, chances), strict=True))}
            self._sink.write(json.dumps(line, ensure_ascii=False) + "\n")
        self.rows += len(customers)

    def _schema(self) -> pa.Schema:
        if self._top is None:
            # An action may be called as the first column is.
            names = [f"{name} (action)" if name == "customer" else name for name in self._actions]
            return pa.schema([("customer", pa.string()), *((name, pa.float32()) for name in names)])
        return pa.schema(
            [
                ("customer", pa.string()),
                ("rank", pa.int32()),
                ("action", pa.string()),
                ("chance", pa.float32()),
                ("next_share", pa.float32()),
            ]
        )


def _short(value: Any) -> Any:
    """The same value with no more digits than tell one float32 from another."""
    return float(f"{value:.9g}") if isinstance(value, float) else value
