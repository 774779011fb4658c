"""Text in any encoding is read as the same text; what is no text in it is never taken for another."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from luckyfast.errors import SchemaError
from luckyfast.ingestion.encodings import (
    TextStream,
    detect_encoding,
    detect_line_end,
    encode_text,
    encoded_bytes,
    parse_encoding,
)

SINGLE = ["cp1252", "iso8859-1", "iso8859-15", "cp850", "mac-roman", "cp437", "koi8-r"]


def decoded(data: bytes, encoding: str, line_end: str = "lf", piece: int = 7) -> bytes:
    stream = TextStream(io.BytesIO(data), encoding, line_end)
    out, room = stream.read(3), bytearray(piece)
    while n := stream.readinto(memoryview(room)):
        out += room[:n]
    return out


@given(st.text(st.characters(exclude_categories=("Cs",))), st.sampled_from(["utf-16-le", "utf-16-be", "utf-32-le"]))
def test_wide_text_is_read_as_utf8(text: str, encoding: str) -> None:
    assert decoded(text.encode(encoding), encoding) == text.encode()


@pytest.mark.parametrize("encoding", SINGLE)
def test_each_byte_of_a_single_byte_encoding_is_a_character_of_its_own(encoding: str) -> None:
    table = [decoded(bytes([byte]), encoding).decode() for byte in range(256)]
    assert len(set(table)) == 256
    for byte, char in enumerate(table):
        assert bytes([byte]).decode(encoding, "replace") in (char, "\ufffd")


@given(st.binary(max_size=40))
def test_wide_bytes_that_are_no_text_are_no_utf8_either(data: bytes) -> None:
    try:
        expected = data.decode("utf-16-le").encode()
    except UnicodeDecodeError:
        with pytest.raises(UnicodeDecodeError):
            decoded(data, "utf-16-le").decode()
    else:
        assert decoded(data, "utf-16-le") == expected


@given(st.text("abcé日本", max_size=30), st.binary(max_size=3))
@example("", b"\xeb\x80\x80")
def test_encodings_of_one_to_four_bytes_work(text: str, noise: bytes) -> None:
    data = text.replace("é", "").encode("shift_jis")
    assert decoded(data, "shift_jis") == data.decode("shift_jis").encode()
    try:
        expected = (data + noise).decode("shift_jis").encode()
    except UnicodeDecodeError:
        with pytest.raises(UnicodeDecodeError):
            decoded(data + noise, "shift_jis").decode()
    else:
        assert decoded(data + noise, "shift_jis") == expected


def test_lone_carriage_returns_become_line_feeds() -> None:
    assert decoded(b"a,b\r1,2\r", "utf-8", "cr") == b"a,b\n1,2\n"
    assert [detect_line_end(t) for t in (b"a\rb\rc", b"a\r\nb\r\n", b"a\nb\r\n", b"a", b'a\r"b\nc"\rd\re')] == [
        "cr",
        "lf",
        "lf",
        "lf",
        "cr",
    ]


ROWS = "id;rayon\n" + "1;crémerie\n2;épicerie\n3;bœuf à l’étouffée\n4;pain\n" * 5


@pytest.mark.parametrize(
    ("data", "encoding"),
    [
        (ROWS.encode(), "utf-8"),
        (ROWS.encode("utf-8-sig"), "utf-8"),
        (ROWS.encode("cp1252"), "cp1252"),
        (ROWS.encode("utf-16"), "utf-16-le"),
        (ROWS.encode("utf-16-le"), "utf-16-le"),
        (b"\xfe\xff" + ROWS.encode("utf-16-be"), "utf-16-be"),
        (ROWS.encode("utf-16-be"), "utf-16-be"),
        ("id;nom\n1;Zo\xeb\n".encode("latin-1") + b"2;pain\n" * 500, "cp1252"),
        (ROWS.encode() + b"5;\xe9t\xe9\n", "utf-8"),
        (b"id;rayon\n" + b"1;pain\n" * 50 + b"2;\xff\xfe\n", "utf-8"),
        (b"id,name\n" + b"1,x\n" * 9, "utf-8"),
        ("id;libellé\n".encode("cp1252") + "1;T-LIGHT 7 £\n2;5 °\n".encode("cp1252") * 9, "cp1252"),
        ("客户,日期\n1,中文\n".encode(), "utf-8"),
        (b"id;r\n1;caf\xe9\n2;\x81t\xe9\n3;\xe0\n", "iso8859-1"),
    ],
)
def test_the_encoding_is_told_by_the_bytes(data: bytes, encoding: str) -> None:
    found, why = detect_encoding("log.csv", (data,))
    assert found == encoding
    assert bool(why) == (encoding != "utf-8")


@pytest.mark.parametrize("encoding", ["cp850", "mac-roman"])
def test_old_encodings_are_asked_about_with_a_sample_in_each(encoding: str) -> None:
    data = "id;rayon\n1;crémerie\n2;pâtisserie\n3;chèvre\n".encode(encoding)
    with pytest.raises(SchemaError) as caught:
        detect_encoding("log.csv", (data,))
    assert f"{encoding}: '1;crémerie'" in caught.value.message
    assert f"--encoding {encoding}" in str(caught.value.hint)


def test_names_of_encodings() -> None:
    assert [parse_encoding(name) for name in ("UTF8", "ascii", "utf-8-sig", "Windows-1252")] == ["utf-8"] * 3 + [
        "cp1252"
    ]
    for wrong in ("klingon", "hex", "rot13"):
        with pytest.raises(SchemaError):
            parse_encoding(wrong)


@given(st.binary(max_size=60), st.sampled_from([*SINGLE, "utf-16-le", "utf-16-be", "utf-32-be", "utf-8"]))
def test_decoded_text_is_written_back_as_it_was(data: bytes, encoding: str) -> None:
    text = decoded(data, encoding)
    if encoding.startswith("utf-") and encoding != "utf-8":
        try:
            data.decode(encoding)
        except UnicodeDecodeError:
            return
    assert encode_text(text, encoding) == data
    assert encoded_bytes(np.frombuffer(text, np.uint8), encoding) == len(data)
