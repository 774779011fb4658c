"""Looking before ingesting, looking at a dataset, and mending what was rejected."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from log_rows import habit_log
from naive_ingest import write_dataset
from test_append import COLUMNS, ROLES, draw_rows, manifest, write_files

import luckyfast.ingestion.append
import luckyfast.ingestion.format
import luckyfast.ingestion.journal
import luckyfast.ingestion.mending
import luckyfast.ingestion.rules
import luckyfast.inspection
from luckyfast.cli import main
from luckyfast.errors import DatasetError, OutputExistsError, SchemaError
from luckyfast.ingestion import ingest
from luckyfast.ingestion.mending import export_rejects, list_rejects
from luckyfast.inspection import inspect_dataset, inspect_raw

SETTINGS: dict[str, Any] = {name: value for name, value in ROLES.items() if name not in ("max_reject", "memory")}


def test_a_small_log_is_inspected_whole(tmp_path: Path) -> None:
    files = write_files(tmp_path / "raw", draw_rows(1, 3000), [1000])
    before = sorted(tmp_path.rglob("*"))
    found = inspect_raw(tmp_path / "raw", **SETTINGS)
    assert sorted(tmp_path.rglob("*")) == before
    done = ingest(files, tmp_path / "out", **ROLES)
    assert found.sample.counts == done.counts
    assert found.sample.rejects_by_reason == done.rejects_by_reason
    assert found.sample.reject_examples == done.reject_examples
    assert found.sample.duplicates == done.duplicates
    assert found.rows_estimated == 3000
    assert found.dialects[0][1]["header"] == COLUMNS.split(";")
    assert (found.dialects[0][1]["delimiter"], found.dialects[0][0]) == (";", 2)


def test_of_a_large_log_a_sample_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut behind whole records, quoted line ends included, so that no reject is made by the cut."""
    monkeypatch.setattr(luckyfast.inspection, "_FILE_BYTES", 5000)
    rows = [row.replace("Käse", '"two\nlines; ""quoted"""') for row in draw_rows(2, 4000)]
    files = write_files(tmp_path / "raw", rows, [])
    found = inspect_raw(files, **SETTINGS)
    assert 4000 < found.sample.bytes_read <= 5000
    assert set(found.sample.rejects_by_reason) <= {"missing_customer", "missing_time", "missing_action"}
    assert found.rows_estimated is not None
    assert abs(found.rows_estimated - 4000) < 400
    packed = tmp_path / "log.csv.gz"
    packed.write_bytes(gzip.compress(files[0].read_bytes()))
    unpacked = inspect_raw(packed, **SETTINGS)
    assert unpacked.sample.counts == found.sample.counts
    assert unpacked.rows_estimated is None


def test_a_dataset_is_described(tmp_path: Path) -> None:
    rows = habit_log(n_customers=30, n_visits=10)
    found = inspect_dataset(write_dataset(rows, tmp_path / "dataset"))
    assert found.visits_per_customer == dict.fromkeys(("0%", "25%", "50%", "75%", "90%", "99%", "100%"), 10)
    sizes = Counter(len({a for c, _, a, v in rows if v == visit}) for visit in {v for _, _, _, v in rows})
    assert found.actions_per_visit["0%"] == min(sizes)
    assert found.actions_per_visit["100%"] == max(sizes)
    events = Counter(action for _, _, action, _ in rows)
    assert found.top_actions[0][1] == max(events.values())
    assert sum(n for _, n in inspect_dataset(tmp_path / "dataset").top_actions) == sum(
        n for _, n in events.most_common(10)
    )


def dirty(tmp_path: Path) -> tuple[Path, list[str]]:
    rows = [row.replace(";a;", ';"a";') for row in draw_rows(3, 1500)]
    rows += ["k1;2024-01-02 10:00;x", 'k2;2024-01-02 10:00;x;"open;2-2;1', "k9;never;x;a;9-9;1"]
    write_files(tmp_path / "raw", rows, [700])
    ingest(tmp_path / "raw", tmp_path / "out", **ROLES)
    return tmp_path / "out", rows


def test_visits_that_last_for_days_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A receipt number that begins again is a visit of its first day, which is hardly what was meant."""
    log = tmp_path / "log.csv"
    rows = [f"k{i % 9},2024-01-{1 + i % 27:02d} 10:00:00,a{i % 4},{i % 50}" for i in range(450)]
    log.write_text("\n".join(["card,when,shelf,receipt", *rows]) + "\n")
    roles = ["--customer", "card", "--time", "when", "--action", "shelf", "--visit"]
    for visit, n_visits, n_long in (("receipt", 450, 0), ("card", 9, 9)):
        out = tmp_path / visit
        assert main(["ingest", str(log), str(out), *roles, visit, "--memory", "8GB"]) == 0
        shown = capsys.readouterr().out
        assert main(["inspect", str(out)]) == 0
        for text in (shown, capsys.readouterr().out):
            assert ("long visits" in text) == (n_long > 0)
        manifest = json.loads((out / "manifest.json").read_text())
        assert manifest["counts"]["visits"] == n_visits
        assert manifest["time"].get("visits_over_days", 0) == n_long


def test_rejects_are_listed(tmp_path: Path) -> None:
    dataset, rows = dirty(tmp_path)
    found = list_rejects(dataset, examples=2)
    assert found.by_reason == manifest(dataset)["rejects_by_reason"]
    assert list(found.by_reason.values()) == sorted(found.by_reason.values(), reverse=True)
    ((source, line, offset, raw),) = found.examples["bad_time"]
    assert raw.decode() == rows[-1]
    assert Path(source).read_bytes()[offset:].startswith(raw)
    assert Path(source).read_text(encoding="utf-8").splitlines()[line - 1] == rows[-1]
    assert all(len(shown) <= 2 for shown in found.examples.values())
    assert list(list_rejects(dataset, reasons=["bad_time"]).by_reason) == ["bad_time"]
    with pytest.raises(SchemaError, match="late"):
        list_rejects(dataset, reasons=["late"])


def test_mended_rejects_give_what_clean_logs_give(tmp_path: Path) -> None:
    dataset, rows = dirty(tmp_path)
    n_rejected = manifest(dataset)["counts"]["rejected"]
    (exported,) = export_rejects(dataset, tmp_path / "mended.csv")
    assert (exported.rows, exported.cut) == (n_rejected, 0)
    lines = (tmp_path / "mended.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0] == COLUMNS
    assert lines[-1] == rows[-2]  # what opens a quote comes last
    assert Counter(lines[1:]) <= Counter(rows)

    def mend(row: str) -> str:
        fields = [field.strip('"') for field in row.split(";")] + ["", "", ""]
        defaults = ["k0", "2024-01-09 09:00", "x", "a", "0-0", "1"]
        fields = [field or other for field, other in zip(fields, defaults, strict=False)]
        return ";".join([fields[0], fields[1].replace("never", "2024-01-09 09:00"), *fields[2:6]])

    (tmp_path / "mended.csv").write_text("\n".join([COLUMNS, *map(mend, lines[1:])]) + "\n", encoding="utf-8")
    ingest(tmp_path / "mended.csv", dataset, append=True)
    counts = manifest(dataset)["counts"]
    assert counts["rows_read"] == len(rows) + n_rejected
    assert counts["events"] == len(rows)
    clean = write_files(tmp_path / "clean", [*[r for r in rows if r not in lines[1:]], *map(mend, lines[1:])], [])
    ingest(clean, tmp_path / "at once", **ROLES)
    for name in ("vocabulary.parquet", "shards/part-00000.arrow"):
        assert (dataset / name).read_bytes() == (tmp_path / "at once" / name).read_bytes()


def test_rejects_of_other_headers_go_to_files_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    for name, header, row in (
        ("a", "card;when;shelf;ticket", "k1;{};x;1"),
        ("b", '"ticket";"shelf";"wh""en;";card', "1;x;{};k1"),
    ):
        rows = [row.format(f"2024-01-0{i} 10:00") for i in range(1, 9)] + [row.format("never")]
        (tmp_path / "raw" / f"{name}.csv").write_text("\n".join([header.replace('wh""en;', "when"), *rows]) + "\n")
    ingest(tmp_path / "raw", tmp_path / "out", action="shelf", max_reject=0.5)
    files = export_rejects(tmp_path / "out", tmp_path / "mended.csv")
    assert [file.path.name for file in files] == ["mended.csv", "mended-2.csv"]
    assert files[0].path.read_text() == "card;when;shelf;ticket\nk1;never;x;1\n"
    assert files[1].path.read_text() == "ticket;shelf;when;card\n1;x;never;k1\n"
    with pytest.raises(OutputExistsError):
        export_rejects(tmp_path / "out", tmp_path / "mended.csv")
    assert export_rejects(tmp_path / "out", tmp_path / "mended.csv", overwrite=True) == files


def test_a_clean_dataset_has_nothing_to_mend(tmp_path: Path) -> None:
    dataset = write_dataset(habit_log(), tmp_path / "dataset")
    with pytest.raises(DatasetError, match="nothing of"):
        export_rejects(dataset, tmp_path / "mended.csv")
    assert not (tmp_path / "mended.csv").exists()


def test_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What can be piped is on standard output, in words and as JSON."""
    dataset, _ = dirty(tmp_path)
    monkeypatch.chdir(tmp_path)
    raw = ["--customer", "card", "--action", "shelf"]
    for command, word in (
        (["inspect", "raw", *raw], "missing_time"),
        (["inspect", "out"], "visits each"),
        (["rejects", "out"], "never"),
    ):
        assert main(command) == 0
        shown = capsys.readouterr()
        assert word in shown.out
        assert main([*command, "--json"]) == 0
        loaded = json.loads(capsys.readouterr().out)
        assert loaded
    assert main(["inspect", "raw"]) == 2
    shown = capsys.readouterr()
    assert "product" in shown.out
    assert "most frequent" in shown.out
    assert shown.err.startswith("error:")
    assert main(["rejects", str(dataset), "--out", "mended.csv", "--reason", "bad_time", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [{"path": "mended.csv", "rows": 1, "cut": 0}]
    assert main(["rejects", "out", "--reason", "nonsense"]) == 2
    assert "missing_time" in capsys.readouterr().err
