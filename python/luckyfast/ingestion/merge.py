"""Runs to sorted histories, a stretch of customer hashes at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from luckyfast.errors import DatasetError
from luckyfast.ingestion.duplicates import keep_first_rows
from luckyfast.ingestion.partition import N_BUCKETS, Run, Segment
from luckyfast.kernels import merge as kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "MERGE_EXPANSION",
    "NO_FEATURES",
    "NO_FEATURE_ROWS",
    "CategoryIds",
    "Histories",
    "keep_regulars",
    "merge_buckets",
    "merge_segments",
    "plan_merge",
]

MERGE_EXPANSION = 6
"""Merging takes about so many times the bytes of the runs' stretch."""

_SIDE_EXPANSION = 10
"""The same with features, which take more room at a visit than at a row."""


NO_FEATURES, NO_FEATURE_ROWS = np.zeros((0, 0), np.int64), np.zeros((0, 0, 2), np.int32)


class CategoryIds(NamedTuple):
    """How features are put together: whether each is a number, and int32[n_features, n_ids] the ids of categories."""

    is_number: NDArray[np.int64]
    ranks: NDArray[np.int32]


class Histories(NamedTuple):
    """Sorted histories of some customers; per customer, per visit, per pair.

    `features` is int64[n_visits, n_features] and `feature_rows` int32[n_visits, n_features, 2], see `group_features`;
    they are empty where there are none.
    """

    name_sizes: NDArray[np.int64]
    names: NDArray[np.uint8]
    n_visits: NDArray[np.int64]
    n_customer_pairs: NDArray[np.int64]
    visit_time: NDArray[np.int64]
    visit_key: NDArray[np.uint64]
    visit_days: NDArray[np.uint16]
    n_pairs: NDArray[np.int64]
    actions: NDArray[np.int32]
    counts: NDArray[np.int32]
    features: NDArray[np.int64] = NO_FEATURES
    feature_rows: NDArray[np.int32] = NO_FEATURE_ROWS


def plan_merge(runs: Sequence[Run], share_bytes: int, target_bytes: int) -> list[tuple[int, int, bool]]:
    """Stretches of buckets, each small enough to be merged within `share_bytes`, preferably of `target_bytes`.

    Returns:
        (first, stop, whether it is a bucket that is too large and must be merged in parts).
    """
    sizes = sum((run.bucket_bytes() for run in runs), np.zeros(N_BUCKETS, np.int64))
    limit = share_bytes // (_SIDE_EXPANSION if any(run.starts[5, -1] for run in runs) else MERGE_EXPANSION)
    stretches, first, held = [], 0, 0
    for bucket, size in enumerate([*sizes.tolist(), 0]):
        if held and (held + size > min(target_bytes, limit) or bucket == N_BUCKETS):
            stretches.append((first, bucket, held > limit))
            first, held = bucket, 0
        held += size
    return stretches


def merge_buckets(
    runs: Sequence[Run],
    ranks: NDArray[np.int32],
    first: int,
    stop: int,
    min_visits: int = 1,
    categories: CategoryIds | None = None,
) -> Histories:
    """Histories of the customers in the buckets first:stop of all runs; `ranks` are the final action ids."""
    segments = [run.read(first, stop) for run in runs if run.starts[0, first] < run.starts[0, stop]]
    return merge_segments(segments, ranks, min_visits, categories)


def merge_segments(
    segments: list[Segment], ranks: NDArray[np.int32], min_visits: int = 1, categories: CategoryIds | None = None
) -> Histories:
    """Histories of the customers in some stretches of runs (the list is emptied)."""
    name_bases = [s.first_name_byte for s in segments]
    bases = [s.first_customer for s in segments]
    hashes = np.concatenate([s.hashes for s in segments])
    names = np.concatenate([s.names for s in segments])
    sizes = np.concatenate([np.diff(s.name_stops, prepend=base) for s, base in zip(segments, name_bases, strict=True)])
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
    order = np.argsort(hashes, kind="stable")
    place = np.empty(len(hashes), np.uint32)
    distinct = np.empty(len(hashes), np.int64)
    n = kernel.number_customers(order, hashes, names, starts, place, distinct)
    distinct = distinct[:n]

    offsets = np.concatenate([[0], np.cumsum([len(s.hashes) for s in segments])]).tolist()
    shifted = [s.customer + np.uint32((o - b) % 2**32) for s, o, b in zip(segments, offsets[:-1], bases, strict=True)]
    customer = np.concatenate(shifted)
    n_actions = np.concatenate([s.n_actions for s in segments])
    time = np.concatenate([s.time for s in segments])
    key = np.concatenate([s.key for s in segments])
    actions = np.concatenate([s.actions for s in segments])
    rows = np.concatenate([s.rows for s in segments])
    values = np.concatenate([s.features for s in segments])
    segments.clear()
    del shifted
    if len(rows):
        if categories is not None:
            # the raw rows are equal, so it does not matter whose features stay
            places = np.arange(len(actions), dtype=np.uint32)
            n_kept, kept = keep_first_rows(place[customer], key, n_actions, places, rows)
            values = values.reshape(len(actions), -1)[kept].ravel()
            n_actions, actions = n_kept, actions[kept]
        else:
            n_actions, actions = keep_first_rows(place[customer], key, n_actions, actions, rows)
    fragment_starts = np.zeros(n + 2, np.int64)
    fragments, first_action = np.empty(len(customer), np.int64), np.empty(len(customer), np.int64)
    kernel.place_fragments(customer, n_actions, place, fragment_starts, fragments, first_action)

    n_visits, n_customer_pairs = np.empty(n, np.int64), np.empty(n, np.int64)
    most = len(key)
    visits = np.empty(most, np.int64), np.empty(most, np.uint64), np.empty(most, np.uint16), np.empty(most, np.int64)
    pairs = (np.empty(len(actions), np.int32), np.empty(len(actions), np.int32))
    n_all, n_pairs = kernel.group_visits(
        fragment_starts,
        fragments,
        time,
        key,
        first_action,
        n_actions,
        actions,
        ranks,
        n_visits,
        n_customer_pairs,
        visits,
        pairs,
    )
    features = NO_FEATURES, NO_FEATURE_ROWS
    if categories is not None:
        grouped = (fragment_starts, fragments, key, first_action, n_actions, values)
        features = _put_together(grouped, n_visits, visits[1][:n_all], categories)
    name_sizes = sizes[distinct]
    in_order = np.empty(int(name_sizes.sum()), np.uint8)
    kernel.take_names(names, starts, distinct, in_order)
    histories = Histories(
        name_sizes,
        in_order,
        n_visits,
        n_customer_pairs,
        visits[0][:n_all],
        visits[1][:n_all],
        visits[2][:n_all],
        visits[3][:n_all],
        pairs[0][:n_pairs],
        pairs[1][:n_pairs],
        *features,
    )
    return histories if min_visits <= 1 else keep_regulars(histories, min_visits)


def _put_together(
    grouped: tuple[NDArray[np.generic], ...],
    n_visits: NDArray[np.int64],
    visit_key: NDArray[np.uint64],
    categories: CategoryIds,
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """The features of visits.

    Raises:
        DatasetError: a visit of a dataset whose categories are no longer known goes on in new files.
    """
    shape = (len(visit_key), len(categories.is_number))
    features, rows = np.empty(shape, np.int64), np.empty((*shape, 2), np.int32)
    n_torn = kernel.group_features(*grouped, *categories, n_visits, visit_key, features, rows)
    if n_torn:
        raise DatasetError(
            "the new files go on with visits whose rows have different categories of a feature, of which the dataset "
            "keeps only the most frequent: nothing can be added",
            hint="ingest all raw files again",
        )
    return features, rows


def keep_regulars(h: Histories, min_visits: int) -> Histories:
    """The customers with at least so many visits."""
    kept = h.n_visits >= min_visits
    visits, pairs = np.repeat(kept, h.n_visits), np.repeat(kept, h.n_customer_pairs)
    return Histories(
        h.name_sizes[kept],
        h.names[np.repeat(kept, h.name_sizes)],
        h.n_visits[kept],
        h.n_customer_pairs[kept],
        h.visit_time[visits],
        h.visit_key[visits],
        h.visit_days[visits],
        h.n_pairs[visits],
        h.actions[pairs],
        h.counts[pairs],
        *((h.features[visits], h.feature_rows[visits]) if h.features.size else (NO_FEATURES, NO_FEATURE_ROWS)),
    )
