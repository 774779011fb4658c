"""Delimiter, quote, header and encoding are found; what any writer wrote is read back."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luckyfast.errors import InputError, SchemaError
from luckyfast.ingestion.dialect import detect_dialect, parse_delimiter, parse_quote, sample_rows, show_byte
from luckyfast.ingestion.plan import Dialect
from luckyfast.ingestion.records import read_records
from luckyfast.ingestion.sources import Sample

PATH = Path("log.csv")
NAMES = ("customer", "date", "rayon", "libellé")


def detect(text: str | bytes, **options) -> Dialect:  # type: ignore[no-untyped-def]
    data = text if isinstance(text, bytes) else text.encode()
    return detect_dialect(PATH, Sample(data, (), True), **options)


def rows_of(text: str | bytes, dialect: Dialect) -> list[tuple[str, ...]]:
    data = text if isinstance(text, bytes) else text.encode()
    return sample_rows(Sample(data, (), True), dialect, n_head=1000, n_block=0)


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[list[str]], str, str, bool, int]:
    """Rows, delimiter, line end, whether there is a byte order mark, and the csv module's way of quoting."""
    delimiter = draw(st.sampled_from(",;\t|"))
    alphabet = st.sampled_from("abcXYZ é顧 .-'/" + delimiter + '"\n')
    texts = st.text(alphabet, max_size=12)
    quoting = draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
    rows = draw(st.lists(st.tuples(texts, texts), min_size=4, max_size=20))
    numbered = [[str(1000 + i), f"2017-01-{i + 1:02d}", first, second] for i, (first, second) in enumerate(rows)]
    return numbered, delimiter, draw(st.sampled_from(["\n", "\r\n"])), draw(st.booleans()), quoting


@given(tables())
def test_any_table_is_read_back(table: tuple[list[list[str]], str, str, bool, int]) -> None:
    rows, delimiter, line_end, marked, quoting = table
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, delimiter=delimiter, lineterminator=line_end, quoting=quoting)
    writer.writerow(NAMES)
    header_stop = len(stream.getvalue().encode()) + 3 * marked
    writer.writerows(rows)
    data = stream.getvalue().encode("utf-8-sig" if marked else "utf-8")
    dialect = detect(data)
    assert dialect == Dialect(ord(delimiter), ord('"'), True, NAMES, header_stop)
    assert rows_of(data, dialect) == [tuple(row) for row in rows]


@given(st.lists(st.tuples(*[st.text("ab\"' ,", max_size=8)] * 2), min_size=3, max_size=20))
def test_a_table_without_quotes_keeps_them_as_data(texts: list[tuple[str, str]]) -> None:
    rows = [(f"{i}", f'12" {first}', second) for i, (first, second) in enumerate(texts)]
    text = "\n".join(["id\tproduct\tnote", *("\t".join(row) for row in rows)]) + "\n"
    dialect = detect(text)
    assert (dialect.delimiter, dialect.quote) == (9, None)
    assert rows_of(text, dialect) == rows


@given(st.binary(max_size=60), st.sampled_from([None, ord('"')]), st.booleans())
def test_the_record_reader_loses_no_byte(data: bytes, quote: int | None, complete: bool) -> None:
    records = read_records(data, ord(","), quote, complete=complete)
    assert len(records.rows) == len(records.stops)
    assert records.stops == sorted(set(records.stops))
    assert all(0 < stop <= len(data) for stop in records.stops)
    if complete and data.strip(b"\r\n"):
        assert not data[records.stops[-1] :].strip(b"\r\n")


@given(st.integers(0, 40))
def test_a_sample_cut_anywhere_holds_whole_records_only(cut: int) -> None:
    text = b'a,b\n"x\ny",1\n"q""q",2\n"r\r\ns",3\n'
    whole = [(b"a", b"b"), (b"x\ny", b"1"), (b'q"q', b"2"), (b"r\r\ns", b"3")]
    found = read_records(text[:cut], ord(","), ord('"'), complete=False).rows
    assert found == whole[: len(found)]
    assert len(found) == sum(stop <= cut for stop in read_records(text, ord(","), ord('"'), complete=True).stops)


def test_a_quote_that_never_closes_is_data_and_reading_goes_on() -> None:
    text = b'a,b\n1,2\n"open,3\n' + b"4,5\n" * 20_000
    records = read_records(text, ord(","), ord('"'), complete=True)
    assert records.rows[2] == (b'"open', b"3")
    assert len(records.rows) == 20_003
    assert records.n_misquoted == 1


@pytest.mark.parametrize(
    ("text", "delimiter"),
    [
        ("id;price;name\n1;1,5;a\n2;2,5;b\n3;3,5;c\n", ";"),
        ("id\tname\ttime\n1\tDoe, John\t10:00:00\n2\tRoe, Jane\t11:00:00\n", "\t"),
        ("time,id\n2017-01-01 10:00:00,1\n2017-01-01 11:00:00,2\n", ","),
        ("a:b\nx:1\ny:2\n", ":"),
        ("a\x01b\nx\x011\ny\x012\n", "\x01"),
        ("a^b^c\nx^1^2\ny^2^3\n", "^"),
        ("a|b\nx,y|1\nz,w|2\n", "|"),
        ("id,name\n1,a\n2,b\n3,c\n4,d,e\n5,f\n6\n7,g\n8,h\n", ","),
    ],
)
def test_the_delimiter_that_fits_the_header_and_most_rows_is_found(text: str, delimiter: str) -> None:
    assert chr(detect(text).delimiter) == delimiter


def test_stray_quotes_in_a_quoted_file_do_not_make_quotes_data() -> None:
    text = 'id,name\n1,"a, b"\n2,12" c\n3,"d, e"\n4,"f"\n'
    assert detect(text).quote == ord('"')


def test_crlf_and_empty_lines_around_the_header_are_skipped() -> None:
    text = "\r\n\r\nid,name\r\n1,a\r\n\r\n2,b\r\n"
    dialect = detect(text)
    assert dialect.header == ("id", "name")
    assert dialect.header_stop == len("\r\n\r\nid,name\r\n")
    assert rows_of(text, dialect) == [("1", "a"), ("2", "b")]


@pytest.mark.parametrize(
    ("text", "has_header"),
    [
        ("customer,day\n7,2017-01-01\n8,2017-01-02\n", True),
        ("7,2017-01-01\n8,2017-01-02\n", False),
        ("a,b\nx,y\nz,w\n", True),
        ("a,b\nx,y\na,w\n", False),
        ("customer,day\n", True),
        ("7,2017-01-01\n", False),
        ('"001","FOOD"\n"002","FOOD"\n', False),
    ],
)
def test_a_header_is_told_from_data(text: str, has_header: bool) -> None:
    dialect = detect(text)
    assert dialect.has_header is has_header
    assert bool(dialect.header) is has_header


def test_columns_name_a_file_without_header() -> None:
    dialect = detect("7,2017-01-01\n8,2017-01-02\n", columns=("customer", "day"))
    assert dialect == Dialect(ord(","), ord('"'), False, ("customer", "day"), 0)


def test_columns_that_repeat_the_header_change_nothing() -> None:
    assert detect("a,b\n1,2\n", columns=("a", "b")).has_header


@pytest.mark.parametrize(
    ("text", "columns", "message"),
    [
        ("7,1\n8,2\n", ("a", "b", "c"), "--columns names 3 columns but the rows of log.csv have 2 fields"),
        ("x,y\n8,2\n", ("a", "b"), "has a header of its own, which differs from --columns: x, y"),
    ],
)
def test_columns_that_do_not_fit_are_refused(text: str, columns: tuple[str, ...], message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        detect(text, columns=columns)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\n\r\n\n", "only empty lines"),
        (b"hello\nworld\n", "no delimiter gives the same number of fields"),
        (b" 00001 19970101  1   11.77\r\n 00002 19970112  1   12.00\r\n 00002 19970112  5   77.00\r\n", "fixed width"),
        (b"Dear customer,\nthank you.\nYours\n", "no delimiter"),
    ],
)
def test_layouts_that_are_not_read_are_named(data: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        detect(data)
    assert caught.value.hint


def test_a_wrong_delimiter_is_told() -> None:
    with pytest.raises(SchemaError, match="the delimiter ; does not occur"):
        detect("a,b\n1,2\n", delimiter=ord(";"))


def test_delimiters_and_quotes_are_read_from_the_command_line() -> None:
    assert [parse_delimiter(text) for text in ("tab", "\\t", "\t", ";", "PIPE", " ")] == [9, 9, 9, 59, 124, 32]
    assert (parse_quote("'"), parse_quote("None")) == (39, None)
    for wrong in ("ab", "", '"', "\n", "é"):
        with pytest.raises(SchemaError):
            parse_delimiter(wrong)
    with pytest.raises(SchemaError):
        parse_quote("ab")


@pytest.mark.parametrize(("byte", "shown"), [(9, "tab"), (1, "\\x01"), (59, ";"), (None, "none")])
def test_bytes_are_shown_readably(byte: int | None, shown: str) -> None:
    assert show_byte(byte) == shown
