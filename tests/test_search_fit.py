"""The search as a whole, on a small log: real trainings in real processes, killed for real."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from log_rows import habit_log
from naive_ingest import write_dataset
from search_jobs import sizes_over_trials

import luckyfast
from luckyfast.errors import BudgetError, ModelError, OutputExistsError
from luckyfast.fitting.folders import publish, study_folder
from luckyfast.fitting.run import _best_of
from luckyfast.models import ModelConfig
from luckyfast.search.journal import Journal, Record
from luckyfast.search.results import read_results, write_results
from luckyfast.search.space import Dimension, Space, default_space
from luckyfast.search.study import Status

SMALL: dict[str, Any] = {"hidden": 8, "embedding": 6, "habit_hidden": 4, "epochs": 1, "batch_visits": 256}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(habit_log(n_customers=60, n_visits=12), tmp_path_factory.mktemp("log") / "dataset")


def ends(folder: Path) -> list[tuple[int, int, str]]:
    lines = [json.loads(line) for line in (folder / "trials.jsonl").read_text().splitlines()]
    return [(line["trial"], line["rung"], line["status"]) for line in lines if line["event"] == "end"]


def command(dataset: Path, out: Path, *more: str) -> list[str]:
    flags = [f"--{name.replace('_', '-')}={SMALL[name]}" for name in ("hidden", "embedding", "epochs")]
    return [sys.executable, "-m", "luckyfast", "fit", str(dataset), "--out", str(out), *flags, *more]


def test_a_search_ends_with_a_model_and_repeats_itself(dataset: Path, tmp_path: Path) -> None:
    heard: list[Status] = []
    found = []
    for name in ("first", "second"):
        callbacks = [heard.append] if name == "first" else []
        model = luckyfast.fit(dataset, out=tmp_path / name, trials=5, seed=3, threads=2, callbacks=callbacks, **SMALL)
        rows = read_results(model.path).rows
        assert model.config["search"]["trials"] == 5
        best = min((row for row in rows if row["valid_loss"] is not None), key=lambda row: row["valid_loss"])
        assert model.config["search"]["best_trial"] == best["trial"]
        assert model.config["model"]["dropout"] == best["dropout"]
        searched = read_results(model.path).searched
        found.append([(row["trial"], row["rung"], *(row[key] for key in searched), row["valid_loss"]) for row in rows])
        assert len(model.metrics["systems"]) == 7
        assert not model.path.with_name(f"{name}.search").exists()
    assert found[0] == found[1]
    assert len({row[2:-1] for row in found[0]}) == 5
    assert {row[1] for row in found[0]} >= {0, 1, 2}
    assert heard[-1].ended
    assert heard[-1].best is not None
    assert max(len(status.running) for status in heard) == 2
    write_results(read_results(tmp_path / "first"), tmp_path / "trials.csv")
    assert len((tmp_path / "trials.csv").read_text().splitlines()) == 1 + len(found[0])


def test_a_warm_start_tries_the_best_of_an_earlier_search_first(dataset: Path, tmp_path: Path) -> None:
    space = tmp_path / "space.toml"
    space.write_text("dropout = {linear = [0.0, 0.6]}\n")
    first = luckyfast.fit(dataset, out=tmp_path / "first", trials=3, space=space, threads=1, **SMALL)
    second = luckyfast.fit(
        dataset, out=tmp_path / "second", trials=3, space=space, threads=1, seed=9, warm_start=first.path, **SMALL
    )
    before, after = (read_results(model.path).rows for model in (first, second))
    assert {row["dropout"] for row in before} == {row["dropout"] for row in after}


def test_a_warm_start_from_a_search_that_knew_fewer_settings(tmp_path: Path) -> None:
    wide = default_space(ModelConfig(hidden=64))
    narrow = Space((Dimension("schedule", "choice", ("cosine", "linear")), wide.dimensions[0]), wide.start)
    journal = Journal(tmp_path / "trials.jsonl", {})
    old = {name: value for name, value in wide.start.items() if name not in ("schedule", "layers", "label_smoothing")}
    for number, (settings, loss) in enumerate([(old | {"hidden": 96}, 2.0), (old | {"schedule": "constant"}, 1.0)]):
        journal.begin(number, 0, settings, 0.0)
        journal.end(number, 0, Record("ok", loss, 1.0, {}, 1.0))
    journal.close()
    found = _best_of(tmp_path, wide)
    assert [(one["schedule"], one["layers"], one["hidden"]) for one in found] == [
        ("constant", 1, 64),
        ("cosine", 1, 96),
    ]
    assert [(one["schedule"], one["hidden"]) for one in _best_of(tmp_path, narrow)] == [("cosine", 96)]


def test_any_executor_runs_the_trials(dataset: Path, tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as executor:
        model = luckyfast.fit(dataset, out=tmp_path / "model", trials=2, executor=executor, threads=1, **SMALL)
    assert model.config["search"]["trials"] == 2


def test_trials_that_take_too_much_memory_are_stopped_and_the_rest_goes_on(dataset: Path, tmp_path: Path) -> None:
    space = tmp_path / "space.toml"
    # The largest of these take ten gigabytes.
    space.write_text("hidden = {ordered = [8, 16000]}\nbatch_visits = {log = [128, 100000]}\n")
    # In a process of its own: this one holds what earlier tests have left.
    more = ["--trials", "6", "--threads", "1", "--space", str(space), "--memory", "1.6GB", "--quiet"]
    subprocess.run(command(dataset, tmp_path / "model", *more), check=True, capture_output=True)
    model = luckyfast.load(tmp_path / "model")
    assert model.config["search"]["peak_bytes"] < 1.6e9
    assert model.config["model"]["hidden"] == 8


def hopeless(folder: Path) -> str:
    """A space in which nothing but the default learns anything."""
    file = folder / "hopeless.toml"
    file.write_text(f"learning_rate = {{choice = [{', '.join(f'{n}e-9' for n in range(2, 14))}]}}\n")
    return f"--space={file}"


def configurations(rows: list[dict[str, Any]]) -> list[tuple[int, float, float]]:
    return [(row["trial"], row["learning_rate"], row["valid_loss"]) for row in rows]


def test_patience_ends_a_search_says_so_and_gives_the_time_back(dataset: Path, tmp_path: Path) -> None:
    began = time.monotonic()
    more = ["--budget=10m", "--search=hyperband", "--patience=3", "--threads=1", hopeless(tmp_path)]
    run = subprocess.run(command(dataset, tmp_path / "model", *more), check=True, capture_output=True, text=True)
    took = time.monotonic() - began
    assert took < 300
    results = read_results(tmp_path / "model")
    assert sorted({row["trial"] for row in results.rows}) == [0, 1, 2, 3]
    assert results.stopped.startswith("nothing better in 3 configurations, ")
    assert results.stopped.endswith("before the time was up")
    assert results.stopped in run.stderr
    config = luckyfast.load(tmp_path / "model").config
    assert config["search"]["best_trial"] == 0
    assert config["search"]["stopped"] == results.stopped
    assert not config["interrupted"]


def test_patience_starts_anew_with_each_better_model(dataset: Path, tmp_path: Path) -> None:
    space = tmp_path / "space.toml"
    space.write_text("recency = {linear = [0.0, 5.0]}\nlearning_rate = {log = [0.0001, 0.03]}\n")
    model = luckyfast.fit(
        dataset, out=tmp_path / "model", search="hyperband", patience=3, space=space, threads=1, trials=60, **SMALL
    )
    results = read_results(model.path)
    best, since, firsts = math.inf, [0], set[int]()
    for row in results.rows:
        since.append(since[-1] + (row["trial"] not in firsts))
        firsts.add(row["trial"])
        if row["valid_loss"] < best:
            best, since[-1] = row["valid_loss"], 0
    assert results.stopped == "nothing better in 3 configurations"
    assert max(since[:-1]) < 3 == since[-1]


def kill_after(n_ended: int, arguments: list[str], study: Path) -> None:
    """Run a search and kill it when so many trainings have ended."""
    process = subprocess.Popen(arguments, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not ((study / "trials.jsonl").is_file() and len(ends(study)) >= n_ended):
        time.sleep(0.02)
    process.kill()
    process.wait()


def test_a_resumed_search_has_the_patience_that_was_left(dataset: Path, tmp_path: Path) -> None:
    more = ["--trials=400", "--patience=6", "--threads=1", "--quiet", hopeless(tmp_path)]
    subprocess.run(command(dataset, tmp_path / "whole", *more), check=True, capture_output=True)
    study = tmp_path / "model.search"
    kill_after(3, command(dataset, tmp_path / "model", *more), study)
    assert 3 <= len(ends(study)) < 7
    subprocess.run(command(dataset, tmp_path / "model", "--resume", *more), check=True, capture_output=True)
    whole, resumed = (read_results(tmp_path / name) for name in ("whole", "model"))
    assert len(configurations(whole.rows)) >= 7
    assert configurations(resumed.rows) == configurations(whole.rows)
    assert resumed.stopped == whole.stopped == "nothing better in 6 configurations"


def test_a_budget_too_small_is_said(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(BudgetError, match="no time to train"):
        luckyfast.fit(dataset, out=tmp_path / "model", budget=3, threads=1, **SMALL)
    assert not list(tmp_path.iterdir())


def test_an_unfinished_search_is_kept_until_something_is_said(dataset: Path, tmp_path: Path) -> None:
    study = tmp_path / "model.search"
    kill_after(2, command(dataset, tmp_path / "model", "--trials", "400"), study)
    finished = ends(study)
    assert len(finished) >= 2
    with pytest.raises(OutputExistsError, match="unfinished search"):
        luckyfast.fit(dataset, out=tmp_path / "model", trials=400, **SMALL)
    with pytest.raises(ModelError, match="another seed"):
        luckyfast.fit(dataset, out=tmp_path / "model", trials=400, seed=1, resume=True, **SMALL)
    assert ends(study) == finished


def test_a_folder_that_is_no_search_is_left_alone(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "model.search").mkdir()
    (tmp_path / "model.search" / "diary.txt").write_text("mine")
    for more in ({}, {"overwrite": True}, {"resume": True}):
        with pytest.raises(OutputExistsError, match="something else is in it"):
            luckyfast.fit(dataset, out=tmp_path / "model", **SMALL, **more)
    assert (tmp_path / "model.search" / "diary.txt").read_text() == "mine"


def test_baselines_are_worth_keeping(tmp_path: Path) -> None:
    for measured in (False, True):
        with study_folder(tmp_path / "model", {}, resume=False, overwrite=False) as study:
            Journal(study / "trials.jsonl", {}).close()
            if measured:
                (study / "baselines.json").write_text("{}")
        assert study.exists() == measured

    def fail() -> None:
        with study_folder(tmp_path / "model", {}, resume=True, overwrite=False) as study:
            assert (study / "baselines.json").is_file()
            raise ModelError("a mistake", hint="try again")

    with pytest.raises(ModelError):
        fail()
    assert not (tmp_path / "model.search").exists()


def test_a_killed_probe_is_begun_again(dataset: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(command(dataset, tmp_path / "model", "--memory", "1.2GB", "--threads", "1", "--quiet"))
    task = Path(f"/proc/{process.pid}/task")
    children: list[str] = []
    while not children and process.poll() is None:
        time.sleep(0.05)
        children = [c for thread in task.iterdir() for c in (thread / "children").read_text().split()]
    os.kill(int(children[0]), signal.SIGKILL)
    assert process.wait(timeout=120) == 0
    assert luckyfast.load(tmp_path / "model").metrics["systems"]


def test_ctrl_c_waits_until_it_may_end_something() -> None:
    said = subprocess.run(
        [sys.executable, "-c", "from search_jobs import meet_ctrl_c; meet_ctrl_c()"],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent,
    ).stdout
    assert said.split() == ["held", "back", "through", "again"]


def run_with_kills(dataset: Path, out: Path, n_kills: int, seed: int) -> None:
    """Run a search to its end, killing the command or one of its processes at random moments on the way."""
    chance = random.Random(seed)
    arguments = command(dataset, out, "--trials", "12", "--seed", "5", "--resume", "--quiet")
    # Trials keep their training all the time, so that kills fall between and into checkpoints.
    (out.parent / "sitecustomize.py").write_text("from luckyfast import checkpoint\ncheckpoint.INTERVAL_S = 0.0\n")
    environment = dict(os.environ) | {"PYTHONPATH": str(out.parent)}
    finished: list[tuple[int, int, str]] = []
    for _ in range(n_kills):
        process = subprocess.Popen(arguments, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=environment)
        try:
            process.wait(timeout=chance.uniform(3.0, 14.0))
        except subprocess.TimeoutExpired:
            victim = process.pid
            if chance.random() < 0.3:
                task = Path(f"/proc/{process.pid}/task")
                children = [c for thread in task.iterdir() for c in (thread / "children").read_text().split()]
                victim = int(chance.choice(children)) if children else victim
            os.kill(victim, signal.SIGKILL)
            if victim == process.pid:
                process.wait()
        study = Path(f"{out}.search")
        if process.poll() is None:
            process.kill()
            process.wait()
        if out.exists():
            return
        if (study / "trials.jsonl").is_file():
            now = ends(study)
            assert now[: len(finished)] == finished, "what was finished stays"
            assert len(set(now)) == len(now), "no work is repeated"
            finished = now
            assert_best_is_whole(study)
    subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL, timeout=600, env=environment)


def assert_best_is_whole(study: Path) -> None:
    from luckyfast.search.trial import load_trial

    journal = Journal(study / "trials.jsonl", {})
    losses = [
        (record.loss, f"trial-{trial.number}-{rung}")
        for trial in journal.trials.values()
        for rung, record in trial.records.items()
        if record.loss is not None
    ]
    journal.close()
    if losses:
        model, curve = load_trial(study / min(losses)[1])
        assert model.network() is not None
        assert curve


@pytest.mark.parametrize("n_kills", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_kills_at_random_moments_lose_nothing(dataset: Path, tmp_path: Path, n_kills: int) -> None:
    run_with_kills(dataset, tmp_path / "killed", n_kills, seed=n_kills)
    subprocess.run(command(dataset, tmp_path / "whole", "--trials", "12", "--seed", "5", "--quiet"), check=True)
    killed, whole = (read_results(tmp_path / name).rows for name in ("killed", "whole"))
    keys = ("trial", "rung", "dropout", "valid_loss")
    assert sorted([tuple(row[key] for key in keys) for row in killed]) == sorted(
        [tuple(row[key] for key in keys) for row in whole]
    )
    assert luckyfast.load(tmp_path / "killed").predict_proba([(0, ["action 1"])], at=10**12).shape


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_once_finishes_and_twice_stops(dataset: Path, tmp_path: Path, times: int) -> None:
    process = subprocess.Popen(
        command(dataset, tmp_path / "model", "--trials", "400"), stderr=subprocess.PIPE, stdout=subprocess.PIPE
    )
    study = tmp_path / "model.search"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not ((study / "trials.jsonl").is_file() and len(ends(study)) >= 1):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    if times == 2:
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert b"Traceback" not in said
    if times == 1:
        assert process.returncode == 0, said
        assert luckyfast.load(tmp_path / "model").config["interrupted"]
        assert not study.exists()
    else:
        assert process.returncode == 130, said
        assert study.exists()
        assert [path.name for path in tmp_path.iterdir()] == ["model.search"]


@pytest.mark.slow
def test_memory_does_not_grow_over_trials(dataset: Path, tmp_path: Path) -> None:
    # In a process of its own: what earlier tests have left in this one comes and goes by more than is weighed here.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        used = pool.submit(sizes_over_trials, dataset, tmp_path / "model", 300, **SMALL).result()
    early = max(bytes_ for n, bytes_ in used if 10 <= n < 40)
    late = max(bytes_ for n, bytes_ in used if n >= 270)
    assert late < early + 20_000_000  # 7 MB when this was written: what is known of 300 trials


def test_a_training_that_diverges_does_not_end_the_search(dataset: Path, tmp_path: Path) -> None:
    space = tmp_path / "space.toml"
    space.write_text("learning_rate = {ordered = [0.003, 1e30]}\ndropout = {linear = [0.0, 0.6]}\n")
    model = luckyfast.fit(dataset, out=tmp_path / "model", trials=6, space=space, threads=1, **SMALL)
    rows = read_results(model.path).rows
    assert {row["status"] for row in rows if row["learning_rate"] > 1} == {"failed"}
    assert any(row["learning_rate"] > 1 for row in rows)
    assert model.config["model"]["learning_rate"] == 0.003


def test_one_search_at_a_time_in_a_folder(dataset: Path, tmp_path: Path) -> None:
    with study_folder(tmp_path / "model", {}, resume=False, overwrite=False):
        for more in ({}, {"overwrite": True}, {"resume": True}):
            with pytest.raises(ModelError, match="another luckyfast fit works in"):
                luckyfast.fit(dataset, out=tmp_path / "model", **SMALL, **more)
    assert luckyfast.fit(dataset, out=tmp_path / "model", **SMALL).path.is_dir()


def test_a_search_is_resumed_without_saying_its_budget_again(dataset: Path, tmp_path: Path) -> None:
    kill_after(1, command(dataset, tmp_path / "model", "--budget", "1h"), tmp_path / "model.search")
    more = ("--resume", "--patience", "1", "--quiet")
    subprocess.run(command(dataset, tmp_path / "model", *more), check=True)
    assert luckyfast.load(tmp_path / "model").config["search"]["kind"] == "hyperband"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_signals_while_the_model_is_finished(dataset: Path, tmp_path: Path, number: int, code: int) -> None:
    with subprocess.Popen(command(dataset, tmp_path / "model"), stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("Calibrating"):
                process.send_signal(number)
                break
        said = process.stderr.read()
    assert process.returncode == code, said
    assert "defect" not in said
    assert (tmp_path / "model").exists() == (code == 0)


def test_settings_that_are_lists_have_an_importance(tmp_path: Path) -> None:
    spans = [[2.0], [2.0, 8.0], [3.0]]
    space = Space((Dimension("visit_spans", "choice", tuple(spans)),), default_space(ModelConfig()).start)
    journal = Journal(tmp_path / "trials.jsonl", {"space": space.to_dict(), "rungs": [[1.0, 1.0]]})
    for number in range(12):
        settings = dict(space.start) | {"visit_spans": spans[number % 3]}
        journal.begin(number, 0, settings, 0.0)
        journal.end(number, 0, Record("ok", float(number % 3), 1.0, {}, 1.0))
    journal.close()
    assert list(read_results(tmp_path).importance) == ["visit_spans"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_appears_where_the_model_goes_is_not_removed(tmp_path: Path, overwrite: bool) -> None:
    for name in ("model", "model.search/model"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "model" / "notes.txt").write_text("keep me")
    study = tmp_path / "model.search"
    with pytest.raises(OutputExistsError, match="is no model" if overwrite else "exists already"):
        publish(study / "model", study, tmp_path / "model", overwrite=overwrite)
    assert (tmp_path / "model" / "notes.txt").is_file()
    assert study.is_dir()
