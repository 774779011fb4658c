"""JSON lines: the projection against Python's reader, and whole runs with every kind of broken line."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from naive_json import project_line, same_value
from test_awkward_logs import ask, run

from luckyfast import _engine
from luckyfast.ingestion.jsonlines import Projector
from luckyfast.ingestion.stream import Block, Workspace

PATHS = ["id", "a.b", "a.b.c", "c.b", "x y", "é"]
KEYS = st.sampled_from(["id", "a", "b", "c", "a.b", "b.c", "x y", "é", "other", "", "i", "idx"])
TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=40)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(allow_nan=False, allow_infinity=False), TEXTS
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=4)),
    max_leaves=8,
)
OBJECTS = st.dictionaries(KEYS, VALUES, max_size=6)


UNNEEDED = re.compile(rb"(:\s*)[^\s,:{}\[\]\"]+")


def project(lines: list[bytes], paths: list[str]) -> list[list[bytes] | None]:
    """The fields of each line, None for what is no object."""
    data = b"".join(line + b"\n" for line in lines)
    workspace = Workspace(len(data))
    workspace.buffer[: len(data)] = np.frombuffer(data, np.uint8)
    n_lines, _, _ = _engine.scan(
        workspace.buffer, 0, len(data), False, 0x1F, -1, workspace.separators, workspace.row_stops
    )
    assert n_lines == len(lines)
    block = Projector(paths).project(Block(0, 0, len(data), workspace, rows=(0, n_lines)))
    separators, stops = block.workspace.separators, block.workspace.row_stops
    text, rows, first, at = block.workspace.buffer.tobytes(), [], 0, 0
    for stop in stops[:n_lines].tolist():
        fields = []
        for position in separators[first:stop].tolist():
            fields.append(text[at:position])
            at = position + 1
        rows.append(fields[:-1] if len(fields) == len(paths) + 1 else None)
        first = stop
    return rows


@settings(max_examples=300, deadline=None)
@given(
    st.lists(OBJECTS, min_size=1, max_size=5),
    st.booleans(),
    st.sampled_from([None, 1]),
    st.sampled_from(["", " ", "\r"]),
)
@example([{"id": "🛒", "a": {"b": '\\"\n'}, "é": 1}], True, None, "")
@example([{"a": {"b": 1}}, {"c": {"b": 2}}, {"a": {"b": 3}}], True, None, "")
@example([{"id": 1, "a" * 70: 2, "c": {"b": 3}}] * 2, True, None, "")
def test_any_object_is_read_as_python_reads_it(objects: list[dict], ascii_: bool, indent: int | None, end: str) -> None:  # type: ignore[type-arg]
    lines = []
    for found in objects:
        text = json.dumps(found, ensure_ascii=ascii_, separators=(",", ":") if indent is None else (" , ", " : "))
        lines.append((end + text + end).encode())
    for line, fields in zip(lines, project(lines, PATHS), strict=True):
        expected = project_line(line, PATHS)
        assert expected is not None
        assert fields is not None
        for field, value in zip(fields, expected, strict=True):
            assert same_value(field, value)


@settings(max_examples=300, deadline=None)
@given(OBJECTS, st.integers(0, 200), st.binary(max_size=3), st.integers(0, 3))
@example({"id": "x"}, 7, b"\\", 0)
def test_a_damaged_line_is_read_as_python_reads_it_or_refused(
    found: dict,  # type: ignore[type-arg]
    place: int,
    noise: bytes,
    n_cut: int,
) -> None:
    line = json.dumps(found, ensure_ascii=False).encode()
    place = min(place, len(line))
    line = (line[:place] + noise + line[place + n_cut :]).replace(b"\n", b" ")
    (fields,) = project([line], ["id", "a.b"])
    expected = project_line(line, ["id", "a.b"])
    if expected is None:
        # what is not looked at: escapes, numbers and words that nobody needs
        assert (
            fields is None or b"\\" in line or project_line(UNNEEDED.sub(rb"\1null", line), ["id", "a.b"]) is not None
        )
    else:
        assert fields is not None
        assert all(same_value(field, value) for field, value in zip(fields, expected, strict=True))


def test_the_last_of_two_equal_keys_counts_and_deep_nesting_is_refused() -> None:
    assert project([b'{"id":1,"id":2}'], ["id"]) == [[b"2"]]
    deep = b'{"id":' + b"[" * 5000 + b"]" * 5000 + b"}"
    assert project([deep], ["id"]) == [None]
    assert project([b'{"id":"\\ud800"}', b'{"id":"\\ud83d\\uded2"}'], ["id"]) == [[b"\xed\xa0\x80"], ["🛒".encode()]]


def test_events_of_a_shop(tmp_path: Path) -> None:
    lines = [
        json.dumps(
            {"user": {"id": i % 7, "geo": [1, 2]}, "ts": f"2024-05-01T10:00:{i:02d}Z", "event": {"type": f"e{i % 3}"}}
        )
        for i in range(50)
    ]
    broken = [
        '{"user": {"id": 1}, "ts": "2024-05-01T10:00:00Z"',
        "not json",
        '{"ts":"2024-05-01"}',
        '{"user":{"id":null}}',
    ]
    text = "\n".join([*lines[:20], "", *broken, *lines[20:], '{"user":{"id":9},"ts":"x","event":{"type":"e"}}'])
    options = {"customer": "user.id", "time": "ts", "action": "event.type", "visit": "none"}
    for name, data in {"log.jsonl": text.encode(), "log.jsonl.gz": gzip.compress(text.encode("utf-16"))}.items():
        events, rejects, summary = run(tmp_path / name, {name: data}, **options)
        assert events == sorted((str(i % 7), f"2024-05-01 10:00:{i:02d}", f"e{i % 3}") for i in range(50))
        assert rejects == {"bad_json": 2, "bad_time": 1, "missing_customer": 2}
        table = pq.read_table(tmp_path / name / "out" / "rejects").to_pylist()
        assert [row["line"] for row in table] == [22, 23, 24, 25, 56]
        codec = "utf-16-le" if name.endswith(".gz") else "utf-8"
        assert [row["raw"].decode(codec) for row in table[:4]] == broken
        written = gzip.decompress(data) if name.endswith(".gz") else data
        assert all(written[row["byte_offset"] :].startswith(row["raw"]) for row in table)
        assert summary.counts["rows_read"] == 55


def test_a_path_that_a_file_never_has_is_missing_in_its_rows(tmp_path: Path) -> None:
    files = {
        "a.jsonl": b'{"user":1,"ts":"2024-05-01","event":{"type":"x"}}\n' * 30,
        "b.jsonl": b'{"user":2,"ts":"2024-05-01","event":{}}\n{"ts":"2024-05-01","event":{"kind":"y"}}\n',
    }
    events, rejects, _ = run(tmp_path, files, customer="user", time="ts", action="event.type")
    assert (len(events), rejects) == (30, {"missing_action": 1, "missing_customer": 1})


def test_roles_of_json_are_inferred_and_asked_for(tmp_path: Path) -> None:
    lines = [
        {"customer_id": i, "timestamp": 1714557600 + i, "payload": {"category": "x"}, "n": i / 7} for i in range(30)
    ]
    text = "\n".join(map(json.dumps, lines)).encode()
    events, _, summary = run(tmp_path, {"log.jsonl": text})
    assert summary.roles["action"][0] == ("payload.category",)
    assert len(events) == 30
    error = ask(tmp_path / "b", {"log.jsonl": text}, action="category")
    assert "payload.category" in str(error)


@pytest.mark.parametrize("text", ['[{"a": 1}]', '{\n  "a": 1,\n  "b": 2\n}\n'])
def test_json_that_is_not_one_object_per_line_is_refused_with_the_command_that_helps(tmp_path: Path, text: str) -> None:
    ask(tmp_path, {"log.json": text.encode() * 3}, "jq -c")
