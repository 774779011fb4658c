"""The parse kernel against rows parsed one field at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from luckyfast.kernels import parse as kernel
from naive_ingest import name_hash
from naive_times import naive_time

from luckyfast import _engine
from luckyfast.ingestion.parse import LookupTable, Parser, make_layout
from luckyfast.ingestion.plan import Dialect, FilePlan, IngestPlan, Roles, Source, TimeFormat
from luckyfast.ingestion.rejects import REASONS
from luckyfast.ingestion.stream import SourceReader, Workspace

FORMS = [
    TimeFormat("iso"),
    TimeFormat("ymd"),
    TimeFormat("dmy", date_separator=ord("/")),
    TimeFormat("mdy", date_separator=ord(".")),
    TimeFormat("epoch", unit_us=1_000_000),
    TimeFormat("epoch", unit_us=0),
    TimeFormat("order"),
    TimeFormat("named"),
    TimeFormat("ymd", year_digits=2),
    TimeFormat("ymd", date_separator=ord(" "), clock_digits=4),
    TimeFormat("ymd", clock_digits=6),
    TimeFormat("dmy", year_digits=2, clock_digits=2),
    TimeFormat("mdy"),
    TimeFormat("iso", clock_digits=4),
    TimeFormat("gaps"),
]


def parse_lines(path: Path, lines: list[bytes], form: TimeFormat) -> tuple[Parser, dict[int, str]]:
    """A parser that has read lines of customer, time, action; and the reason of each rejected line."""
    path.write_bytes(b"\n".join(lines) + b"\n")
    source = Source(path, "none", path.stat().st_size)
    file = FilePlan(source, Dialect(44, 34, False, ("c", "t", "a"), 0), (0,), (1,), (2,), None)
    roles = Roles(("c",), ("t",), ("a",), None)
    plan = IngestPlan((file,), roles, form, {}, None, 1.0, 0, 1, None, path, {})
    parser = Parser(LookupTable(None), 1 << 24)
    reader = SourceReader(0, file, 1 << 16)
    reasons = {}
    while (block := reader.read(Workspace(1 << 16))) is not None:
        for part in parser.parse(block, make_layout(file, plan), parser.empty).rejects:
            reasons |= {
                line: REASONS[reason] for line, reason in zip(part.line.tolist(), part.reason.tolist(), strict=True)
            }
    return parser, reasons


DIGITS = st.text("0123456789", min_size=1, max_size=3)
CLOCKS = st.one_of(
    st.just(""),
    st.times().map(lambda t: f" {t}"),
    st.times().map(lambda t: f"T{t}"),
    st.tuples(st.sampled_from([" ", "T"]), st.text("0123456789:.,Z+- ", max_size=10)).map("".join),
    st.tuples(st.sampled_from([" ", "T", ""]), st.integers(0, 240_000).map(str)).map("".join),
    st.times().map(lambda t: t.strftime("%H%M%S")),
    st.times().map(lambda t: f" {t.hour} {t.minute}"),
)
ZONES = st.sampled_from(
    [
        "",
        "Z",
        "+02:00",
        "-11:30",
        "+2:00",
        "+24:00",
        "z",
        " +0530",
        "+01",
        " UTC",
        " GMT+0100 (CET)",
        " EST",
        " XYZ",
        "+01:00[Europe/Paris]",
        " PM",
        "am",
        " AM +0100",
        " 30",
        ",",
    ]
)
SOME_WORDS = (
    "Tue, /Tuesday /mardi /Mar /mar. /March /mars /juin /juillet /JUIL. /févr. /Février /FÉVRIER /août /Dec /décembre /"
    "septembre/wednesday/Sept /5/05/5th, /1er /05-/24/2024/-24/ 2024/10:00:00/ 9:05/14h30/14h/ PM/ +0100/ GMT/ EST/:/ /"
    "/, /h/T/à /at /le /-/ 08.26.00.25 AM/ 14.30.59/ 10.30/13:00 pm/marmalade/Z/(x)/12/99"
)
WORDS = SOME_WORDS.split("/")
NAMED = st.one_of(
    st.lists(st.sampled_from(WORDS), max_size=9).map("".join),
    st.tuples(st.sampled_from(WORDS[:20]), st.integers(1, 31).map(str), st.sampled_from([" ", "-", "/", "th, "]))
    .flatmap(lambda a: st.tuples(st.just("".join(a)), st.sampled_from(WORDS[3:16]), st.sampled_from([" 2024", "-99"])))
    .flatmap(lambda a: st.tuples(st.just("".join(a)), st.sampled_from(["", " 10:00", ":9:05:07.25", " 14h30"]), ZONES))
    .map("".join),
)
DATES = st.one_of(
    st.dates().map(str),
    st.dates().map(lambda d: d.strftime("%Y%m%d")),
    st.dates().map(lambda d: f"{d.day}/{d.month}/{d.year:04}"),
    st.dates().map(lambda d: f"{d.month:02}.{d.day:02}.{d.year:04}"),
    st.dates().map(lambda d: f"{d.year:04} {d.month} {d.day}"),
    st.dates().map(lambda d: d.strftime("%y%m%d")),
    st.dates().map(lambda d: str(int(d.strftime("%d%m%Y")))),
    st.dates().map(lambda d: str(int(d.strftime("%m%d%y")))),
    st.tuples(DIGITS, st.sampled_from("/-. "), DIGITS, st.sampled_from("/-. "), DIGITS).map("".join),
)
NUMBERS = st.one_of(
    st.integers(-(2**64), 2**64).map(str),
    st.text("0123456789-.,", max_size=20),
    st.tuples(st.integers(-(2**63), 2**63), st.sampled_from(".,"), DIGITS).map(lambda t: "".join(map(str, t))),
)
GAPS = st.tuples(
    st.sampled_from([0, 7, 2**23 - 1]).flatmap(lambda n: st.integers(n - 1, n + 1)).map(str),
    st.sampled_from(["", " ", "  ", ".0 ", ",5 "]),
    st.sampled_from(["", "0", "7.0", "30", "8191", "8192", "-1", "2.5", "7 1"]),
).map("".join)
TIMES = st.one_of(st.tuples(st.sampled_from(["", " "]), DATES, CLOCKS, ZONES).map("".join), NUMBERS, NAMED, GAPS)


@settings(max_examples=100, deadline=None)
@given(texts=st.lists(TIMES.map(str.encode), min_size=1, max_size=30))
@example(texts=[b"2000-02-29", b"1900-02-29", b"2017-01-01T00:00:00.1234567Z", b"2017-04-31", b"0000-01-01"])
@example(texts=[b"8388607 8191", b"8388608 1", b"1 8192", b"3 ", b"3  7.0", b"3 7.5", b"0", b"-1 1", b"1 -1"])
@example(texts=[b"9223372036854775807", b"9223372036854775808", b"-1", b"-", b"29/2/2016 7:05", b"31.12.1999 23:59:59"])
def test_times(tmp_path_factory: pytest.TempPathFactory, texts: list[bytes]) -> None:
    path = tmp_path_factory.mktemp("log") / "log.csv"
    for form in FORMS:
        lines = [b'c%d,"%s",x' % (i, text) for i, text in enumerate(texts)]
        parser, reasons = parse_lines(path, lines, form)
        naive = [naive_time(text.decode(), form) for text in texts]
        expected = {
            i: "missing_time" if not texts[i].strip() else "bad_time" for i, time in enumerate(naive) if time is None
        }
        assert reasons == expected
        assert parser.store.time[: parser.n_fragments].tolist() == [time for time in naive if time is not None]


@settings(max_examples=60, deadline=None)
@given(
    names=st.lists(
        st.text(st.characters(exclude_characters='\r\n,"', exclude_categories=("Cs",)), min_size=1, max_size=45).filter(
            lambda name: name.strip(" \t")
        )
    )
)
def test_interning_keeps_names_apart(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    path = tmp_path_factory.mktemp("log") / "log.csv"
    names += names[::2]
    parser, reasons = parse_lines(
        path, [f"{name},{i},{name[::-1]}".encode() for i, name in enumerate(names)], TimeFormat("order")
    )
    assert reasons == {}
    for known, expected in ((parser.customers, names), (parser.actions, [name[::-1] for name in names])):
        distinct = list(dict.fromkeys(expected))
        n = int(known.state[0])
        found = [known.arena[known.stops[i] : known.stops[i + 1]].tobytes().decode() for i in range(n)]
        assert found == distinct
    hashes = parser.store.hashes[: len(set(names))].tolist()
    assert hashes == [name_hash(name.encode()) for name in dict.fromkeys(names)]


def test_names_of_any_number_and_length(tmp_path: Path) -> None:
    names = [b"%d" % i + b"x" * (i % 50) for i in range(20_000)]
    parser, reasons = parse_lines(tmp_path / "log.csv", [name + b",5," + name for name in names], TimeFormat("order"))
    assert reasons == {}
    assert int(parser.customers.state[0]) == int(parser.actions.state[0]) == len(names)
    owners = parser.store.customer[: parser.n_fragments].tolist()
    stops, arena = parser.customers.stops, parser.customers.arena
    assert [arena[stops[i] : stops[i + 1]].tobytes() for i in owners] == names


@settings(max_examples=200, deadline=None)
@given(text=st.one_of(st.binary(max_size=12), st.text(max_size=6).map(str.encode)))
def test_utf8_is_checked(text: bytes) -> None:
    def is_text() -> bool:
        try:
            text.decode()
        except UnicodeDecodeError:
            return False
        return True

    data = np.zeros(len(text) + 8, np.uint8)
    data[: len(text)] = np.frombuffer(text, np.uint8)
    assert kernel.is_utf8(data.ctypes.data, 0, len(text)) == is_text()


def test_engine_says_what_it_uses() -> None:
    assert _engine.kernel_name(0) == "portable"
    assert _engine.kernel_name() in ("portable", "avx2", "avx512")
