"""A small dirty log whose dataset is known byte for byte, and a dataset of format 1 that must stay readable."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from luckyfast.dataset import Dataset
from luckyfast.ingestion import ingest

GOLDEN = Path(__file__).parent / "golden"


def describe(dataset: Path) -> dict[str, Any]:
    """Everything that a dataset says, as text that a diff shows well."""
    manifest = json.loads((dataset / "manifest.json").read_text(encoding="utf-8"))
    del manifest["luckyfast_version"]
    for source in manifest["sources"]:
        source["path"] = Path(source["path"]).name
    rejects = pa.concat_tables(pq.read_table(file) for file in sorted((dataset / "rejects").glob("*.parquet")))
    rejected = [row | {"source": Path(row["source"]).name, "raw": row["raw"].decode()} for row in rejects.to_pylist()]
    histories = []
    for file in sorted((dataset / "shards").glob("*.arrow")):
        with pa.memory_map(str(file)) as source:
            histories += pa.ipc.open_file(source).read_all().to_pylist()
    return {
        "manifest": manifest,
        "vocabulary": pq.read_table(dataset / "vocabulary.parquet").to_pylist(),
        "rejects": sorted(rejected, key=lambda row: (row["source"], row["byte_offset"])),
        "histories": json.loads(json.dumps(histories, default=str)),
    }


def test_a_dirty_log_gives_the_known_dataset(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(GOLDEN)
    raw = Path("raw")
    ingest(
        [raw / "till-a.csv", raw / "till-b.csv.gz"],
        tmp_path / "dataset",
        lookup=raw / "products.csv",
        on="product",
        action="category",
        max_reject=0.5,
    )
    found = describe(tmp_path / "dataset")
    expected = GOLDEN / "dataset.json"
    if request.config.getoption("--rewrite-golden"):
        expected.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    assert found == json.loads(expected.read_text(encoding="utf-8"))


def test_datasets_of_format_1_stay_readable() -> None:
    """Of one that knows nothing of the days of visits too."""
    dataset = Dataset.open(GOLDEN / "format-1")
    assert dataset.manifest["format_version"] == 1
    assert sum(histories.n_visits for histories in dataset.batches()) == dataset.n_visits
    assert sum(int(histories.counts.sum()) for histories in dataset.batches()) == dataset.counts["events"]
    assert dataset.vocabulary[0] == "<unknown>"
    for histories in dataset.batches():
        assert histories.visit_days is None
        visits = slice(0, histories.n_visits)
        np.testing.assert_array_equal(histories.last_days(visits), histories.visit_time // 86_400_000_000)


def test_files_added_to_a_dataset_that_knows_no_days(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is known of the visits that it had, so nothing is said of any."""
    shutil.copytree(GOLDEN / "format-1", tmp_path / "dataset")
    monkeypatch.chdir(GOLDEN)
    before = Dataset.open(tmp_path / "dataset")
    new = tmp_path / "new.csv"
    lines = (GOLDEN / "raw" / "till-a.csv").read_bytes().splitlines(keepends=True)
    new.write_bytes(b"".join([lines[0], *lines[5:30]]))
    ingest([new], tmp_path / "dataset", append=True, max_reject=0.9)
    after = Dataset.open(tmp_path / "dataset")
    assert after.counts["events"] > before.counts["events"]
    assert "visits_over_days" not in after.manifest["time"]
    assert all(histories.visit_days is None for histories in after.batches())
