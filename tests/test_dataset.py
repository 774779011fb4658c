"""Reading the dataset format: every row comes back, and nothing damaged is read in silence."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from log_rows import habit_log, logs, opened
from naive_ingest import name_hash, write_dataset

from luckyfast.dataset import Dataset
from luckyfast.errors import DatasetError


@settings(max_examples=25, deadline=None)
@given(logs(), st.integers(1, 20), st.integers(1, 3))
def test_every_row_comes_back(rows: list, batch_pairs: int, shard_batches: int) -> None:
    visit_time = {session: min(t for _, t, _, s in rows if s == session) for _, _, _, session in rows}
    expected = Counter((customer, visit_time[session], session, action) for customer, _, action, session in rows)
    sessions = {name_hash(session.encode()): session for session in visit_time}
    found: Counter[tuple[str, int, str, str]] = Counter()
    order, n_visits = [], 0
    with opened(rows, batch_pairs=batch_pairs, shard_batches=shard_batches) as dataset:
        for histories in dataset.batches():
            assert histories.first_visit == n_visits
            n_visits += histories.n_visits
            for customer in range(histories.n_customers):
                name = histories.customers[customer].as_py()
                order.append((name_hash(name.encode()), name))
                first, stop = histories.visit_start[customer : customer + 2]
                assert (np.diff(histories.visit_time[first:stop]) >= 0).all()
                for visit in range(first, stop):
                    pairs = slice(histories.action_start[visit], histories.action_start[visit + 1])
                    assert (np.diff(histories.actions[pairs]) > 0).all()
                    for action, n in zip(histories.actions[pairs], histories.counts[pairs], strict=True):
                        session = sessions[int(histories.visit_key[visit])]
                        found[name, int(histories.visit_time[visit]), session, dataset.vocabulary[action]] += int(n)
        assert n_visits == dataset.n_visits
    assert found == expected
    assert order == sorted(order)


def test_arrays_are_views_that_cannot_be_written() -> None:
    with opened(habit_log()) as dataset:
        histories = next(dataset.batches())
        for array in (histories.visit_start, histories.visit_time, histories.visit_key, histories.actions):
            assert array.base is not None
            assert not array.flags.writeable


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_dataset(habit_log(), tmp_path / "dataset", batch_pairs=200, shard_batches=2)


def change(folder: Path, **entries: object) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | entries))


def read_all(folder: Path) -> None:
    dataset = Dataset.open(folder)
    assert dataset.n_actions > 1
    for _ in dataset.batches():
        pass


def truncate(folder: Path) -> None:
    file = sorted((folder / "shards").iterdir())[0]
    file.write_bytes(file.read_bytes()[:-100])


def forget_a_batch(folder: Path) -> None:
    file = sorted((folder / "shards").iterdir())[0]
    with pa.OSFile(str(file)) as source, pa.ipc.open_file(source) as reader:
        batch = reader.get_batch(0)
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)


def shorten_vocabulary(folder: Path) -> None:
    file = folder / "vocabulary.parquet"
    pq.write_table(pq.read_table(file).slice(0, 5), file)


def shrink_vocabulary(folder: Path) -> None:
    shorten_vocabulary(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    change(folder, counts=manifest["counts"] | {"actions": 4})


def other_columns(folder: Path) -> None:
    file = sorted((folder / "shards").iterdir())[0]
    table = pa.table({"customer": ["x"]})
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


DAMAGES = {
    "no manifest": (lambda f: (f / "manifest.json").unlink(), "no manifest.json"),
    "cut manifest": (lambda f: (f / "manifest.json").write_text("{"), "is damaged"),
    "a manifest that is a list": (lambda f: (f / "manifest.json").write_text("[]"), "is damaged"),
    "another version": (lambda f: change(f, format_version=0), "format 0, this luckyfast reads format 1"),
    "another format": (lambda f: change(f, format="something"), "has dataset format None"),
    "not finished": (lambda f: change(f, complete=False), "no complete dataset"),
    "no counts": (lambda f: change(f, counts={}), "is damaged: it has no rows_read"),
    "a shard less": (lambda f: change(f, shards=[]), "do not add up"),
    "no time": (lambda f: change(f, time={"kind": "moon"}), "neither of kind clock nor order"),
    "no vocabulary": (lambda f: (f / "vocabulary.parquet").unlink(), "lacks vocabulary.parquet"),
    "a shorter vocabulary": (shorten_vocabulary, "it has 5 rows"),
    "actions out of range": (shrink_vocabulary, "action ids beyond the 5"),
    "a cut shard": (truncate, "is damaged"),
    "a missing shard": (lambda f: sorted((f / "shards").iterdir())[0].unlink(), "lacks part-00000.arrow"),
    "a missing batch": (forget_a_batch, "were expected"),
    "other columns": (other_columns, "no column visit_time"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_named(folder: Path, damage: str) -> None:
    read_all(folder)
    harm, message = DAMAGES[damage]
    harm(folder)
    with pytest.raises(DatasetError, match=message) as caught:
        read_all(folder)
    assert caught.value.hint


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no dataset folder"):
        Dataset.open(tmp_path / "nowhere")


def test_samples_are_nested_prefixes(tmp_path: Path) -> None:
    rows = [(f"c{c}", v, f"a{(c + v) % 3}", f"{c}-{v}") for c in range(20) for v in range(1 + c % 4)]
    dataset = Dataset.open(write_dataset(rows, tmp_path / "dataset"))
    whole = [name for histories in dataset.batches() for name in histories.customers.to_pylist()]
    assert len(whole) == 20
    for share, n in ((1 / 9, 2), (1 / 3, 7), (0.999, 20), (1.0, 20), (1e-9, 1)):
        sample = dataset.sample(share)
        batches = list(sample.batches())
        assert [name for histories in batches for name in histories.customers.to_pylist()] == whole[:n]
        for histories in batches:
            assert len(histories.visit_time) == histories.visit_start[-1]
            assert len(histories.actions) == len(histories.counts) == histories.action_start[-1]
    half = dataset.sample(0.5)
    assert half.counts == dataset.counts
    assert [histories.n_customers for histories in half.sample(0.5).batches()] == [5]
    assert [histories.n_customers for histories in half.sample(1.0).batches()] == [10]
