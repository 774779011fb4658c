"""How many raw rows come twice in a visit: told from a sample of visits, or removed where the user asks for it.

Repeated clicks and equal lines of a receipt are legitimate, so nothing is removed unasked. Rows are told apart by a
hash of 64 bits of their bytes: two different rows of a visit of 1,000 are taken for one once in 10^13 visits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["SAMPLE_ROWS", "DuplicateSample", "keep_first_rows", "thin_sample"]

SAMPLE_ROWS = 1 << 15


def thin_sample(
    keys: NDArray[np.uint64], rows: NDArray[np.uint64], bits: int
) -> tuple[NDArray[np.uint64], NDArray[np.uint64], int]:
    """Keep the visits whose keys begin with `bits` zero bits, or with so many more that few enough rows remain."""
    while True:
        if bits:
            kept = (keys >> np.uint64(64 - bits)) == 0
            keys, rows = keys[kept], rows[kept]
        if len(keys) < SAMPLE_ROWS or bits == 63:
            return keys, rows, bits
        bits += 1


class DuplicateSample:
    """All rows of as many visits, taken by their key, as fit into half a megabyte: the same for any order of work."""

    def __init__(self) -> None:
        self.keys = np.zeros(0, np.uint64)
        self.rows = np.zeros(0, np.uint64)
        self.bits = 0

    def add(self, keys: NDArray[np.uint64], rows: NDArray[np.uint64], bits: int) -> None:
        """Take in what a worker has sampled of the visits whose keys begin with `bits` zero bits."""
        self.keys, self.rows, self.bits = thin_sample(
            np.concatenate([self.keys, keys]), np.concatenate([self.rows, rows]), max(self.bits, bits)
        )

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """All of it as arrays, for a checkpoint."""
        return {"sample_keys": self.keys, "sample_rows": self.rows, "sample_bits": np.array(self.bits)}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Become what `to_arrays` has written down."""
        self.keys, self.rows, self.bits = state["sample_keys"], state["sample_rows"], int(state["sample_bits"])

    def measure(self) -> dict[str, Any]:
        """Rows of the sample, how many of them repeat another of their visit, and whether the sample is everything."""
        order = np.lexsort((self.rows, self.keys))
        keys, rows = self.keys[order], self.rows[order]
        n_repeats = int(((keys[1:] == keys[:-1]) & (rows[1:] == rows[:-1])).sum())
        n = len(keys)
        return {
            "share": round(n_repeats / n, 6) if n else 0.0,
            "rows_sampled": n,
            "repeated": n_repeats,
            "complete": self.bits == 0,
        }


def keep_first_rows(
    owner: NDArray[np.integer[Any]],
    key: NDArray[np.uint64],
    n_actions: NDArray[np.uint32],
    actions: NDArray[np.uint32],
    rows: NDArray[np.uint64],
) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Fragments without the rows that an earlier one of the same customer and visit equals.

    Args:
        owner: per fragment, its customer.
        key: per fragment, its visit.
        n_actions: per fragment, its rows.
        actions: per row.
        rows: per row, the hash of its bytes.

    Returns:
        The new `n_actions` and `actions`.
    """
    fragment = np.repeat(np.arange(len(n_actions)), n_actions)
    order = np.lexsort((rows, key[fragment], owner[fragment]))
    by_row = fragment[order]
    repeats = (
        (rows[order][1:] == rows[order][:-1])
        & (key[by_row][1:] == key[by_row][:-1])
        & (owner[by_row][1:] == owner[by_row][:-1])
    )
    kept = np.ones(len(actions), bool)
    kept[order[1:][repeats]] = False
    left = np.bincount(fragment[kept], minlength=len(n_actions)).astype(np.uint32)
    return left, actions[kept]
