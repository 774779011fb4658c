"""The parts of the merge: its kernels against their plain meaning, and what is kept of very large customers."""

from __future__ import annotations

import tracemalloc
import weakref
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from luckyfast.kernels.merge import sort_ids

from luckyfast.ingestion.giants import Visits, _SortedFile


@pytest.mark.parametrize("n_ids", [1, 64, 300, 5000, 300_000])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_ids_are_sorted_and_the_bits_are_left_clear(n_ids: int, data: st.DataObject) -> None:
    seed, n = data.draw(st.integers(0, 2**32 - 1)), data.draw(st.integers(0, min(n_ids, 400)))
    ids = np.random.default_rng(seed).choice(n_ids, n, replace=False).astype(np.int32)
    bits = np.zeros((n_ids >> 6) + 1, np.uint64)
    used = np.zeros((len(bits) >> 6) + 1, np.uint64)
    found = np.append(ids, np.int32(-7))
    sort_ids(found, len(ids), bits, used)
    assert found[:-1].tolist() == sorted(ids.tolist())
    assert found[-1] == -7
    assert not bits.any()
    assert not used.any()


def test_sorted_files_keep_their_sample_alone(tmp_path: Path) -> None:
    """Of a customer larger than memory there are many such files, so each may hold on to no more than it says."""
    n = 100_000
    visits = Visits(
        np.arange(n), np.arange(n, dtype=np.uint64), np.ones(n, np.int64), np.ones(n, np.int32), np.ones(n, np.int32)
    )
    columns = [weakref.ref(column) for column in visits]
    tracemalloc.start()
    file = _SortedFile(tmp_path / "sorted", visits)
    del visits
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert all(column() is None for column in columns)
    assert held < 100_000
    assert file.read(70_001, 70_003).time.tolist() == [70_001, 70_002]
