"""The order of a list of offers, against its definition in plain Python."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from luckyfast.offers import offer_order

FEW = st.sampled_from([-1.5, 0.0, 0.25, 0.5, 1.0])
TABLES = st.tuples(st.integers(0, 4), st.integers(1, 6)).flatmap(
    lambda shape: st.tuples(
        *(st.lists(st.lists(FEW, min_size=shape[1], max_size=shape[1]), min_size=shape[0], max_size=shape[0]),) * 2,
        st.just(shape),
    )
)


@given(TABLES)
def test_the_likeliest_comes_first_and_the_others_stay(
    tables: tuple[list[list[float]], list[list[float]], tuple[int, int]],
) -> None:
    scores, chances = (np.array(table, np.float32).reshape(tables[2]) for table in tables[:2])
    before = scores.copy()
    order = offer_order(scores, chances)
    assert order.dtype == np.float32
    np.testing.assert_array_equal(scores, before)
    for own_scores, own_chances, found in zip(*tables[:2], order.tolist(), strict=True):
        first = max(zip(own_chances, own_scores, strict=True))
        for score, chance, place in zip(own_scores, own_chances, found, strict=True):
            assert place == (math.inf if (chance, score) == first else score)


def test_an_unknown_score_may_come_first() -> None:
    order = offer_order(np.array([[-np.inf, 1.0]], np.float32), np.array([[0.9, 0.1]], np.float32))
    assert order.tolist() == [[math.inf, 1.0]]
