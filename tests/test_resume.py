"""A run that was killed at any moment goes on from its last checkpoint and gives the same bytes."""

from __future__ import annotations

import bz2
import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_run import ONE, dirty_log, make_plan, read_folder

from luckyfast.errors import DatasetError, InputError, OutputExistsError
from luckyfast.ingestion import checkpoint
from luckyfast.ingestion.journal import Journal, partial_folder
from luckyfast.ingestion.plan import Condition, Rules
from luckyfast.ingestion.run import Budget, run_plan
from luckyfast.progress import NullProgress

SMALL = Budget(2, 1 << 13, 240_000, 1 << 26)
RULES = Rules(where=(("store != s3", (Condition("store", "!=", b"s3"),)),), min_visits=2, drop_duplicates=True)


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("logs")
    paths = [folder / name for name in ("0.csv", "1.csv.gz", "2.csv", "3.csv.gz", "4.csv")]
    for i, path in enumerate(paths):
        data = dirty_log(i, 40_000 if i != 4 else 300)
        path.write_bytes(gzip.compress(data, 1) if path.suffix == ".gz" else data)
    return paths


def plan_of(logs: list[Path], out: Path, *, rules: Rules = Rules(), resume: bool = False, **changes):  # noqa: B008
    plan = make_plan(logs, out, rules=rules, resume=resume, **changes)
    if not rules.where:
        return plan
    from dataclasses import replace

    return replace(plan, files=tuple(replace(file, where=(0,)) for file in plan.files))


class Stops(NullProgress):
    """Presses Ctrl-C when so many bytes have been read, or so many parts merged."""

    def __init__(self, stage: str, amount: float) -> None:
        self.wanted, self.left, self.stage = stage, amount, ""

    def start(self, stage: str, total: float | None, unit: str) -> None:
        self.stage = stage

    def advance(self, amount: float) -> None:
        if self.stage == self.wanted:
            self.left -= amount
            if self.left < 0:
                raise KeyboardInterrupt


@pytest.mark.parametrize("rules", [Rules(), RULES], ids=["no rules", "rules"])
@pytest.mark.parametrize("with_temp", [False, True], ids=["beside", "temp"])
def test_an_interrupted_run_goes_on(logs: list[Path], tmp_path: Path, rules: Rules, with_temp: bool) -> None:
    """Interrupted again and again while it reads and merges, each time with another division of work."""
    whole = run_plan(plan_of(logs, tmp_path / "whole", rules=rules), budget=ONE)
    total = sum(path.stat().st_size for path in logs)
    temp = tmp_path / "temp" if with_temp else None
    if temp is not None:
        temp.mkdir()
    draw = random.Random(1)
    n_interrupted = 0
    for stage, amount in [("Reading", total * share) for share in (0.35, 0.6, 0.8)] + [("Merging", 0.0), ("", 0.0)]:
        progress = Stops(stage, amount)
        budget = Budget(draw.choice([1, 2, 3]), draw.choice([1000, 1 << 13, 1 << 14]), 240_000, 1 << 26)
        plan = plan_of(logs, tmp_path / "out", rules=rules, temp=temp, resume=n_interrupted > 0)
        if stage:
            with pytest.raises(KeyboardInterrupt, match="--resume") as caught:
                run_plan(plan, progress=progress, budget=budget)
            assert (f" {temp}/luckyfast-" in str(caught.value)) == with_temp, "what is to be removed is named"
            n_interrupted += 1
            assert not (tmp_path / "out").exists()
        else:
            summary = run_plan(plan, progress=progress, budget=budget)
    assert read_folder(summary.path) == read_folder(whole.path)
    assert summary.counts == whole.counts
    assert summary.reject_examples == whole.reject_examples
    if temp is not None:
        temp.rmdir()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "whole"]


def test_a_checkpoint_before_the_first_accepted_row(
    logs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log in order of time and a rule on it: for minutes nothing is kept."""
    monkeypatch.setattr(checkpoint, "INTERVAL_S", 0.0)
    nothing = Rules(where=(("store = s99", (Condition("store", "=", b"s99"),)),))
    total = sum(path.stat().st_size for path in logs)
    with pytest.raises(KeyboardInterrupt):
        run_plan(plan_of(logs, tmp_path / "out", rules=nothing), progress=Stops("Reading", 0.7 * total), budget=SMALL)
    entry = json.loads((tmp_path / "out.partial" / "journal").read_text().splitlines()[-1].partition(" ")[2])
    assert entry["runs"] == []
    with pytest.raises(InputError, match="no row"):
        run_plan(plan_of(logs, tmp_path / "out", rules=nothing, resume=True), budget=SMALL)


def test_what_was_read_is_not_read_again(logs: list[Path], tmp_path: Path) -> None:
    first = tmp_path / "first.csv"
    first.write_bytes(dirty_log(1, 40_000))
    with pytest.raises(KeyboardInterrupt):
        run_plan(plan_of([first, logs[2]], tmp_path / "out"), progress=Stops("Merging", 0), budget=SMALL)
    journal = Journal.begin(tmp_path / "out", _header(first, logs[2], tmp_path), resume=True)
    assert journal.last is not None
    state = checkpoint.load_state(journal.folder / "spills", journal.last)
    journal.close()
    assert state["finished"].tolist() == [0, 1]
    assert state["log_bytes"] > first.stat().st_size
    # the reader would not see the difference: it looks at nothing of a finished file
    size, times = first.stat().st_size, first.stat()
    first.write_bytes(b"x" * size)
    os.utime(first, ns=(times.st_atime_ns, times.st_mtime_ns))
    done = run_plan(plan_of([first, logs[2]], tmp_path / "out", resume=True), budget=SMALL)
    assert done.counts["rows_read"] > 70_000


def _header(first: Path, second: Path, tmp_path: Path) -> dict:
    from luckyfast.ingestion.places import _describe

    return _describe(plan_of([first, second], tmp_path / "out"), tmp_path)


def interrupted(logs: list[Path], out: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_plan(plan_of(logs, out), progress=Stops("Merging", 0), budget=SMALL)
    assert partial_folder(out).is_dir()


def test_an_interrupted_run_is_not_overwritten_in_silence(logs: list[Path], tmp_path: Path) -> None:
    interrupted(logs, tmp_path / "out")
    before = read_folder(tmp_path)
    with pytest.raises(OutputExistsError, match=r"out.partial is left over") as caught:
        run_plan(plan_of(logs, tmp_path / "out"), budget=SMALL)
    assert "--resume" in str(caught.value.hint)
    assert f"rm -r {tmp_path / 'out.partial'}" in str(caught.value.hint)
    assert read_folder(tmp_path) == before


def test_only_the_same_run_can_go_on(logs: list[Path], tmp_path: Path) -> None:
    interrupted(logs, tmp_path / "out")
    with pytest.raises(DatasetError, match="of other raw files, or they have changed since"):
        run_plan(plan_of(logs[:-1], tmp_path / "out", resume=True), budget=SMALL)
    with pytest.raises(DatasetError, match="with other roles, formats or rules"):
        run_plan(plan_of(logs, tmp_path / "out", rules=RULES, resume=True), budget=SMALL)
    assert run_plan(plan_of(logs, tmp_path / "out", resume=True), budget=SMALL).counts["events"]


def test_a_damaged_partial_folder_is_begun_anew(logs: list[Path], tmp_path: Path) -> None:
    whole = run_plan(plan_of(logs, tmp_path / "whole"), budget=ONE)
    for harm in ("lose a run", "cut the journal", "lose the journal"):
        interrupted(logs, tmp_path / "out")
        folder = tmp_path / "out.partial"
        if harm == "lose a run":
            sorted((folder / "spills").glob("run-*"))[0].unlink()
        elif harm == "cut the journal":
            journal = folder / "journal"
            journal.write_bytes(journal.read_bytes()[:-9])
        else:
            (folder / "journal").unlink()
        summary = run_plan(plan_of(logs, tmp_path / "out", resume=True), budget=SMALL)
        assert read_folder(summary.path) == read_folder(whole.path)
        for path in sorted(summary.path.rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
        summary.path.rmdir()


def test_two_processes_do_not_write_one_dataset(logs: list[Path], tmp_path: Path) -> None:
    held = Journal.begin(tmp_path / "out", {}, resume=False)
    for resume in (False, True):
        with pytest.raises(OutputExistsError, match="another luckyfast is writing"):
            run_plan(plan_of(logs, tmp_path / "out", resume=resume), budget=SMALL)
    held.close()


# ---- kill -9 --------------------------------------------------------------------------------------------------------

RUN = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from test_resume import SMALL, plan_of
from luckyfast.ingestion.run import run_plan
from luckyfast.ingestion import checkpoint
from luckyfast.errors import OutputExistsError
checkpoint.INTERVAL_S = 0.05
try:
    run_plan(plan_of([Path(p) for p in {logs!r}], Path({out!r}), resume={resume}), budget=SMALL)
except OutputExistsError as error:
    assert "is complete" in error.message, error
"""


def launch(logs: list[Path], out: Path, *, resume: bool) -> subprocess.Popen[str]:
    code = RUN.format(tests=str(Path(__file__).parent), logs=[str(p) for p in logs], out=str(out), resume=resume)
    return subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)


def kill_at_random_moments(folder: Path, n_kills: int, seed: int, n_with: int) -> None:
    """Kill runs, each after a random time from when it makes its folder, and let each go on, to the same bytes.

    There are `n_kills` at least, and as many more as it takes, on a machine that is busy, to meet `n_with` of them
    behind a checkpoint.
    """
    paths = []
    for i in range(4):
        data = dirty_log(10 + i, 50_000)
        paths.append(folder / f"{i}.csv{['', '.gz', '', '.bz2'][i]}")
        paths[-1].write_bytes([bytes, lambda d: gzip.compress(d, 1), bytes, bz2.compress][i](data))
    whole = read_folder(run_plan(plan_of(paths[:3], folder / "whole"), budget=ONE).path)
    draw = random.Random(seed)
    out, partial = folder / "out", folder / "out.partial"
    # how long a run takes from when its folder is there, and from when the first store has been written out
    process = launch(paths[:3], out, resume=False)
    while not partial.exists():
        time.sleep(0.001)
    started = spilled = time.monotonic()
    while not (partial / "spills" / "run-000000").exists():
        spilled = time.monotonic()
    process.communicate()
    stopped = time.monotonic()

    def has_checkpoint() -> bool:
        journal = partial / "journal"
        return journal.is_file() and journal.read_bytes().count(b"\n") > 1

    seen = {"killed": 0, "with a checkpoint": 0, "finished": 0}
    while seen["killed"] < n_kills or seen["with a checkpoint"] < n_with:
        assert seen["killed"] + seen["finished"] < 10 * n_kills, seen
        for path in sorted(out.rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
        if out.exists():
            out.rmdir()
        resume = False
        while True:
            process = launch(paths[:3], out, resume=resume)
            begun = draw.choice([partial.exists, (partial / "spills" / "run-000000").exists, has_checkpoint])
            while process.poll() is None and not begun():
                time.sleep(0.0005)
            time.sleep(draw.uniform(0, stopped - (started if begun == partial.exists else spilled)))
            process.send_signal(signal.SIGKILL)
            _, said = process.communicate()
            assert process.returncode in (0, -signal.SIGKILL), said
            if process.returncode == 0:
                seen["finished"] += 1
                break
            seen["killed"] += 1
            if not out.exists():
                assert partial.is_dir() or not resume
                seen["with a checkpoint"] += has_checkpoint()
            else:
                json.loads((out / "manifest.json").read_text())  # it is there only when it is whole
                assert read_folder(out) == whole
                if not partial.exists():
                    break
            resume = True
            if seen["killed"] >= n_kills and draw.random() < 0.5:
                break
        process = launch(paths[:3], out, resume=True) if partial.exists() or not out.exists() else None
        if process is not None:
            _, said = process.communicate()
            assert process.returncode == 0, said
        assert read_folder(out) == whole
        assert not partial.exists()


def test_killed_a_few_times(tmp_path: Path) -> None:
    kill_at_random_moments(tmp_path, 6, 1, n_with=1)


@pytest.mark.slow
def test_killed_at_fifty_moments(tmp_path: Path) -> None:
    kill_at_random_moments(tmp_path, 50, 2, n_with=11)
