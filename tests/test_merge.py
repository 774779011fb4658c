"""The parts of the merge: its kernels against their plain meaning, and what is kept of very large customers."""

from __future__ import annotations

import tracemalloc
import weakref
from collections.abc import Iterable, Sequence
from itertools import groupby, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from luckyfast.kernels.merge import sort_ids
from naive_ingest import DAY, name_hash

from luckyfast.ingestion.giants import Giant, Visits, _SortedFile, merge_oversize
from luckyfast.ingestion.merge import Histories, merge_buckets
from luckyfast.ingestion.partition import N_BUCKETS, N_UNITS, Run, bucket_starts
from luckyfast.ingestion.shardrun import ShardRun
from luckyfast.ingestion.shards import ShardWriter


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
        np.arange(n),
        np.arange(n, dtype=np.uint64),
        np.zeros(n, np.uint16),
        np.ones(n, np.int64),
        np.ones(n, np.int32),
        np.ones(n, np.int32),
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


Row = tuple[bytes, int, int, int, int]
"""Customer, time, visit key, action, hash of the raw row."""


def make_run(rows: Sequence[Row], *, has_rows: bool) -> Run:
    """A run of rows as a worker would cut it: consecutive rows of a visit and a day are a fragment, whose time is the
    smallest."""
    names = sorted({row[0] for row in rows}, key=name_hash)
    order = sorted(range(len(rows)), key=lambda i: names.index(rows[i][0]))
    alike = groupby((rows[i] for i in order), key=lambda row: (row[0], row[2], row[1] // DAY))
    fragments = [list(group) for _, group in alike]
    hashes = np.array([name_hash(name) for name in names], np.uint64)
    columns = [
        hashes,
        np.cumsum([len(name) for name in names]),
        np.frombuffer(b"".join(names), np.uint8),
        np.array([names.index(group[0][0]) for group in fragments], np.uint32),
        np.array([len(group) for group in fragments], np.uint32),
        np.array([min(row[1] for row in group) for group in fragments], np.int64),
        np.array([group[0][2] for group in fragments], np.uint64),
        np.array([row[3] for group in fragments for row in group], np.uint32),
        np.array([row[4] for group in fragments for row in group if has_rows], np.uint64),
        np.zeros(0, np.int64),
    ]
    at = bucket_starts(hashes)
    fragment_at = np.searchsorted(columns[3], at)
    action_at = np.concatenate([[0], np.cumsum(columns[4])])[fragment_at]
    name_at = np.concatenate([[0], columns[1]])[at]
    starts = np.array([at, name_at, fragment_at, action_at, action_at if has_rows else 0 * at, 0 * at])
    assert starts.shape == (N_UNITS, N_BUCKETS + 1)
    return Run(starts.astype(np.int64), columns, None)


def join(parts: Iterable[Histories | Giant]) -> Histories:
    """All histories, those of giants too."""
    whole = []
    for part in parts:
        if isinstance(part, Giant):
            columns = zip(*part.parts, strict=True)
            sizes = (np.array([n], np.int64) for n in (len(part.name), part.n_visits, part.n_pairs))
            name_size, n_visits, n_pairs = sizes
            visits = (np.concatenate(column) for column in columns)
            part = Histories(name_size, np.frombuffer(part.name, np.uint8), n_visits, n_pairs, *visits)
        whole.append(part)
    return Histories(*(np.concatenate(column) for column in zip(*whole, strict=True)))


def assert_equal(a: Histories, b: Histories) -> None:
    for name, own, other in zip(a._fields, a, b, strict=True):
        assert own.dtype == other.dtype, name
        np.testing.assert_array_equal(own, other, name)


@st.composite
def draw_rows(draw: st.DrawFn) -> list[Row]:
    """Rows of few customers and visits, many of them twice, in one file or another."""
    seed, n = draw(st.integers(0, 2**32 - 1)), draw(st.integers(1, 400))
    rng = np.random.default_rng(seed)
    n_customers, n_visits, n_actions = (draw(st.sampled_from(sizes)) for sizes in ((1, 2, 9), (1, 5, 200), (1, 4, 70)))
    customers, visits = rng.integers(n_customers, size=n), rng.integers(n_visits, size=n)
    unit = draw(st.sampled_from([1, DAY // 3, 40_000 * DAY]))
    times, actions = unit * (visits // 3 + rng.integers(3, size=n)), rng.integers(n_actions, size=n)
    rows = []
    for customer, visit, time, action in zip(customers, visits, times, actions, strict=True):
        text = b"%d,%d,%d,%d" % (customer, visit, time, action)
        rows.append((b"c%d" % customer, int(time), name_hash(b"%d" % visit), int(action), name_hash(text)))
    return rows


@settings(max_examples=40, deadline=None)
@given(
    draw_rows(),
    st.lists(st.integers(0, 400), max_size=3),
    st.booleans(),
    st.sampled_from([600, 4000, 20_000]),
    st.sampled_from([1, 50]),
    st.sampled_from([1, 3]),
)
def test_sorting_on_disk_equals_merging_in_memory(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[Row],
    cuts: list[int],
    has_rows: bool,
    share_bytes: int,
    least_pairs: int,
    min_visits: int,
) -> None:
    """With and without equal rows dropped, for any runs and any memory; nothing is left in the folder."""
    folder = tmp_path_factory.mktemp("giants")
    edges = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    parts = [rows[a:b] for a, b in pairwise(edges) if a < b]
    runs = [make_run(part, has_rows=has_rows) for part in parts]
    ranks = np.arange(1, 71, dtype=np.int32)
    expected = merge_buckets(runs, ranks, 0, N_BUCKETS, min_visits)
    nothing = Histories(*(column[:0] for column in expected))
    found = merge_oversize(runs, ranks, (0, N_BUCKETS), share_bytes, folder, least_pairs, min_visits)
    assert_equal(join([nothing, *map(join_one, found)]), expected)
    assert not list(folder.iterdir())
    assert expected.visit_days.tolist() == days_by_hand(rows, min_visits)
    distinct = {(row[0], row[2], row[4]) for row in rows}
    if min_visits == 1:
        assert expected.counts.sum() == (len(distinct) if has_rows else len(rows))


def days_by_hand(rows: Sequence[Row], min_visits: int) -> list[int]:
    """Days from the first row of each visit to its last, visits in the order of histories."""
    times: dict[bytes, dict[int, list[int]]] = {}
    for customer, time, key, _, _ in rows:
        times.setdefault(customer, {}).setdefault(key, []).append(time)
    return [
        min(max(own) // DAY - min(own) // DAY, 65_535)
        for customer in sorted(times, key=lambda name: (name_hash(name), name))
        if len(times[customer]) >= min_visits
        for own, _ in sorted(((own, key) for key, own in times[customer].items()), key=lambda v: (min(v[0]), v[1]))
    ]


def join_one(part: Histories | Giant) -> Histories:
    """A giant's parts are read before the next history is asked for."""
    return join([part])


@settings(max_examples=25, deadline=None)
@given(draw_rows(), st.integers(0, 400), st.sampled_from([600, 4000, 20_000]), st.sampled_from([7, 60, 10**6]))
def test_a_dataset_is_a_run_of_which_any_piece_can_be_read(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Row], cut: int, share_bytes: int, batch_pairs: int
) -> None:
    """Shards of few or many batches, merged with new rows in memory or on disk, are as all rows at once."""
    from luckyfast.ingestion import shards

    folder = tmp_path_factory.mktemp("shards")
    (folder / "shards").mkdir()
    cut = max(1, min(cut, len(rows)))
    ranks = np.arange(1, 71, dtype=np.int32)
    old, new = make_run(rows[:cut], has_rows=False), make_run(rows[cut:], has_rows=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "BATCH_PAIRS", batch_pairs)
        writer = ShardWriter(folder / "shards", "clock")
        writer.push(merge_buckets([old], ranks, 0, N_BUCKETS))
        writer.close()
    base = ShardRun(folder, [vars(shard) for shard in writer.shards], np.arange(-1, 70).astype(np.uint32))
    assert base.starts[3, -1] == cut
    np.testing.assert_array_equal(base.starts[:2], old.starts[:2])
    hashes, edges = base.read_edges(0, N_BUCKETS)
    np.testing.assert_array_equal(hashes, old.read_edges(0, N_BUCKETS)[0])
    np.testing.assert_array_equal(edges[3], old.read_edges(0, N_BUCKETS)[1][3])
    expected = merge_buckets([make_run(rows, has_rows=False)], ranks, 0, N_BUCKETS)
    runs = [base, new] if cut < len(rows) else [base]
    assert_equal(merge_buckets(runs, ranks, 0, N_BUCKETS), expected)
    found = merge_oversize(runs, ranks, (0, N_BUCKETS), share_bytes, folder, 1, 1)
    assert_equal(join(map(join_one, found)), expected)
