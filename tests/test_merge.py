"""The kernels of the merge against their plain meaning."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from luckyfast.kernels.merge import sort_ids


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
