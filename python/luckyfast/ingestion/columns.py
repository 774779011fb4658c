"""NumPy arrays and byte strings as Arrow arrays.

`pyarrow.array`, `scalar` and `repeat` are avoided on purpose: they import pandas where that is installed, which costs
50 MB and a fifth of a second.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["flat_column", "offsets", "repeated_column", "slice_column", "text_column"]


def offsets(sizes: NDArray[np.integer[Any]]) -> NDArray[np.int32]:
    """Where each of some stretches begins, and where the last one ends."""
    out = np.zeros(len(sizes) + 1, np.int32)
    np.cumsum(sizes, out=out[1:])
    return out


def flat_column(values: NDArray[np.generic], kind: Any) -> Any:
    """An Arrow array of a fixed-width type over the values, not copied."""
    import pyarrow as pa

    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(np.ascontiguousarray(values))])


def slice_column(data: NDArray[np.uint8], sizes: NDArray[np.integer[Any]], kind: Any) -> Any:
    """An Arrow array of strings or binaries that lie one after another."""
    import pyarrow as pa

    buffers = [None, pa.py_buffer(offsets(sizes)), pa.py_buffer(np.ascontiguousarray(data))]
    return pa.Array.from_buffers(kind, len(sizes), buffers)


def text_column(texts: Sequence[bytes]) -> Any:
    """An Arrow array of strings from their UTF-8 bytes."""
    import pyarrow as pa

    sizes = np.fromiter(map(len, texts), np.int64, len(texts))
    return slice_column(np.frombuffer(b"".join(texts), np.uint8), sizes, pa.string())


def repeated_column(choices: NDArray[np.integer[Any]], texts: Sequence[bytes]) -> Any:
    """An Arrow array of strings, `texts[choices[i]]` each."""
    import pyarrow as pa

    indices = flat_column(choices.astype(np.int32), pa.int32())
    return pa.DictionaryArray.from_arrays(indices, text_column(texts)).cast(pa.string())
