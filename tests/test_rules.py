"""Cleaning by rule: every rule against a naive twin, every left-out row counted under its rule."""

from __future__ import annotations

import json
import random
from collections import Counter, defaultdict
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from luckyfast.kernels import parse as kernel
from naive_ingest import write_dataset
from naive_times import naive_time

from luckyfast.errors import InputError, SchemaError
from luckyfast.ingestion import ingest
from luckyfast.ingestion.duplicates import SAMPLE_ROWS, DuplicateSample
from luckyfast.ingestion.plan import Condition, TimeFormat
from luckyfast.ingestion.planning import make_plan
from luckyfast.ingestion.rules import make_rules, parse_where
from luckyfast.ingestion.run import Budget, IngestSummary, run_plan

COLUMNS = ("customer", "time", "action", "visit", "quantity", "store name")
BUDGETS = {"one": Budget(1, 1 << 20, 1 << 26, 1 << 28), "spills": Budget(2, 1 << 12, 240_000, 1 << 26)}
COMPARE: dict[str, Any] = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    "=": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    ">=": lambda a, b: a >= b,
    ">": lambda a, b: a > b,
}


def to_number(text: str) -> Decimal | None:
    """Naive twin of the kernel's numbers."""
    try:
        number = Decimal(text.strip(" ").replace(",", ".", 1))
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def meets(condition: Condition, text: str) -> bool:
    if isinstance(condition.value, bytes):
        return bool(COMPARE[condition.operator](text.encode(), condition.value))
    number = to_number(text)
    return number is not None and bool(
        COMPARE[condition.operator](number, Decimal(condition.value).scaleb(condition.exponent))
    )


numbers = st.one_of(
    st.from_regex(r"[+-]?[0-9]{1,9}([.,][0-9]{0,9})?([eE][+-]?[0-9]{1,2})?", fullmatch=True),
    st.from_regex(r"-?0{0,3}[0-9]{17,18}", fullmatch=True),
    st.sampled_from(["", " 7 ", "-", ".", "1.2.3", "12a", "0", "-0", ".5", "5.", "1e", "1e9999", "-7E-9999", "１"]),
)


@settings(max_examples=300, deadline=None)
@given(
    numbers,
    st.decimals(-(10**12), 10**12, allow_nan=False, places=4) | st.integers(-(10**17), 10**17).map(Decimal),
    st.sampled_from(sorted(COMPARE)),
)
def test_numbers_compare_as_in_a_naive_twin(text: str, literal: Decimal, operator: str) -> None:
    (condition,) = parse_where(f"quantity {operator} {literal:f}")
    assert Decimal(condition.value).scaleb(condition.exponent) == literal  # type: ignore[arg-type]
    data = np.frombuffer(text.encode() + bytes(16), np.uint8).copy()
    good, negative, mantissa, exponent = _parse_number(data, len(text.encode()))
    expected = to_number(text) if text.isascii() else None
    assert good == (expected is not None)
    if expected is not None:
        order = _compare(negative, mantissa, exponent, condition.value, condition.exponent)
        assert COMPARE[operator](order, 0) == COMPARE[operator](expected, literal)


def _parse_number(data: Any, size: int) -> Any:
    from numba import njit

    address, parse_number = kernel.address, kernel.parse_number
    if not hasattr(_parse_number, "compiled"):
        _parse_number.compiled = njit(lambda d, n: parse_number(address(d), 0, n))  # type: ignore[attr-defined]
    return _parse_number.compiled(data, size)  # type: ignore[attr-defined]


def _compare(negative: bool, mantissa: int, exponent: int, value: Any, value_exponent: int) -> int:
    return int(
        kernel.compare_numbers(
            negative, np.uint64(mantissa), exponent, value < 0, np.uint64(abs(value)), value_exponent
        )
    )


def test_more_digits_than_a_float_has_are_compared_exactly() -> None:
    (condition,) = parse_where("id > 900719925474099299")
    data = np.frombuffer(b"900719925474099300" + bytes(16), np.uint8).copy()
    _, negative, mantissa, exponent = _parse_number(data, 18)
    assert _compare(negative, mantissa, exponent, condition.value, condition.exponent) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a>0", [("a", ">", 0, 0)]),
        ("net sales <= -1.50 AND b = 'x and y'", [("net sales", "<=", -15, -1), ("b", "=", b"x and y", 0)]),
        ('"it\'s" == "say ""hi"""', [("it's", "=", b'say "hi"', 0)]),
        ("a != 1200", [("a", "!=", 12, 2)]),
        ("a = '7'", [("a", "=", b"7", 0)]),
        ("a <> north east", [("a", "!=", b"north east", 0)]),
        ("`a > b` < nan", [("a > b", "<", b"nan", 0)]),
    ],
)
def test_rules_are_read(text: str, expected: list[tuple[Any, ...]]) -> None:
    assert [(c.column, c.operator, c.value, c.exponent) for c in parse_where(text)] == expected


@pytest.mark.parametrize(
    "text", ["", "a", "a >", "> 5", "a > 5 and", "a > 5 > 3", "a > 'open", "and", "a = 1234567890123456789"]
)
def test_what_is_no_rule_is_refused(text: str) -> None:
    with pytest.raises(SchemaError) as caught:
        parse_where(text)
    assert caught.value.hint


def test_bounds_that_nothing_could_meet_are_refused() -> None:
    for wrong in ({"since": "2020-01-02", "until": "2020-01-02"}, {"min_visits": 0}, {"top_actions": 0}):
        with pytest.raises(SchemaError):
            make_rules(**wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError):
        make_rules(since="yesterday")


# ---- whole runs -----------------------------------------------------------------------------------------------------


def draw_rows(seed: int, n_rows: int) -> list[list[str]]:
    draw = random.Random(seed)
    rows = []
    visit, customer, minute = 0, 0, 0
    for _ in range(n_rows):
        if rows and draw.random() < 0.1:
            # a row that comes twice, at once or later
            rows.append(list(rows[-draw.randrange(1, min(len(rows), 30) + 1)]))
            continue
        if draw.random() < 0.4:
            visit, customer, minute = draw.randrange(9000), draw.randrange(700), draw.randrange(600_000)
        day = f"2017-{1 + minute // 43200 % 12:02d}-{1 + minute // 1440 % 28:02d}"
        time = f"{day} {minute // 60 % 24:02d}:{minute % 60:02d}"
        quantity = draw.choice(["1", "2", "0", "-1", "2.5", "", "many", "1,5", "3e1"])
        store = draw.choice(["north", "south", "say hi, you", ""])
        action = f"a{int(draw.expovariate(0.1))}" if draw.random() < 0.97 else ""
        rows.append([f"c{customer}", time, action, f"v{customer}-{visit}", quantity, store])
    return rows


def write_log(rows: list[list[str]], path: Path) -> Path:
    def quoted(field: str) -> str:
        return f'"{field}"' if "," in field or field == "many" else field

    lines = [",".join(map(quoted, row)) for row in [list(COLUMNS), *rows]]
    path.write_text("\n".join(lines) + "\n")
    return path


def naive_clean(
    rows: list[list[str]],
    *,
    where: list[str] = [],  # noqa: B006
    since: str | None = None,
    until: str | None = None,
    drop_duplicates: bool = False,
    min_visits: int = 1,
    top_actions: int | None = None,
) -> tuple[list[tuple[str, int, str, str | None]], Counter[str]]:
    """The events that stay, and how many rows went where."""
    went: Counter[str] = Counter()
    kept = []
    for row in rows:
        fields = dict(zip(COLUMNS, row, strict=True))
        broken = next((r for r in where if not all(meets(c, fields[c.column]) for c in parse_where(r))), None)
        time = naive_time(fields["time"], TimeFormat("iso"))
        assert time is not None
        if broken is not None:
            went[f"where {broken}"] += 1
        elif since is not None and fields["time"] < since:
            went["since"] += 1
        elif until is not None and fields["time"] >= until:
            went["until"] += 1
        elif not fields["action"]:
            went["rejected"] += 1
        else:
            kept.append((tuple(row), (fields["customer"], time, fields["action"], fields["visit"])))
    if drop_duplicates:
        first = dict(kept)
        went["duplicates"] = len(kept) - len(first)
        kept = list(first.items())
    events = [event for _, event in kept]
    if min_visits > 1:
        visits = defaultdict(set)
        for customer, _, _, visit in events:
            visits[customer].add(visit)
        many = [event for event in events if len(visits[event[0]]) >= min_visits]
        went["min-visits"] = len(events) - len(many)
        events = many
    if top_actions is not None:
        n_of = Counter(action for _, _, action, _ in events)
        top = set(sorted(n_of, key=lambda action: (-n_of[action], action))[:top_actions])
        went["other"] = sum(n for action, n in n_of.items() if action not in top)
        events = [(c, t, a if a in top else "<other>", v) for c, t, a, v in events]
    return events, went  # type: ignore[return-value]


RULES: dict[str, dict[str, Any]] = {
    "none": {},
    "where": {"where": ["quantity > 0", "'store name' != 'say hi, you' and quantity < 2.5"]},
    "window": {"since": "2017-03-01", "until": "2017-09-15"},
    "duplicates": {"drop_duplicates": True},
    "visits": {"min_visits": 9},
    "top": {"top_actions": 7},
    "all": {
        "where": ["quantity >= 1"],
        "since": "2017-02-01",
        "until": "2017-11-01",
        "drop_duplicates": True,
        "min_visits": 4,
        "top_actions": 5,
    },
}


def run(log: Path, out: Path, rules: dict[str, Any], budget: Budget) -> IngestSummary:
    plan = make_plan(
        log, out, customer="customer", time="time", action="action", visit="visit", max_reject=1.0, **rules
    )
    return run_plan(plan, budget=budget)


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("name", RULES)
def test_rules_match_naive_twin(name: str, budget: str, tmp_path: Path) -> None:
    rows = draw_rows(1, 40_000 if budget == "spills" else 5000)
    summary = run(write_log(rows, tmp_path / "log.csv"), tmp_path / "out", RULES[name], BUDGETS[budget])
    assert (summary.n_spilled_runs > 1) == (budget == "spills")
    events, went = naive_clean(rows, **RULES[name])
    naive = write_dataset(events, tmp_path / "naive")
    for file in ("vocabulary.parquet", "shards/part-00000.arrow"):
        assert (summary.path / file).read_bytes() == (naive / file).read_bytes()
    counts = summary.counts
    assert counts["rows_read"] == len(rows)
    assert counts["rejected"] == went["rejected"]
    assert counts["duplicates_removed"] == went["duplicates"]
    assert len(rows) == counts["events"] + counts["duplicates_removed"] + counts["filtered"] + counts["rejected"]
    by_rule = {rule.split(" 2017")[0].split(" 4")[0].split(" 9")[0]: n for rule, n in summary.filtered_by_rule.items()}
    assert by_rule == {rule: n for rule, n in went.items() if rule not in ("rejected", "duplicates", "other")}
    assert summary.other_actions["events"] == went["other"]
    manifest = json.loads((summary.path / "manifest.json").read_text())
    assert manifest["filtered_by_rule"] == summary.filtered_by_rule
    assert counts["filtered"] == sum(manifest["filtered_by_rule"].values())
    if name == "all":
        assert all(went[rule] for rule in went)
        assert pq.read_table(summary.path / "vocabulary.parquet").num_rows == 7


def test_a_run_can_be_repeated_from_its_schema(tmp_path: Path) -> None:
    log = write_log(draw_rows(2, 3000), tmp_path / "log.csv")
    first = run(log, tmp_path / "a", RULES["all"], BUDGETS["one"])
    again = ingest(log, tmp_path / "b", schema=tmp_path / "a" / "schema.toml", max_reject=1.0, memory="8GB")
    assert again.filtered_by_rule == first.filtered_by_rule
    assert (tmp_path / "a" / "manifest.json").read_text() == (tmp_path / "b" / "manifest.json").read_text()


def test_a_rule_that_leaves_nothing_is_named(tmp_path: Path) -> None:
    log = write_log(draw_rows(2, 100), tmp_path / "log.csv")
    for rules, name in ({"where": ["quantity > 999"]}, "quantity > 999"), ({"min_visits": 999}, "min-visits"):
        with pytest.raises(InputError, match=name):
            run(log, tmp_path / "out", rules, BUDGETS["one"])  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_a_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    log = write_log(draw_rows(2, 100), tmp_path / "log.csv")
    with pytest.raises(SchemaError, match="quantitty"):
        run(log, tmp_path / "out", {"where": ["quantitty > 0"]}, BUDGETS["one"])


@pytest.mark.parametrize("budget", BUDGETS)
def test_the_share_of_rows_that_come_twice(budget: str, tmp_path: Path) -> None:
    """Exact for a small log; of a large one a sample of visits tells it, the same for any division of work."""
    small = draw_rows(3, 2000)
    summary = run(write_log(small, tmp_path / "log.csv"), tmp_path / "small", {}, BUDGETS[budget])
    events, _ = naive_clean(small)
    distinct, went = naive_clean(small, drop_duplicates=True)
    n = len(events)
    assert summary.duplicates["repeated"] == went["duplicates"] == n - len(distinct)
    assert (summary.duplicates["rows_sampled"], summary.duplicates["complete"]) == (n, True)
    large = draw_rows(4, 120_000)
    log = write_log(large, tmp_path / "large.csv")
    found = run(log, tmp_path / "large", {}, BUDGETS[budget]).duplicates
    _, went = naive_clean(large, drop_duplicates=True)
    assert not found["complete"]
    assert SAMPLE_ROWS / 3 < found["rows_sampled"] < SAMPLE_ROWS
    assert abs(found["share"] - went["duplicates"] / 120_000) < 0.02
    assert found == run(log, tmp_path / "again", {}, Budget(4, 5000, 1 << 26, 1 << 28)).duplicates


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 5))
def test_a_sample_does_not_depend_on_the_order_of_work(seed: int, n_parts: int) -> None:
    rng = np.random.default_rng(seed)
    keys = rng.integers(0, 2**64, 9000, np.uint64)[rng.integers(0, 9000, 100_000)]
    rows = rng.integers(0, 50, len(keys)).astype(np.uint64)
    whole, split = DuplicateSample(), DuplicateSample()
    whole.add(keys, rows, 0)
    for part in np.array_split(rng.permutation(len(keys)), n_parts):
        split.add(keys[part], rows[part], 0)
    assert whole.measure() == split.measure()
