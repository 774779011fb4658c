"""Raw logs of every awkward kind, through the whole of ingest: each row is an event or a counted reject."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import zipfile
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from luckyfast import ingest
from luckyfast.errors import SchemaError, UserError
from luckyfast.ingestion.mending import export_rejects

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Events = list[tuple[str, Any, str]]


def fill(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def read_events(out: Path) -> Events:
    """(customer, time, action) of every event, sorted; times of clocks as YYYY-MM-DD HH:MM:SS[.f]."""
    names = pq.read_table(out / "vocabulary.parquet")["action"].to_pylist()
    clock = json.loads((out / "manifest.json").read_text())["time"]["kind"] == "clock"
    events: Events = []
    for shard in sorted((out / "shards").glob("*.arrow")):
        for row in _rows(shard):
            for time, actions, counts in zip(row["visit_time"], row["actions"], row["counts"], strict=True):
                moment = str(EPOCH.replace(tzinfo=None) + timedelta(microseconds=time)) if clock else time
                for action, count in zip(actions, counts, strict=True):
                    events += [(row["customer"], moment, names[action])] * count
    return sorted(events)


def _rows(shard: Path) -> list[dict[str, Any]]:
    table = pa.ipc.open_file(shard).read_all()
    index = table.schema.get_field_index("visit_time")
    table = table.set_column(index, "visit_time", table["visit_time"].cast(pa.list_(pa.int64())))
    return table.to_pylist()


def run(tmp_path: Path, files: dict[str, bytes], **options: Any) -> tuple[Events, dict[str, int], Any]:
    """Ingest the files of a folder: events, rejects by reason, the summary; conservation is checked on the way."""
    fill(tmp_path / "raw", files)
    raw = options.pop("raw", tmp_path / "raw")
    summary = ingest(raw, tmp_path / "out", workers=1, memory="2GB", **{"max_reject": 1.0, **options})
    counts = summary.counts
    accounted = counts["events"] + counts["duplicates_removed"] + counts["filtered"] + counts["rejected"]
    assert counts["rows_read"] == accounted
    events = read_events(tmp_path / "out")
    assert len(events) == counts["events"]
    return events, summary.rejects_by_reason, summary


def ask(tmp_path: Path, files: dict[str, bytes], *flags: str, **options: Any) -> UserError:
    """The question that ingest asks instead of guessing; it must name these flags."""
    with pytest.raises(UserError) as caught:
        run(tmp_path, files, **options)
    assert not (tmp_path / "out").exists()
    for flag in flags:
        assert flag in str(caught.value.hint), caught.value.hint
    return caught.value


def times_of(tmp_path: Path, times: list[str], **options: Any) -> list[Any]:
    """The times that a column of texts is read as."""
    rows = "".join(f'c{i:04d};"{time}";PAIN\n' for i, time in enumerate(times))
    events, rejects, _ = run(tmp_path, {"log.csv": f"client;date;rayon\n{rows}".encode()}, **options)
    assert rejects == {}
    return [time for _, time, _ in events]


# ---- times ----------------------------------------------------------------------------------------------------------

DAYS = [datetime(2024, 1, 1) + timedelta(days=3 * i, hours=i % 24, minutes=7 * i % 60) for i in range(40)]
MONTHS = "janvier février mars avril mai juin juillet août septembre octobre novembre décembre"
FRENCH = MONTHS.split()


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["2024-05-01T10:00:00.123456789+02:00", "2024-05-01 10:00:00,5Z"], ["08:00:00.123456", "10:00:00.500000"]),
        (["2024-05-01T10:00:00+0530", "2024-05-01T10:00:00-03"], ["04:30:00", "13:00:00"]),
        (["2024-05-01 10:00:00 UTC", "2024-05-01 10:00:00 +0200"], ["10:00:00", "08:00:00"]),
        (["Wed, 01 May 2024 10:00:00 +0100", "Wed, 1 May 2024 10:00:00 GMT"], ["09:00:00", "10:00:00"]),
        (["Wed May 01 10:00:00 +0000 2024", "Wed May 01 12:00:00 +0200 2024"], ["10:00:00", "10:00:00"]),
        (["01/May/2024:10:00:00 +0200", "01/May/2024:10:00:01 +0000"], ["08:00:00", "10:00:01"]),
        (["1 mai 2024 à 14h30", "mercredi 1er mai 2024 09:05"], ["14:30:00", "09:05:00"]),
        (["May 1, 2024 3:45 PM", "May 1st, 2024 12:05 AM"], ["15:45:00", "00:05:00"]),
        (["1714557600", "1714557601"], ["10:00:00", "10:00:01"]),
        (["1714557600.25", "1714557601,5"], ["10:00:00.250000", "10:00:01.500000"]),
        (["1714557600123", "1714557600124"], ["10:00:00.123000", "10:00:00.124000"]),
        (["1714557600123456", "1714557600123457"], ["10:00:00.123456", "10:00:00.123457"]),
        (["1714557600123456789", "1714557600123456999"], ["10:00:00.123456", "10:00:00.123456"]),
        (["20240501100000", "20240501235959"], ["10:00:00", "23:59:59"]),
        (["20240501T100000Z", "20240501T100001Z"], ["10:00:00", "10:00:01"]),
        (["2024/05/01 10:00", "2024/5/1 9:05"], ["10:00:00", "09:05:00"]),
        (["5/1/2024 10:00 AM", "5/1/2024 1:00 PM"], ["10:00:00", "13:00:00"]),
        (["01MAY2024", "01MAY2024"], ["00:00:00", "00:00:00"]),
        (["01-MAY-24 08.26.00.250000 AM", "01-MAY-24 01.00.05 PM"], ["08:26:00.250000", "13:00:05"]),
        ([" 2024-05-01 ", "2024-05-01"], ["00:00:00", "00:00:00"]),
    ],
)
def test_times_of_many_forms(tmp_path: Path, texts: list[str], expected: list[str]) -> None:
    options = {"time_format": "mdy"} if "/2024 " in texts[0] else {}
    assert times_of(tmp_path, texts, **options) == [f"2024-05-01 {time}" for time in expected]


@pytest.mark.parametrize(
    "form",
    [
        "%y%m%d",
        "%Y%m%d",
        "%d%m%Y",
        "%m%d%Y",
        "%d%m%y",
        "%d/%m/%Y",
        "%m/%d/%Y",
        "%d.%m.%y",
        "%y/%m/%d",
        "%Y/%m/%d",
        "%d-%b-%Y",
        "%d-%b-%y",
        "%B %d, %Y",
        "%Y%m%d%H%M",
        "%d/%m/%Y %H:%M",
        "%Y-%m-%d %H%M",
        "%m/%d/%y %I:%M %p",
    ],
)
def test_a_form_is_decided_from_all_rows(tmp_path: Path, form: str) -> None:
    found = times_of(tmp_path, [day.strftime(form) for day in DAYS])
    assert found == [str(datetime.strptime(day.strftime(form), form)) for day in DAYS]


def test_integers_that_lost_their_zeros(tmp_path: Path) -> None:
    days = [datetime(2005, 1, 1) + timedelta(days=i) for i in range(60)]
    assert times_of(tmp_path, [str(int(day.strftime("%y%m%d"))) for day in days]) == [str(day) for day in days]


def test_french_months_in_any_encoding(tmp_path: Path) -> None:
    rows = "".join(f"c{i:04d};{d.day} {FRENCH[d.month - 1]} {d.year};PAIN\n" for i, d in enumerate(DAYS))
    for encoding in ("utf-8", "cp1252", "utf-16"):
        folder = tmp_path / encoding
        events, rejects, _ = run(folder, {"log.csv": f"client;date;rayon\n{rows}".encode(encoding)})
        assert rejects == {}
        assert [time for _, time, _ in events] == [str(datetime(d.year, d.month, d.day)) for d in DAYS]


@pytest.mark.parametrize(
    ("texts", "flags"),
    [
        (["1/2/2024", "3/4/2024"], ["--time-format dmy", "--time-format mdy"]),
        (["01/02/03", "02/03/04"], ["--time-format ymd", "--time-format dmy", "--time-format mdy"]),
        (["010203", "020304"], ["--time-format ymd"]),
    ],
)
def test_ambiguous_times_are_asked_about(tmp_path: Path, texts: list[str], flags: list[str]) -> None:
    rows = "".join(f"c{i};{text};PAIN\n" for i, text in enumerate(texts))
    error = ask(tmp_path, {"log.csv": f"client;date;rayon\n{rows}".encode()}, *flags)
    assert repr(texts[0]) in error.message


def test_a_time_spread_over_integer_columns(tmp_path: Path) -> None:
    rows = "".join(f"c{i:04d},{d.year},{d.month},{d.day},{d.hour * 100 + d.minute},x\n" for i, d in enumerate(DAYS))
    events, rejects, summary = run(tmp_path, {"log.csv": f"customer,year,month,day,hhmm,category\n{rows}".encode()})
    assert summary.roles["time"][0] == ("year", "month", "day", "hhmm")
    assert (rejects, [time for _, time, _ in events]) == ({}, [str(day) for day in DAYS])


def test_a_date_and_an_integer_hour(tmp_path: Path) -> None:
    rows = "".join(f"c{i:04d},{d:%Y%m%d},{d.hour},x\n" for i, d in enumerate(DAYS))
    data = {"log.csv": f"CUST_CODE,SHOP_DATE,SHOP_HOUR,category\n{rows}".encode()}
    for given in ({}, {"time": "SHOP_DATE,SHOP_HOUR"}):
        events, _, _ = run(tmp_path / str(len(given)), data, **given)
        assert [time for _, time, _ in events] == [str(day.replace(minute=0)) for day in DAYS]


def test_order_columns_without_a_clock(tmp_path: Path) -> None:
    rows = "".join(f"{100 + i},{i % 3},{i // 3 + 1},{'' if i < 3 else 7.0},x\n" for i in range(30))
    header = "order_id,user_id,order_number,days_since_prior_order,aisle\n"
    events, rejects, summary = run(tmp_path, {"orders.csv": (header + rows).encode()})
    assert rejects == {}
    assert summary.time_kind == "clock"  # days since each customer's first order, added up
    days = [(customer, time[:10], action) for customer, time, action in events]
    assert days == sorted((str(i % 3), str(EPOCH + timedelta(7 * (i // 3)))[:10], "x") for i in range(30))
    events, _, summary = run(tmp_path / "numbers", {"orders.csv": (header + rows).encode()}, time="order_number")
    assert summary.time_kind == "order"
    assert events == sorted((str(i % 3), i // 3 + 1, "x") for i in range(30))


def test_order_numbers_that_became_decimals(tmp_path: Path) -> None:
    events, _, _ = run(
        tmp_path, {"log.csv": b"user_id,order_number,aisle\n" + b"".join(b"7,%d.0,x\n" % i for i in range(1, 9))}
    )
    assert [time for _, time, _ in events] == list(range(1, 9))


# ---- ids and nulls --------------------------------------------------------------------------------------------------


def test_ids_are_kept_as_they_are_written(tmp_path: Path) -> None:
    ids = ["007", "7", "17850.0", "17850", "9223372036854775807", "18446744073709551615", "-3", "abc", "ABC", "abc "]
    ids += ["é", "e\u0301", "1e5", "100000", " abc", "0", "00", "a\u00a0b", "顧客", "🛒"]
    rows = "".join(f"{name};2024-05-01;{name}\n" for name in ids)
    events, rejects, _ = run(tmp_path, {"log.csv": f"client;date;rayon\n{rows}".encode()})
    assert rejects == {}
    assert events == sorted((name, "2024-05-01 00:00:00", name) for name in ids)


def test_nulls_count_where_the_column_proves_them(tmp_path: Path) -> None:
    rows = [f"{i},2024-05-{i + 1:02d},{name}" for i, name in enumerate(["FR", "NA", "DE", "NULL"] * 6)]
    rows += [
        "NA,2024-05-01,FR",
        "NULL,2024-05-01,FR",
        " ,2024-05-01,FR",
        "5,NULL,FR",
        "5,2024-05-01, ",
        "5,2024-05-01,",
    ]
    events, rejects, summary = run(tmp_path, {"log.csv": ("\n".join(["client,date,rayon", *rows]) + "\n").encode()})
    assert rejects == {"missing_customer": 3, "missing_time": 1, "missing_action": 2}
    assert Counter(action for _, _, action in events) == {"FR": 6, "NA": 6, "DE": 6, "NULL": 6}
    assert "NA, NULL means no value" in summary.roles["customer"][1]
    assert "--null rayon=NA" in summary.roles["action"][1]


def test_a_null_word_that_the_sample_has_not_seen_is_null_among_numbers(tmp_path: Path) -> None:
    rows = b"".join(b"%d,2024-05-01,x\n" % (i % 1000) for i in range(60_000))
    middle = len(rows) // 3 // 16 * 16 + rows[len(rows) // 3 // 16 * 16 :].index(b"\n") + 1
    data = b"client,date,rayon\n" + rows[:middle] + b"NULL,2024-05-01,x\n" + rows[middle:]
    _, rejects, _ = run(tmp_path, {"log.csv": data})
    assert rejects == {"missing_customer": 1}


def test_null_flags_win(tmp_path: Path) -> None:
    data = {"log.csv": b"client,date,rayon\n1,2024-05-01,FR\nNA,2024-05-01,FR\n?,2024-05-01,n/d\n-1,2024-05-02,DE\n"}
    events, rejects, _ = run(tmp_path / "a", data, null=["client=-1", "rayon=n/d"])
    assert (len(events), rejects) == (2, {"missing_customer": 1, "missing_action": 1})
    events, rejects, _ = run(tmp_path / "b", data, null="customer=")
    assert (len(events), rejects) == (4, {})


# ---- encodings and line ends ----------------------------------------------------------------------------------------

NAMES = ["crémerie", "épicerie", "bœuf à l’étouffée", "pain", "€ 5"]
TEXT = "client;date;rayon\n" + "".join(f"{i};2024-05-0{i % 9 + 1};{NAMES[i % 5]}\n" for i in range(40))
EXPECTED = sorted((str(i), f"2024-05-0{i % 9 + 1} 00:00:00", NAMES[i % 5]) for i in range(40))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_any_encoding_and_line_end(tmp_path: Path, encoding: str, line_end: str, pack: Any) -> None:
    data = TEXT.replace("\n", line_end).encode(encoding)
    events, rejects, _ = run(tmp_path, {"log.csv": pack(data)})
    assert (events, rejects) == (EXPECTED, {})


def test_a_given_encoding_is_used(tmp_path: Path) -> None:
    text = TEXT.replace("’", "'").replace("œ", "oe").replace("€", "E")
    for encoding in ("cp850", "mac-roman", "iso-8859-15"):
        events, _, _ = run(tmp_path / encoding, {"log.csv": text.encode(encoding)}, encoding=encoding)
        assert {action for _, _, action in events} == {"crémerie", "épicerie", "boeuf à l'étouffée", "pain", "E 5"}


def test_invalid_utf8_is_rejected_row_by_row_and_never_merged(tmp_path: Path) -> None:
    rows = [b"%d;2024-05-01;cr\xc3\xa9merie" % i for i in range(20)]
    rows += [
        b"\xff;2024-05-01;x",
        b"\xfe;2024-05-01;x",
        b"30;2024-05-01;\xe9",
        b"31;2024-05-01;\xc3",
        b"32;2024-05-01;ok",
    ]
    events, rejects, _ = run(tmp_path, {"log.csv": b"client;date;rayon\n" + b"\n".join(rows)})
    assert rejects == {"bad_encoding": 4}
    assert len(events) == 21
    table = pq.read_table(tmp_path / "out" / "rejects")
    assert table["raw"].to_pylist() == rows[20:24]
    assert table["line"].to_pylist() == [22, 23, 24, 25]


def test_half_a_character_of_utf16_is_rejected(tmp_path: Path) -> None:
    data = "client;date;rayon\n".encode("utf-16") + "".join(f"{i};2024-05-01;é\n" for i in range(9)).encode("utf-16-le")
    data += "10;2024-05-01;a".encode("utf-16-le") + b"\x00\xd8" + "\n11;2024-05-01;b".encode("utf-16-le") + b"\x41"
    events, rejects, _ = run(tmp_path, {"log.csv": data})
    assert (len(events), rejects) == (9, {"bad_encoding": 2})


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "utf-16"])
@pytest.mark.parametrize("line_end", ["\n", "\r"])
def test_rejects_keep_their_place_and_bytes_and_can_be_mended(tmp_path: Path, encoding: str, line_end: str) -> None:
    text = TEXT.replace("2024-05-07;crémerie", "hier;crémerie").replace("\n", line_end)
    data = text.encode(encoding)
    events, rejects, summary = run(tmp_path, {"log.csv": data})
    assert rejects == {"bad_time": 40 - len(events)}
    codec = "utf-16-le" if encoding == "utf-16" else encoding
    for row in pq.read_table(tmp_path / "out" / "rejects").to_pylist():
        assert data[row["byte_offset"] :].startswith(row["raw"])
        assert row["raw"].decode(codec) == text.split(line_end)[row["line"] - 1]
    (exported,) = export_rejects(tmp_path / "out", tmp_path / "mended.csv")
    assert exported.rows == rejects["bad_time"]
    mended = (tmp_path / "mended.csv").read_bytes().decode(codec).replace("hier", "2024-05-07")
    (tmp_path / "mended.csv").write_bytes(mended.encode(codec))
    ingest(tmp_path / "mended.csv", tmp_path / "out", append=True, workers=1, memory="2GB")
    assert read_events(tmp_path / "out") == EXPECTED
    assert bool(summary.encodings) == (encoding != "utf-8")


# ---- quotes, headers, files -----------------------------------------------------------------------------------------


def test_quotes_in_a_tsv_are_data(tmp_path: Path) -> None:
    rows = [f'{i}\t2024-05-01\t"{i}" pipe, 3/4"' if i % 3 else f'{i}\t2024-05-01\t"quoted' for i in range(30)]
    events, rejects, _ = run(tmp_path, {"log.tsv": ("client\tdate\trayon\n" + "\n".join(rows)).encode()})
    assert (rejects, {action for _, _, action in events}) == ({}, {row.split("\t")[2] for row in rows})
    forced, _, _ = run(tmp_path / "b", {"log.tsv": b'client\tdate\trayon\n1\t2024-05-01\t"x"\n'}, quote="none")
    assert forced == [("1", "2024-05-01 00:00:00", '"x"')]


def test_newlines_and_delimiters_inside_quotes(tmp_path: Path) -> None:
    rows = "".join(f'{i},2024-05-01,"two\nlines, ""{i}"""\r\n' for i in range(10))
    events, rejects, _ = run(tmp_path, {"log.csv": f"client,date,rayon\r\n{rows}".encode()})
    assert (rejects, events) == ({}, sorted((str(i), "2024-05-01 00:00:00", f'two\nlines, "{i}"') for i in range(10)))


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|", "^", "~", "\x01", "\x1f", ":", "#", "!", " "])
def test_any_delimiter(tmp_path: Path, delimiter: str) -> None:
    rows = [["client", "date", "rayon"], *([str(i), "2024-05-01", "x"] for i in range(9))]
    data = "\n".join(delimiter.join(row) for row in rows).encode()
    options = {"delimiter": delimiter} if delimiter == " " else {}
    events, rejects, _ = run(tmp_path, {"log.csv": data}, **options)
    assert (len(events), rejects) == (9, {})


@pytest.mark.parametrize(
    "before", ["", "sep=;\n", "sep=;\r\n", "# exported by till 4\n# 2024; all\n", "#1\n\n", "\n\n"]
)
def test_what_stands_before_the_header_is_passed_over(tmp_path: Path, before: str) -> None:
    events, rejects, _ = run(tmp_path, {"log.csv": (before + TEXT).encode()})
    assert (events, rejects) == (EXPECTED, {})


def test_single_quotes_are_found(tmp_path: Path) -> None:
    rows = "".join(f"'{i}','2024-05-01','it''s, {i}'\n" for i in range(20))
    events, rejects, _ = run(tmp_path, {"log.csv": f"client,date,rayon\n{rows}".encode()})
    assert rejects == {}
    assert ("7", "2024-05-01 00:00:00", "it's, 7") in events
    apostrophes = "".join(f"{i},2024-05-01,l'eau\n" for i in range(20))
    events, _, _ = run(tmp_path / "b", {"log.csv": f"client,date,rayon\n{apostrophes}".encode()})
    assert {action for _, _, action in events} == {"l'eau"}


def test_names_of_columns_in_one_word(tmp_path: Path) -> None:
    rows = "".join(f"{1714557600000 + i},{i % 9},{'view' if i % 3 else 'buy'},{i % 77}\n" for i in range(90))
    _, _, summary = run(tmp_path, {"log.csv": f"timestamp,visitorid,event,itemid\n{rows}".encode()})
    assert [summary.roles[role][0] for role in ("customer", "time", "action")] == [
        ("visitorid",),
        ("timestamp",),
        ("event",),
    ]


def test_headers_that_differ_are_matched_by_name(tmp_path: Path) -> None:
    files = {
        "a.csv": b"client,date,rayon\n1,2024-05-01,x\n2,2024-05-01,x\n",
        "b.csv": b"Rayon;extra;Client;Date\ny;;3;2024-05-02\n",
        "c.csv": "\ufeffdate\tclient\trayon\tprix\n2024-05-03\t4\té\t1,5\n".encode("utf-16-le"),
        "d.csv": b"5,2024-05-04,z\n6,2024-05-04,z\n",
    }
    events, rejects, summary = run(tmp_path, files)
    assert rejects == {}
    assert [(customer, action) for customer, _, action in events] == list(zip("123456", "xxyézz", strict=True))
    assert summary.counts["rows_read"] == 6


def test_a_header_that_names_a_column_twice_is_asked_about(tmp_path: Path) -> None:
    data = {"log.csv": b"id,date,rayon,id\n1,2024-05-01,x,9\n2,2024-05-02,y,8\n"}
    error = ask(tmp_path, data, customer="id")
    assert "id#1" in error.message
    events, _, _ = run(tmp_path / "b", data, customer="id#2")
    assert [customer for customer, _, _ in events] == ["8", "9"]


def test_a_header_that_comes_again_is_a_counted_reject(tmp_path: Path) -> None:
    part = b"client,date,rayon\n1,2024-05-01,x\n"
    _, rejects, _ = run(tmp_path, {"log.csv": part * 3})
    assert rejects == {"bad_time": 2}


def test_the_customer_is_in_the_name_of_the_file(tmp_path: Path) -> None:
    files = {f"2024/client_{i:03d}.csv": b"date;page\n2024-05-01;home\n2024-05-02;cart\n" for i in range(5)}
    events, _, _ = run(tmp_path, files, customer="filename", filename_pattern=r"client_(\d+)")
    assert sorted({customer for customer, _, _ in events}) == [f"{i:03d}" for i in range(5)]
    events, _, _ = run(tmp_path / "b", files, customer="filename")
    assert sorted({customer for customer, _, _ in events}) == [f"client_{i:03d}" for i in range(5)]
    assert "not found in" in ask(tmp_path / "c", files, customer="filename", filename_pattern=r"user_(\d+)").message
    events, _, _ = run(
        tmp_path / "d",
        {"2024-05-01/a.csv": b"client;page\n7;home\n"},
        time="filename",
        filename_pattern=r"\d{4}-\d\d-\d\d",
    )
    assert events == [("7", "2024-05-01 00:00:00", "home")]
    (tmp_path / "out" / "schema.toml").rename(tmp_path / "schema.toml")
    again, _, _ = run(tmp_path / "e", files, schema=tmp_path / "schema.toml")
    assert len(again) == 10


def test_equal_rows_of_files_of_different_days_are_no_repeats(tmp_path: Path) -> None:
    """The day is in the name, and the same receipt goes on."""
    log = b"client;page;receipt\n" + b"7;home;1\n" * 2 + b"7;cart;1\n"
    events, _, _ = run(
        tmp_path,
        {f"2024-05-0{day}.csv": log for day in (1, 2, 4)},
        time="filename",
        filename_pattern=r"\d{4}-\d\d-\d\d",
        visit="receipt",
        drop_duplicates=True,
    )
    assert Counter(page for _, _, page in events) == {"home": 3, "cart": 3}
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["counts"]["duplicates_removed"] == 3
    assert manifest["counts"]["visits"] == manifest["time"]["visits_over_days"] == 1


def test_thousands_of_small_files(tmp_path: Path) -> None:
    files = {f"{i // 100}/{i}.csv": b"client,date,rayon\n%d,2024-05-01,x\n" % i for i in range(2000)}
    events, rejects, _ = run(tmp_path, files)
    assert (len(events), rejects) == (2000, {})


def test_compressed_files_with_many_parts(tmp_path: Path) -> None:
    log = b"client,date,rayon\n" + b"".join(b"%d,2024-05-01,x\n" % i for i in range(300))
    half = log.index(b"\n", 2000) + 1
    zstd = pa.Codec("zstd").compress
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("in/a.csv", log[:half])
        archive.writestr("in/b.csv", b"client,date,rayon\n" + log[half:])
        archive.writestr("__MACOSX/._a.csv", b"\0\1")
        archive.writestr("in/.hidden", b"x")
    packed = {
        "two.gz": gzip.compress(log[:half]) + gzip.compress(log[half:]),
        "two.bz2": bz2.compress(log[:half]) + bz2.compress(log[half:]),
        "two.zst": zstd(log[:half], asbytes=True) + zstd(log[half:], asbytes=True),
        "two.zip": stream.getvalue(),
    }
    for name, data in packed.items():
        events, rejects, _summary = run(tmp_path / name, {name: data})
        assert (len(events), rejects) == (300, {}), name
    sources = json.loads((tmp_path / "two.zip" / "out" / "manifest.json").read_text())["sources"]
    assert [Path(source["path"]).name for source in sources] == ["a.csv", "b.csv"]


def test_a_damaged_zip_is_named(tmp_path: Path) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.csv", b"client,date,rayon\n" + b"1,2024-05-01,x\n" * 1000)
    data = bytearray(stream.getvalue())
    with pytest.raises(UserError, match="damaged or cut short"):
        run(tmp_path, {"log.zip": bytes(data[:-40])})
    data[60] ^= 0xFF
    with pytest.raises(UserError, match="damaged or cut short"):
        run(tmp_path / "b", {"log.zip": bytes(data)})


def test_a_lookup_table_in_another_encoding(tmp_path: Path) -> None:
    fill(tmp_path, {"products.csv": "article;rayon\n1;crémerie\n2;épicerie\n".encode("cp1252")})
    rows = b"".join(b"%d;2024-05-01;%d\n" % (i, i % 2 + 1) for i in range(6))
    events, _, _ = run(
        tmp_path, {"log.csv": b"client;date;article\n" + rows}, lookup=tmp_path / "products.csv", on="article"
    )
    assert {action for _, _, action in events} == {"crémerie", "épicerie"}


def test_nul_bytes_are_data(tmp_path: Path) -> None:
    rows = b"".join(b"%d,2024-05-01,x\n" % i for i in range(50)) + b"a\0b,2024-05-01,x\n51,2024\0-05-01,x\n"
    events, rejects, _ = run(tmp_path, {"log.csv": b"client,date,rayon\n" + rows})
    assert rejects == {"bad_time": 1}
    assert ("a\0b", "2024-05-01 00:00:00", "x") in events


def test_no_header_asks_for_columns(tmp_path: Path) -> None:
    ask(tmp_path, {"log.csv": b"1,2024-05-01,x\n2,2024-05-02,y\n"}, "--columns c1,c2,c3")
    with pytest.raises(SchemaError):
        run(tmp_path / "b", {"log.csv": b"1,2024-05-01,x\n2,2024-05-02,y\n"}, columns="client,date")
