"""The features of visits as columns of a shard, and those columns as events again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

__all__ = ["DECIMALS", "FeatureReader", "feature_columns", "write_entries"]

DECIMALS = 6
"""Numbers are kept in millionths, with 18 digits."""


def feature_columns(features: Sequence[tuple[str, str]]) -> list[tuple[str, Any, tuple[int, int]]]:
    """The columns of a shard that hold features: list columns with an entry per visit.

    A number has `feature.NAME.sum`, decimal128(18, 6), over the rows of a visit that have a value, and how many there
    are, `feature.NAME.rows`. A category has `feature.NAME.category`, the id of the most frequent one, 0 for none, how
    many `rows` have it, and how many have `others`.

    Args:
        features: name and kind of each.

    Returns:
        Name, type of the entries, and which they are: (feature, 0 for the value, 1 for its rows, 2 for others).
    """
    import pyarrow as pa

    columns: list[tuple[str, Any, tuple[int, int]]] = []
    for k, (name, kind) in enumerate(features):
        if kind == "number":
            columns.append((f"feature.{name}.sum", pa.decimal128(18, DECIMALS), (k, 0)))
            columns.append((f"feature.{name}.rows", pa.int32(), (k, 1)))
        else:
            parts = enumerate(("category", "rows", "others"))
            columns += [(f"feature.{name}.{what}", pa.int32(), (k, part)) for part, what in parts]
    return columns


def write_entries(values: NDArray[np.int64] | NDArray[np.int32], kind: pa.DataType) -> pa.Array:
    """An array of decimals, given in their smallest unit, or of int32."""
    import pyarrow as pa

    # a decimal of 128 bits: the low half, and the high one, which is the sign
    entries = (
        np.stack((values, values >> 63), axis=1) if pa.types.is_decimal(kind) else values.astype(np.int32, copy=False)
    )
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(entries)])


class FeatureReader:
    """Reads the features of a dataset as those of events.

    Args:
        features: name and kind of each.
        categories: uint32, for each of them the ids of its categories in the run.
    """

    def __init__(self, features: Sequence[tuple[str, str]] = (), categories: Sequence[NDArray[np.uint32]] = ()) -> None:
        self._features = features
        self._categories = categories

    @property
    def n_features(self) -> int:
        """How many there are."""
        return len(self._features)

    @property
    def columns(self) -> list[tuple[str, np.dtype[Any]]]:
        """The columns to read, and what their entries are: of decimals both halves."""
        wide, narrow = np.dtype(("i8", (2,))), np.dtype("i4")
        found = feature_columns(self._features)
        return [(name, wide if kind.bit_width == 128 else narrow) for name, kind, _ in found]

    def spread(self, columns: Iterable[NDArray[Any]], n_events: NDArray[np.uint32]) -> NDArray[np.int64]:
        """Values for the events of some visits that give the features of these; which event has which is no matter.

        Args:
            columns: the entries of all `columns` for these visits.
            n_events: of each visit.

        Returns:
            int64, one value per feature for each event; see `luckyfast.kernels.merge.group_features`.
        """
        # whoever only opens datasets needs no compiled kernels
        from luckyfast.kernels import merge as kernel

        left = iter(columns)
        values = np.full((int(n_events.sum(dtype=np.int64)), len(self._features)), kernel.NO_VALUE, np.int64)
        first = np.cumsum(n_events, dtype=np.int64) - n_events
        for k, (_, kind) in enumerate(self._features):
            entry, n_rows = next(left), next(left).astype(np.int64)
            rows = np.repeat(first, n_rows) + _counted(n_rows)
            if kind == "number":
                values[rows, k] = 0
                values[first[n_rows > 0], k] = entry[n_rows > 0, 0]
            else:
                n_others = next(left).astype(np.int64)
                values[rows, k] = np.repeat(self._categories[k][entry], n_rows)
                values[np.repeat(first + n_rows, n_others) + _counted(n_others), k] = kernel.MIXED
        return values.ravel()


def _counted(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """0, 1, ... of each size, one after another."""
    return np.arange(int(sizes.sum())) - np.repeat(np.cumsum(sizes) - sizes, sizes)
