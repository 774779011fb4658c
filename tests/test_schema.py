"""schema.toml written by one run and given back to another makes the same plan."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luckyfast.errors import SchemaError
from luckyfast.ingestion import make_plan
from luckyfast.ingestion.plan import Dialect, FilePlan, IngestPlan, Roles, Source, TimeFormat
from luckyfast.ingestion.schema import format_schema, read_schema, time_format_name

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)


def plan_of(roles: Roles, dialect: Dialect, form: TimeFormat, nulls: dict[str, tuple[bytes, ...]]) -> IngestPlan:
    file = FilePlan(Source(Path("a.csv"), "none", 1), dialect, (0,), (1,), (2,), None)
    return IngestPlan((file,), roles, form, nulls, None, 0.05, 1, 1, None, Path("out"), {})


@given(
    st.tuples(NAMES, NAMES, NAMES, NAMES, NAMES),
    st.integers(1, 127).filter(lambda byte: byte not in b'\r\n"'),
    st.sampled_from([None, ord('"')]),
    st.lists(NAMES, max_size=3),
)
def test_any_schema_is_read_back(
    names: tuple[str, str, str, str, str], delimiter: int, quote: int | None, nulls: list[str]
) -> None:
    roles = Roles(names[:1], names[1:3], names[3:4], names[4:])
    dialect = Dialect(delimiter, quote, False, names, 0)
    literals = {"customer": tuple(null.encode() for null in nulls)}
    text = format_schema(plan_of(roles, dialect, TimeFormat("epoch", 1000), literals))
    found = tomllib.loads(text)
    assert found["roles"] == {role: list(getattr(roles, role)) for role in ("customer", "time", "action", "visit")}
    assert found["files"]["delimiter"] == chr(delimiter)
    assert found["files"]["quote"] == ("none" if quote is None else '"')
    assert found["files"]["columns"] == list(names)
    assert found["time"] == {"format": "epoch-ms"}
    assert found.get("nulls", {}).get("customer", []) == nulls


def test_a_schema_given_back_makes_the_same_plan(tmp_path: Path) -> None:
    rows = "".join(f"{i % 3}|0{i % 9 + 1}/01/2017|{i % 2:03d}\n" for i in range(20))
    (tmp_path / "log.txt").write_text(rows)
    (tmp_path / "table.tsv").write_text("sku\trayon\n000\tPAIN\n001\tVIN\n")
    first = make_plan(
        tmp_path / "log.txt",
        tmp_path / "out",
        columns="client,jour,sku",
        time_format="dmy",
        visit="none",
        lookup=tmp_path / "table.tsv",
        null="client=-1",
        memory="1GB",
    )
    (tmp_path / "schema.toml").write_text(format_schema(first), encoding="utf-8")
    second = make_plan(tmp_path / "log.txt", tmp_path / "out", schema=tmp_path / "schema.toml", memory="1GB")
    assert second.lookup is not None
    assert first.lookup is not None
    assert second.lookup.values == first.lookup.values
    assert dataclasses.replace(second, lookup=None, reasons={}).__dict__ == (
        dataclasses.replace(first, lookup=None, reasons={}).__dict__
    )
    third = make_plan(tmp_path / "log.txt", tmp_path / "out", schema=tmp_path / "schema.toml", time_format="mdy")
    assert third.time_format.kind == "mdy"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("roles = 3", "unknown part 'roles'"),
        ("[role]\na = 1", "unknown part 'role'"),
        ("[roles]\nwho = ['a']", "unknown key roles.who"),
        ("[roles]\ncustomer = 'a'", "roles.customer .* must be a list of strings"),
        ("[roles]\ncustomer = [1]", "roles.customer .* must be a list of strings"),
        ("[time]\nformat = 3", "time.format .* must be a string"),
        ("[nulls]\nprice = ['NA']", "unknown key nulls.price"),
        ("[roles", "is no TOML"),
    ],
)
def test_a_broken_schema_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "schema.toml").write_text(text)
    with pytest.raises(SchemaError, match=message) as caught:
        read_schema(tmp_path / "schema.toml")
    assert caught.value.hint


def test_a_binary_schema_is_refused(tmp_path: Path) -> None:
    (tmp_path / "schema.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SchemaError, match="is no TOML"):
        read_schema(tmp_path / "schema.toml")


@pytest.mark.parametrize(
    ("form", "name"),
    [
        (TimeFormat("epoch", 1_000_000), "epoch-s"),
        (TimeFormat("epoch", 1), "epoch-us"),
        (TimeFormat("epoch", 0), "epoch-ns"),
        (TimeFormat("order"), "order"),
    ],
)
def test_time_formats_are_named_as_on_the_command_line(form: TimeFormat, name: str) -> None:
    assert time_format_name(form) == name
