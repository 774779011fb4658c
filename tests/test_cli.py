"""The commands as a user types them: one clear sentence and a hint for every mistake, and nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import pytest
import torch

from luckyfast.cli import main

RECEIPTS = "card,when,basket,category\n" + "".join(
    f"c{customer},2024-0{month}-{day:02d} 10:00:00,b{customer}-{month}-{day},{category}\n"
    for customer in range(6)
    for month in range(1, 7)
    for day in (3, 17)
    for category in ("MILK", "BREAD" if customer % 2 else "TEA", "EGGS" if month % 2 else "RICE")
)


@pytest.fixture(autouse=True)
def _in_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(name: str, content: str | bytes) -> str:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return name


def fails(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command that must fail with exit code 2, say one error and one hint, and leave nothing behind."""
    before = sorted(Path.cwd().rglob("*"))
    code = main(arguments)
    said = capsys.readouterr()
    assert code == 2, said.err
    assert said.out == ""
    lines = [line for line in said.err.splitlines() if line.startswith(("error:", "hint:"))]
    assert [line.split(":")[0] for line in lines] == ["error", "hint"], said.err
    assert "Traceback" not in said.err
    assert sorted(Path.cwd().rglob("*")) == before
    return said.err


def png() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 200)) + chunk(b"IEND", b"")


def test_ingest_summary_as_json_conserves_rows(capsys: pytest.CaptureFixture[str]) -> None:
    write("raw/a.csv", RECEIPTS + "c1,2024-07-01 10:00:00,b9\nc1,never,b9,MILK\n,2024-07-01 10:00:00,b9,MILK\n")
    assert main(["ingest", "raw", "out", "--json", "--quiet"]) == 0
    counts = json.loads(capsys.readouterr().out)["counts"]
    assert counts["rows_read"] == 6 * 12 * 3 + 3
    assert counts["rows_read"] == counts["events"] + counts["rejected"]
    assert counts["rejected"] == 3
    assert json.loads(Path("out/manifest.json").read_text())["counts"] == counts


def test_a_missing_column_is_named_with_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    write("raw/a.csv", RECEIPTS)
    said = fails(["ingest", "raw", "out", "--customer", "household"], capsys)
    assert "household" in said
    assert "card" in said


def test_an_empty_folder(capsys: pytest.CaptureFixture[str]) -> None:
    Path("raw").mkdir()
    assert "raw" in fails(["ingest", "raw", "out"], capsys)


def test_a_folder_of_pictures(capsys: pytest.CaptureFixture[str]) -> None:
    write("raw/a.png", png())
    write("raw/b.csv", png())
    assert "a.png" in fails(["ingest", "raw", "out"], capsys)


def test_a_file_with_only_a_header(capsys: pytest.CaptureFixture[str]) -> None:
    write("raw/a.csv", "card,when,basket,category\n")
    assert "a.csv" in fails(["ingest", "raw", "out"], capsys)


def test_a_time_column_that_is_no_time(capsys: pytest.CaptureFixture[str]) -> None:
    write("raw/a.csv", RECEIPTS)
    said = fails(["ingest", "raw", "out", "--time", "category"], capsys)
    assert "category" in said
    assert "MILK" in said


def test_an_output_folder_that_exists(capsys: pytest.CaptureFixture[str]) -> None:
    write("raw/a.csv", RECEIPTS)
    write("out/precious.txt", "keep me")
    assert "out" in fails(["ingest", "raw", "out"], capsys)
    assert Path("out/precious.txt").read_text() == "keep me"


def test_no_such_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert "nowhere.csv" in fails(["ingest", "nowhere.csv", "out"], capsys)


def test_too_many_rejects_stop_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    write("raw/a.csv", RECEIPTS + "c1,2024-07-01 10:00:00,b9\n" * 30)
    assert "field_count" in fails(["ingest", "raw", "out"], capsys)


@pytest.mark.parametrize("memory", ["12 parsecs", "1MB"])
def test_memory_that_is_none_or_too_little(memory: str, capsys: pytest.CaptureFixture[str]) -> None:
    write("raw/a.csv", RECEIPTS)
    fails(["ingest", "raw", "out", "--memory", memory], capsys)


@pytest.mark.parametrize("command", [["fit", "nowhere"], ["fit"], ["predict", "nowhere"]])
def test_what_is_not_there(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    fails(command, capsys)


def test_the_dataset_last_written_is_remembered(capsys: pytest.CaptureFixture[str]) -> None:
    write("raw/a.csv", RECEIPTS)
    assert main(["ingest", "raw", "out", "--quiet"]) == 0
    Path("model-mlp").mkdir()
    capsys.readouterr()
    assert main(["fit", "--arch", "mlp"]) == 2
    said = capsys.readouterr().err
    assert f"using the dataset last written from here: {Path('out').resolve()}" in said
    assert "model-mlp exists" in said


@pytest.mark.parametrize("budget", ["soon", "0s", "2s"])
def test_budgets_that_cannot_be_kept(budget: str, capsys: pytest.CaptureFixture[str]) -> None:
    write("raw/a.csv", RECEIPTS)
    assert main(["ingest", "raw", "out", "--quiet"]) == 0
    capsys.readouterr()
    assert "budget" in fails(["fit", "out", "--budget", budget], capsys) or budget != "2s"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    write("raw/a.csv", RECEIPTS)
    assert main(["ingest", "raw", "out", "--quiet"]) == 0
    capsys.readouterr()
    assert "there is no CUDA here" in fails(["fit", "out", "--device", "cuda"], capsys)


def test_any_setting_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    write("raw/a.csv", RECEIPTS)
    assert main(["ingest", "raw", "out", "--quiet"]) == 0
    capsys.readouterr()
    assert "unknown model setting: layer" in fails(["fit", "out", "--set", "layer=2"], capsys)
    assert "layers is 'two'" in fails(["fit", "out", "--set", "layers=two"], capsys)
    for name in ("hidden", "threads", "budget", "executor", "habit"):
        assert f"{name} is no setting for --set" in fails(["fit", "out", "--set", f"{name}=4"], capsys)
    with pytest.raises(SystemExit, match="2"):
        main(["fit", "out", "--set", "layers"])
    assert "'layers' is no NAME=VALUE" in capsys.readouterr().err
    chosen = ["--set", "layers=2", "--set", "schedule=linear", "--set", "visit-spans=[2.0, 9]"]
    assert main(["fit", "out", "--epochs", "1", "--hidden", "4", *chosen, "--threads", "1", "--quiet"]) == 0
    settings = json.loads(Path("model-lstm-embed/config.json").read_text())["model"]
    assert (settings["layers"], settings["schedule"], settings["visit_spans"]) == (2, "linear", [2.0, 9])


def test_from_raw_logs_to_offers(capsys: pytest.CaptureFixture[str]) -> None:
    write("raw/a.csv", RECEIPTS)
    assert main(["ingest", "raw", "out", "--quiet"]) == 0
    assert main(["fit", "out", "--arch", "mlp", "--epochs", "1", "--hidden", "4", "--threads", "1", "--quiet"]) == 0
    table = capsys.readouterr().out
    assert "decayed personal frequency" in table
    assert "hit@1" in table
    assert main(["predict", "model-mlp", "--top", "2", "--out", "offers.csv", "--quiet"]) == 0
    assert len(Path("offers.csv").read_text().splitlines()) == 1 + 2 * 6
    assert Path("model-mlp/report.html").stat().st_size > 10_000
    assert not list(Path.cwd().glob("*.partial*"))


def test_ctrl_c_leaves_nothing_behind() -> None:
    """A real process."""
    Path("data.csv").write_text(RECEIPTS * 20_000)
    command = [sys.executable, "-m", "luckyfast", "ingest", "data.csv", "out", "--workers", "1"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 60
    while process.poll() is None and not list(Path.cwd().glob("out.partial")) and time.monotonic() < deadline:
        time.sleep(0.001)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    if process.returncode == 0:
        pytest.skip("the run was over before the signal came")
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert not list(Path.cwd().glob("out*"))


@pytest.mark.parametrize("what", ["a dataset", "somebody's folder", "a file", "a link to a folder"])
def test_only_a_model_is_overwritten(what: str, capsys: pytest.CaptureFixture[str]) -> None:
    write("raw/a.csv", RECEIPTS)
    assert main(["ingest", "raw", "out", "--quiet"]) == 0
    write("precious/notes.txt", "keep me")
    Path("link").symlink_to("precious")
    place = {"a dataset": "out", "somebody's folder": "precious", "a file": "raw/a.csv", "a link to a folder": "link"}
    capsys.readouterr()
    fit = ["fit", "out", "--overwrite", "--quiet", "--epochs", "1", "--hidden", "4", "--out"]
    assert "is no model" in fails([*fit, place[what]], capsys)
    assert "is no model" in fails([*fit, "."], capsys)


def test_a_model_behind_a_link_is_overwritten(capsys: pytest.CaptureFixture[str]) -> None:
    write("raw/a.csv", RECEIPTS)
    assert main(["ingest", "raw", "out", "--quiet"]) == 0
    Path("disk/model").mkdir(parents=True)
    Path("model").symlink_to("disk/model")
    fit = ["fit", "out", "--overwrite", "--quiet", "--epochs", "1", "--hidden", "4", "--threads", "1", "--out", "model"]
    for _ in range(2):
        assert main(fit) == 0
        assert Path("model").is_symlink()
        assert Path("disk/model/model.onnx").is_file()
    assert sorted(path.name for path in Path("disk").iterdir()) == ["model"]
    capsys.readouterr()
    # predict and trials know it too
    assert main(["predict", "--top", "1", "--out", "offers.csv"]) == 0
    assert f"using the model last written from here: {Path('disk/model').resolve()}" in capsys.readouterr().err
    assert main(["trials"]) == 0


@pytest.mark.parametrize(
    ("flags", "what"),
    [
        (["--patience", "3", "--search", "none"], "--patience has no use"),
        (["--trials", "3", "--search", "none"], "--trials has no use"),
        (["--optimizer", "RandomSearch"], "--optimizer has no use"),
        (["--search", "hyperband"], "a search needs an end"),
        (["--search", "hyperband", "--resume"], "a search needs an end"),
    ],
)
def test_flags_of_a_search_that_lead_nowhere(flags: list[str], what: str, capsys: pytest.CaptureFixture[str]) -> None:
    write("raw/a.csv", RECEIPTS)
    assert main(["ingest", "raw", "out", "--quiet"]) == 0
    capsys.readouterr()
    assert what in fails(["fit", "out", *flags], capsys)


@pytest.mark.parametrize("column", ["Name, Vorname", "price [/kg]"])
def test_column_names_with_signs_of_our_own(column: str, capsys: pytest.CaptureFixture[str]) -> None:
    rows = RECEIPTS.replace(",", ";").splitlines()
    lines = [f"{rows[0]};{column}", *(f"{row};{row[1]}" for row in rows[1:])]
    write("raw/a.csv", "\n".join(lines))
    role = ["--customer", column] if "," in column else ["--customer", "card", "--feature", f"{column}:number"]
    assert main(["ingest", "raw", "out", "--quiet", *role]) == 0
    assert json.loads(Path("out/manifest.json").read_text())["counts"]["customers"] == 6
    capsys.readouterr()


def test_datasets_among_raw_files_are_no_raw_files(capsys: pytest.CaptureFixture[str]) -> None:
    write("a.csv", RECEIPTS)
    write("old.partial/journal", "what an interrupted run has left")
    for out in ("out", "out2"):
        assert main(["ingest", ".", out, "--quiet", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["counts"]["rows_read"] == 6 * 12 * 3


def test_a_finished_run_is_not_to_be_removed(capsys: pytest.CaptureFixture[str]) -> None:
    """It was killed after its dataset had its name and before it had tidied up."""
    write("raw/a.csv", RECEIPTS)
    assert main(["ingest", "raw", "out", "--quiet"]) == 0
    Path("out.partial").mkdir()
    capsys.readouterr()
    assert main(["ingest", "raw", "out", "--quiet", "--resume"]) == 2
    said = capsys.readouterr().err
    assert "out is complete" in said
    assert "hint: just use it" in said
    assert not Path("out.partial").exists()
    assert json.loads(Path("out/manifest.json").read_text())["complete"]


def test_a_file_whose_name_is_no_utf8(capsys: pytest.CaptureFixture[str]) -> None:
    Path("raw").mkdir()
    (Path(os.fsdecode(b"raw/d\xe9cembre.csv"))).write_text(RECEIPTS + "c1,never,b9,MILK\n")
    assert main(["ingest", "raw", "out", "--quiet"]) == 0
    assert main(["inspect", "out"]) == 0
    assert main(["rejects", "out"]) == 0
    assert "d\\xe9cembre.csv" in capsys.readouterr().out


def test_the_cursor_comes_back_after_an_error() -> None:
    """On a terminal of its own, on which an error is said while a bar is drawn."""
    code = (
        "from luckyfast.terminal import RichProgress, print_error; bar = RichProgress(); "
        "bar.start('Reading', 10.0, 'rows'); print_error('no such column', 'name it')"
    )
    ours, theirs = os.openpty()
    process = subprocess.Popen([sys.executable, "-c", code], stderr=theirs, env=os.environ | {"TERM": "xterm"})
    os.close(theirs)
    said = b""
    while True:
        try:
            part = os.read(ours, 1 << 16)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        said += part
    os.close(ours)
    assert process.wait() == 0
    assert b"\x1b[?25l" in said, "a bar was drawn"
    assert said.rindex(b"\x1b[?25h") > said.rindex(b"\x1b[?25l"), "and the cursor is there again"
    before, _, error = said.partition(b"error:")
    assert b"\x1b[?25h" in before
    assert b"Reading" not in error


def test_notes_between_two_stages_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    from luckyfast.terminal import PlainProgress, RichProgress

    for progress in (PlainProgress(), RichProgress()):
        progress.start("Probing", None, "")
        progress.finish()
        progress.note("it is [cut] short")
        progress.start("Training", 1.0, "share")
        progress.finish()
        assert "it is [cut] short\n" in capsys.readouterr().err


def test_the_demo_clears_what_an_interrupted_one_has_left() -> None:
    from luckyfast.demo import _clear
    from luckyfast.errors import OutputExistsError

    for name in ("raw/till.csv", "model.search/trials.jsonl", "receipts.partial/journal"):
        write(f"demo/{name}", "")
    _clear(Path("demo"))
    assert not list(Path("demo").iterdir())
    write("demo/mine.txt", "")
    with pytest.raises(OutputExistsError, match=r"mine\.txt"):
        _clear(Path("demo"))
    Path("demo/mine.txt").unlink()
    write("demo/raw/till.csv", "")
    for flags in (["--seed", "-1"], ["--budget", "soon"]):
        assert main(["demo", *flags, "--out", "demo"]) == 2
        assert Path("demo/raw/till.csv").is_file(), "what is there stays when nothing new can come"


def test_kernels_where_no_cache_can_be_written() -> None:
    """Neither beside the kernels nor in the user's own folder, as in a container with another user."""
    from luckyfast import kernels

    write("site/kernels.py", Path(kernels.__file__).read_text())
    write("site/__pycache__", "no folder")
    code = "import os, kernels; print(os.environ.get('NUMBA_CACHE_DIR', ''))"
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    environment |= {"PYTHONPATH": "site", "PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": str(Path.cwd())}

    def chosen(**more: str) -> str:
        command = [sys.executable, "-c", code]
        return subprocess.run(
            command, env=environment | more, capture_output=True, text=True, check=True
        ).stdout.strip()

    assert chosen(XDG_CACHE_HOME=str(Path("cache").resolve())) == ""
    assert chosen(XDG_CACHE_HOME="/dev/null/cache", NUMBA_CACHE_DIR="mine") == "mine"
    name = f"luckyfast-kernels-{os.getuid()}"
    assert chosen(XDG_CACHE_HOME="/dev/null/cache") == str(Path(name).resolve())
    assert Path(name).stat().st_mode & 0o777 == 0o700
    Path(name).rmdir()
    Path(name).mkdir()
    Path(name).chmod(0o777)  # somebody else may have put code there
    assert chosen(XDG_CACHE_HOME="/dev/null/cache") != str(Path(name).resolve())
