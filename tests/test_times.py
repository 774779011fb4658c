"""The form of the times is decided over all rows, and asked for where the rows do not say."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from naive_times import naive_time

from luckyfast.errors import SchemaError
from luckyfast.ingestion.plan import TimeFormat
from luckyfast.ingestion.times import AmbiguousTimeError, check_time_format, find_time_format, is_time_of_day

MOMENTS = st.datetimes(datetime(1981, 1, 1), datetime(2099, 12, 31))
EPOCH = datetime(1970, 1, 1)
WRITERS = {
    "iso": "%Y-%m-%dT%H:%M:%S",
    "ymd": "%Y%m%d",
    "dmy": "%d/%m/%Y %H:%M",
    "mdy": "%m/%d/%Y",
}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["2017-01-01"], TimeFormat("iso")),
        (["2017-01-01 11:53"], TimeFormat("iso", has_clock=True)),
        (["2017-01-01T11:53:26.123456789+02:00", "2017-01-02T00:00:00Z"], TimeFormat("iso", has_clock=True)),
        (["20170101", "19970131"], TimeFormat("ymd")),
        (["1/11/2000", "1/13/2000"], TimeFormat("mdy", date_separator=ord("/"))),
        (["11/1/2000 9:05", "13/1/2000 10:00:01"], TimeFormat("dmy", date_separator=ord("/"), has_clock=True)),
        (["31.12.2017"], TimeFormat("dmy", date_separator=ord("."))),
        (["31-12-2017"], TimeFormat("dmy", date_separator=ord("-"))),
        (["1483271606", "1514779280"], TimeFormat("epoch", 1_000_000, has_clock=True)),
        (["1483271606000"], TimeFormat("epoch", 1000, has_clock=True)),
        (["1483271606000000"], TimeFormat("epoch", 1, has_clock=True)),
        (["1483271606000000000"], TimeFormat("epoch", 0, has_clock=True)),
        (["2017-01-01"] * 9 + ["yesterday"], TimeFormat("iso")),
        (["2017-01-01"] * 3 + ["yesterday"] * 2, None),
        (["2017-13-45", "2017-99-01"], None),
        (["SOFT DRINKS", "CHEESE"], None),
        (["1", "2", "30"], None),
        (["٢٠١٧-٠١-٠١"], None),
        ([], None),
    ],
)
def test_the_form_of_a_column_is_found(values: list[str], expected: TimeFormat | None) -> None:
    assert find_time_format(values) == expected


@pytest.mark.parametrize(
    "values",
    [
        ["1/2/2017", "11/12/2017"],
        ["13/2/2017", "2/13/2017"],
        ["13/2/2017"] * 30 + ["2/13/2017"] * 3,
        [f"{day}/{month}/2017" for day in range(1, 13) for month in range(1, 5)],
    ],
)
def test_days_and_months_that_cannot_be_told_apart_are_asked_for(values: list[str]) -> None:
    with pytest.raises(AmbiguousTimeError) as caught:
        find_time_format(values)
    assert "--time-format dmy" in str(caught.value.hint)
    assert values[0] in caught.value.message


def test_one_wrong_date_among_many_does_not_make_the_form_ambiguous() -> None:
    values = [f"{day}/1/2017" for day in range(1, 32)] * 3 + ["1/31/2017"]
    assert find_time_format(values) == TimeFormat("dmy", date_separator=ord("/"))


@given(st.lists(MOMENTS, min_size=1, max_size=30), st.sampled_from(sorted(WRITERS)))
def test_what_is_found_reads_the_moments_back(moments: list[datetime], kind: str) -> None:
    texts = [moment.strftime(WRITERS[kind]) for moment in moments]
    try:
        form = find_time_format(texts)
    except AmbiguousTimeError:
        assert kind in ("dmy", "mdy")
        assert all(moment.day <= 12 for moment in moments)
        form = check_time_format(kind, texts)
    assert form is not None
    assert form.kind == kind
    for moment, text in zip(moments, texts, strict=True):
        expected = datetime.strptime(moment.strftime(WRITERS[kind]), WRITERS[kind])
        assert naive_time(text, form) == (expected - EPOCH) // timedelta(microseconds=1)


@given(
    st.lists(MOMENTS, min_size=1, max_size=10), st.sampled_from([(1, "s"), (10**3, "ms"), (10**6, "us"), (10**9, "ns")])
)
def test_the_unit_of_epoch_numbers_is_found(moments: list[datetime], unit: tuple[int, str]) -> None:
    seconds = [(moment - EPOCH) // timedelta(seconds=1) for moment in moments]
    texts = [str(second * unit[0]) for second in seconds]
    form = find_time_format(texts)
    assert form is not None
    assert [naive_time(text, form) for text in texts] == [second * 10**6 for second in seconds]
    assert check_time_format(f"epoch-{unit[1]}", texts) == check_time_format("epoch", texts) == form


@pytest.mark.parametrize("name", ["iso", "ymd", "dmy", "epoch", "epoch-s", "order"])
def test_a_given_form_that_the_values_do_not_have_is_refused(name: str) -> None:
    with pytest.raises(SchemaError, match="SOFT DRINKS"):
        check_time_format(name, ["SOFT DRINKS", "CHEESE"])


def test_a_day_first_log_is_no_month_first_log() -> None:
    with pytest.raises(SchemaError, match="31/12/2017"):
        check_time_format("mdy", ["31/12/2017"])


def test_an_unknown_form_is_refused_with_the_known_ones() -> None:
    with pytest.raises(SchemaError) as caught:
        check_time_format("stardate", ["47634.4"])
    assert "iso, ymd, dmy" in str(caught.value.hint)


def test_small_numbers_are_an_order_only_when_told() -> None:
    assert check_time_format("order", ["1", "2", "3"]) == TimeFormat("order")


@pytest.mark.parametrize(("text", "expected"), [("10:37", True), ("9:05:59", True), ("24:00", False), ("12", False)])
def test_times_of_day_are_known(text: str, expected: bool) -> None:
    assert is_time_of_day(text) is expected


@pytest.mark.parametrize(
    ("text", "form", "expected"),
    [
        ("1970-01-02T00:00:00+01:00", TimeFormat("iso"), 23 * 3600 * 10**6),
        ("1970-01-01 00:00:00.0000019", TimeFormat("iso"), 1),
        ("1970-01-01 24:00", TimeFormat("iso"), None),
        ("1970-02-29", TimeFormat("iso"), None),
        ("1969-12-31", TimeFormat("iso"), -86400 * 10**6),
        ("-1", TimeFormat("epoch", 0), -1),
        ("2/1/1970 1:00", TimeFormat("dmy", date_separator=47), 25 * 3600 * 10**6),
        ("2-1-1970", TimeFormat("dmy", date_separator=47), None),
    ],
)
def test_the_naive_reader_follows_the_rules(text: str, form: TimeFormat, expected: int | None) -> None:
    assert naive_time(text, form) == expected
