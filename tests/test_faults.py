"""Faults made for real, met by the command as a user runs it: one clear sentence, an exit code, no half dataset."""

from __future__ import annotations

import gzip
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

HEADER = "card,when,shelf,ticket\n"
ROLES = ["--customer", "card", "--time", "when", "--action", "shelf", "--visit", "ticket"]


def rows(n: int, first: int = 0) -> str:
    return "".join(
        f"k{i % 997},2024-01-{1 + i // 50 % 28:02d} 10:00,a{i % 13},{i % 997}-{i // 5000}\n"
        for i in range(first, first + n)
    )


def start(folder: Path, *arguments: str, **options: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "luckyfast", *arguments]
    return subprocess.Popen(  # type: ignore[call-overload,no-any-return]
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, said = process.communicate(timeout=120)
    assert "Traceback" not in said, said
    return process.returncode, out, said


def run(folder: Path, *arguments: str, **options: object) -> tuple[int, str, str]:
    return finish(start(folder, *arguments, **options))


def fails(folder: Path, *arguments: str, code: int = 2, **options: object) -> str:
    """A command that ends with one error and one hint, and leaves nothing."""
    before = sorted(folder.rglob("*"))
    returned, out, said = run(folder, *arguments, **options)
    assert returned == code, said
    assert out == ""
    lines = [line for line in said.splitlines() if line.startswith(("error:", "hint:"))]
    assert [line.split(":")[0] for line in lines] == ["error", "hint"], said
    assert sorted(folder.rglob("*")) == before
    return said


def counts(folder: Path) -> dict[str, int]:
    loaded = json.loads((folder / "out" / "manifest.json").read_text())["counts"]
    accounted = sum(loaded[name] for name in ("events", "duplicates_removed", "filtered", "rejected"))
    assert loaded["rows_read"] == accounted
    return loaded  # type: ignore[no-any-return]


# ---- the disk -------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A file system of so many megabytes."""
    image, place = tmp_path / "image", tmp_path / "disk"
    place.mkdir()
    if os.geteuid() != 0 or shutil.which("mkfs.ext4") is None:
        pytest.skip("only root can mount a small disk")
    with image.open("wb") as file:
        file.truncate(request.param << 20)
    subprocess.run(["mkfs.ext4", "-q", "-O", "^has_journal", str(image)], check=True)
    if subprocess.run(["mount", "-o", "loop", str(image), str(place)], check=False).returncode:
        pytest.skip("no loop device")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("small_disk", [4], indirect=True)
def test_a_disk_that_is_full(tmp_path: Path, small_disk: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text(HEADER + rows(900_000))
    said = fails(small_disk, "ingest", str(log), "out", "--quiet", *ROLES)
    assert "the disk is full" in said
    assert "free some space" in said


@pytest.mark.parametrize("small_disk", [4, 40], indirect=True)
def test_spilled_runs_on_a_disk_that_is_full(tmp_path: Path, small_disk: Path) -> None:
    """What was done before stays to be gone on with, and is gone on with when there is room."""
    work = tmp_path / "work"
    work.mkdir()
    log = work / "log.csv.gz"
    # packed better than logs are, so that more is spilled than can be foreseen
    data = HEADER + "".join(f"k{i},2024-01-02 10:00,a{i % 5},{i}\n" for i in range(900_000))
    log.write_bytes(gzip.compress(data.encode()))
    # so little that a worker spills, however much the system counts for libraries and for kernels just compiled
    (work / "small.csv").write_text(HEADER + rows(100))
    assert run(work, "ingest", "small.csv", "small", *ROLES, "--quiet")[0] == 0
    arguments = ["ingest", "log.csv.gz", "out", *ROLES, "--quiet", "--workers", "1", "--memory"]
    _, _, said = run(work, *arguments, "100MB")
    least = re.search(r"at least --memory (\d+)MiB", said)
    assert least is not None, said
    arguments.append(f"{int(least[1]) + 60}MiB")
    code, _, said = run(work, *arguments, "--temp", str(small_disk))
    assert code == 2
    # the smaller disk has no room for what is estimated, the larger one for that but not for what comes
    too_small = shutil.disk_usage(small_disk).total < 30_000_000
    assert ("will be written to" if too_small else f"the disk is full (writing to . or {small_disk})") in said
    assert not (work / "out").exists()
    is_kept = (work / "out.partial").exists()
    assert is_kept == ("--resume" in said)
    assert is_kept == (len(list(small_disk.glob("luckyfast-*"))) > 0)
    assert is_kept == (not too_small)
    if is_kept:
        shutil.rmtree(work / "out.partial")
    assert run(work, *arguments)[0] == 0
    assert counts(work)["events"] == 900_000


def test_a_file_size_limit(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(HEADER + rows(300_000))
    code = (
        "import resource, signal, sys; from luckyfast.cli import main; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000)); sys.exit(main(sys.argv[1:]))"
    )
    before = sorted(tmp_path.rglob("*"))
    done = subprocess.run(
        [sys.executable, "-c", code, "ingest", "log.csv", "out", "--quiet", *ROLES],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 2, done.stderr
    assert "the disk is full" in done.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_that_cannot_be_written() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "log.csv").write_text(HEADER + rows(100))
        (folder / "closed").mkdir(mode=0o555)
        said = fails_as_nobody(folder, "ingest", "log.csv", "closed/out", "--quiet", *ROLES)
        assert "cannot write to closed: Permission denied" in said


# ---- the files ------------------------------------------------------------------------------------------------------


AS_NOBODY = """
import os, sys, tempfile
from pathlib import Path
from luckyfast.cli import main
# everything is imported before, since this user may not read the place where Python lies
with tempfile.TemporaryDirectory() as name:
    log = Path(name, "log.csv")
    log.write_text("card,when,shelf,ticket\\nk,2024-01-02 10:00,a,1\\nk,2024-01-03 10:00,b,2\\n" * 9)
    main(["ingest", str(log), name + "/out", "--quiet", "--action", "shelf", "--max-reject", "1", "--json"])
    main(["ingest", name + "/nowhere", name + "/out"])
print("--", flush=True)
print("--", file=sys.stderr, flush=True)
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
sys.exit(main(sys.argv[1:]))
"""


def fails_as_nobody(folder: Path, *arguments: str) -> str:
    """A command of a user who may not read and write everything."""
    before = sorted(folder.rglob("*"))
    command = [sys.executable, "-c", AS_NOBODY, *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    out, said = (text.split("--\n")[1] for text in (done.stdout, done.stderr))
    assert out == ""
    assert [line.split(":")[0] for line in said.splitlines()] == ["error", "hint"], said
    assert [
        path for path in sorted(folder.rglob("*")) if path.parts[-1] != ".luckyfast" and ".luckyfast" not in path.parts
    ] == before
    return said


def test_a_file_that_cannot_be_read() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        (folder / "a.csv").write_text(HEADER + rows(100))
        (folder / "b.csv").write_text(HEADER + rows(100))
        (folder / "b.csv").chmod(0)
        said = fails_as_nobody(folder, "ingest", "a.csv", "b.csv", "out", "--quiet", *ROLES)
        assert "b.csv: Permission denied" in said


@pytest.mark.parametrize("kept", [0.3, 0.9, 0.99999])
def test_a_truncated_gzip_file(tmp_path: Path, kept: float) -> None:
    data = gzip.compress((HEADER + rows(400_000)).encode())
    (tmp_path / "log.csv.gz").write_bytes(data[: int(kept * len(data))])
    said = fails(tmp_path, "ingest", "log.csv.gz", "out", "--quiet", *ROLES)
    assert "log.csv.gz is gzip but damaged or cut short" in said
    assert "gzip -t" in said


def wait_for_reading(folder: Path, process: subprocess.Popen[str]) -> bool:
    """Wait until the run has its folder, which is just before it reads."""
    while process.poll() is None and not (folder / "out.partial" / "spills").exists():
        time.sleep(0.001)
    return process.poll() is None


def test_a_file_that_grows_while_it_is_read(tmp_path: Path) -> None:
    """Neither half a row nor a part of the new rows is taken in silence."""
    log = tmp_path / "log.csv"
    log.write_text(HEADER + rows(2_000_000))
    process = start(tmp_path, "ingest", "log.csv", "out", "--quiet", *ROLES)
    assert wait_for_reading(tmp_path, process)
    with log.open("a") as file:
        while process.poll() is None:
            file.write(rows(10))
            file.flush()
            time.sleep(0.001)
    code, _, said = finish(process)
    assert code == 2, said
    assert "log.csv changed while it was read" in said
    assert not list(tmp_path.glob("out*"))


def test_a_file_that_is_cut_while_it_is_read(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text(HEADER + rows(2_000_000))
    process = start(tmp_path, "ingest", "log.csv", "out", "--quiet", *ROLES)
    assert wait_for_reading(tmp_path, process)
    os.truncate(log, 1000)
    code, _, said = finish(process)
    assert code == 2, said
    assert "log.csv" in said
    assert "while it was read" in said
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize("packed", [False, True])
def test_a_file_that_vanishes_while_it_is_read(tmp_path: Path, packed: bool) -> None:
    """What is open can be read to its end; what is not open yet is an error."""
    names = [f"{i}.csv{'.gz' if packed else ''}" for i in range(6)]
    for i, name in enumerate(names):
        data = (HEADER + rows(200_000, i)).encode()
        (tmp_path / name).write_bytes(gzip.compress(data, 1) if packed else data)
    process = start(tmp_path, "ingest", *names, "out", "--quiet", "--workers", "1", *ROLES)
    assert wait_for_reading(tmp_path, process)
    (tmp_path / names[-1]).unlink()
    code, _, said = finish(process)
    if code == 0:
        assert counts(tmp_path)["events"] == 6 * 200_000
    else:
        assert code == 2, said
        assert f"cannot read {names[-1]}" in said
        assert not list(tmp_path.glob("out*"))


# ---- the rows -------------------------------------------------------------------------------------------------------


def test_nul_bytes(tmp_path: Path) -> None:
    """They are bytes of a field like others, and where they make it no time the row is a reject with its bytes."""
    log = HEADER + rows(1000) + "k1,2024-01-0\0 10:00,a,1\nk\0002,2024-01-02 10:00,a\0b,1\n" + "\0" * 100 + "\n"
    (tmp_path / "log.csv").write_text(log)
    assert run(tmp_path, "ingest", "log.csv", "out", "--quiet", *ROLES)[0] == 0
    found = counts(tmp_path)
    assert (found["rows_read"], found["events"]) == (1003, 1001)
    raw = pq.read_table(tmp_path / "out" / "rejects" / "part-00000.parquet").to_pydict()
    assert raw["reason"] == ["bad_time", "field_count"]
    assert raw["raw"] == [b"k1,2024-01-0\0 10:00,a,1", b"\0" * 100]


def test_a_row_of_100_mb(tmp_path: Path) -> None:
    """One reject, within the memory given, and the rows behind it are read."""
    with (tmp_path / "log.csv").open("w") as file:
        file.write(HEADER + rows(1000) + "k1,2024-01-02 10:00,")
        for _ in range(100):
            file.write("x" * 1_000_000)
        file.write(",1\n" + rows(1000, 1000))
    code, out, said = run(tmp_path, "ingest", "log.csv", "out", "--quiet", "--json", "--memory", "400MB", *ROLES)
    assert code == 0, said
    found = counts(tmp_path)
    assert (found["rows_read"], found["events"], found["rejected"]) == (2001, 2000, 1)
    assert json.loads(out)["rejects_by_reason"] == {"too_long": 1}
    assert json.loads(out)["peak_rss_bytes"] < 400_000_000


@pytest.mark.parametrize("n_after", [0, 1, 1000, 200_000])
def test_a_quote_that_is_never_closed(tmp_path: Path, n_after: int) -> None:
    """One reject and not the rest of the file."""
    quoted = rows(1000).replace(",a1,", ',"a, 1",')
    (tmp_path / "log.csv").write_text(HEADER + quoted + 'k1,2024-01-02 10:00,"open,1\n' + rows(n_after, 1000))
    code, _, said = run(tmp_path, "ingest", "log.csv", "out", "--quiet", *ROLES)
    assert code == 0, said
    found = counts(tmp_path)
    assert (found["events"], found["rejected"]) == (1000 + n_after, 1)
    raw = pq.read_table(tmp_path / "out" / "rejects" / "part-00000.parquet").to_pydict()
    assert (raw["reason"], raw["line"], raw["raw"]) == (["unclosed_quote"], [1002], [b'k1,2024-01-02 10:00,"open,1'])


# ---- signals --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def long_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    log = tmp_path_factory.mktemp("long") / "log.csv"
    log.write_text(HEADER + rows(1_500_000))
    return log


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_at_any_moment(long_log: Path, tmp_path: Path, name: str) -> None:
    number = getattr(signal, name)
    draw = random.Random(name)
    n_stopped = 0
    for _ in range(6):
        process = start(tmp_path, "ingest", str(long_log), "out", "--quiet", *ROLES)
        wait_for_reading(tmp_path, process)
        time.sleep(draw.uniform(0, 0.8))
        process.send_signal(number)
        code, _, said = finish(process)
        if code:
            n_stopped += 1
            assert code == 128 + number, said
            assert said.startswith(f"error: stopped by {'Ctrl-C' if name == 'SIGINT' else 'SIGTERM'}")
            assert not list(tmp_path.glob("out*"))
        else:
            assert counts(tmp_path)["events"] == 1_500_000
            shutil.rmtree(tmp_path / "out")
    assert n_stopped > 0


def test_ctrl_c_twice_at_any_moment(long_log: Path, tmp_path: Path) -> None:
    """The second ends it at once; what is then left is told by the next run and no obstacle to `--resume`."""
    draw = random.Random(3)
    n_stopped = 0
    for _ in range(6):
        process = start(tmp_path, "ingest", str(long_log), "out", "--quiet", *ROLES)
        wait_for_reading(tmp_path, process)
        time.sleep(draw.uniform(0, 0.8))
        process.send_signal(signal.SIGINT)
        time.sleep(draw.uniform(0, 0.02))
        process.send_signal(signal.SIGINT)
        code, _, said = finish(process)
        assert code in (0, 130, -signal.SIGINT), said
        n_stopped += code != 0
        if (tmp_path / "out").exists():
            assert counts(tmp_path)["events"] == 1_500_000
            shutil.rmtree(tmp_path / "out")
            shutil.rmtree(tmp_path / "out.partial", ignore_errors=True)
        elif (tmp_path / "out.partial").exists():
            code, _, said = run(tmp_path, "ingest", str(long_log), "out", "--quiet", *ROLES)
            assert code == 2
            assert "--resume" in said
            code, _, said = run(tmp_path, "ingest", str(long_log), "out", "--quiet", "--resume", *ROLES)
            assert code == 0, said
            assert counts(tmp_path)["events"] == 1_500_000
            shutil.rmtree(tmp_path / "out")
        assert not list(tmp_path.glob("out*"))
    assert n_stopped > 0
