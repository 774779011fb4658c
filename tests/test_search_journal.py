"""The journal: what it holds after any end is what was finished, no more and no less."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luckyfast.errors import ModelError
from luckyfast.search.journal import Journal, Record, read_events


def write(path: Path) -> Journal:
    journal = Journal(path, {"seed": 3})
    for number in range(3):
        journal.begin(number, 0, {"hidden": number}, float(number))
    journal.end(0, 0, Record("ok", 1.5, 2.0, {"valid_hit1": 0.4}, 4.0))
    journal.end(1, 0, Record("memory", None, 2.0, {"why": "ran out"}, 5.0))
    journal.begin(0, 1, {"hidden": 0}, 6.0)
    journal.close()
    return journal


def test_a_journal_comes_back(tmp_path: Path) -> None:
    written, again = write(tmp_path / "trials.jsonl"), Journal(tmp_path / "trials.jsonl", {"seed": 4})
    assert again.header["seed"] == 3
    assert again.trials == written.trials
    assert again.trials[0].open == {1}
    assert (again.trials[0].rung, again.trials[0].reached, again.trials[0].loss) == (0, 1, 1.5)
    assert (again.trials[1].rung, again.trials[1].loss) == (-1, None)
    assert again.spent_s == 6.0
    again.close()


def test_what_is_open_comes_in_the_order_in_which_it_first_began(tmp_path: Path) -> None:
    write(tmp_path / "trials.jsonl")
    journal = Journal(tmp_path / "trials.jsonl", {})
    assert journal.open == [(2, 0), (0, 1)]  # not by number
    journal.begin(0, 1, {"hidden": 0}, 7.0)
    journal.begin(2, 0, {"hidden": 2}, 8.0)
    assert journal.open == [(2, 0), (0, 1)]
    journal.close()


@settings(max_examples=60, deadline=None)
@given(share=st.floats(0, 1))
def test_a_journal_that_was_cut_anywhere_goes_on(share: float, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("journal") / "trials.jsonl"
    write(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    whole = path.read_bytes().count(b"\n")
    journal = Journal(path, {"seed": 3})
    journal.begin(7, 0, {"hidden": 7}, 9.0)
    journal.close()
    lines = path.read_bytes().splitlines()
    assert [json.loads(line)["event"] for line in lines][-1] == "begin"
    assert len(lines) == max(whole, 1) + 1
    assert lines[:whole] == content.splitlines()[:whole]


def test_damage_is_named(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    write(path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], b"garbage\n", *lines[2:]]))
    with pytest.raises(ModelError, match=r"trials\.jsonl:3"):
        list(read_events(path))
    path.write_bytes(lines[0].replace(b'"version": 1', b'"version": 9'))
    with pytest.raises(ModelError, match="version 9"):
        list(read_events(path))
