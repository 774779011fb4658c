"""The benchmark runner: real processes, tiny work."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from log_rows import habit_log, write_dataset
from luckyfast.bench.checksum import HistoryChecksum, hash_names
from luckyfast.bench.histories import READERS, WRITERS
from luckyfast.bench.machine import describe_machine
from luckyfast.bench.network import compare_networks
from luckyfast.bench.process import measure
from luckyfast.bench.report import BenchReport, render_markdown, render_tables
from luckyfast.bench.runner import run_bench
from luckyfast.bench.task import find_task, is_installed

from luckyfast.errors import UserError

TESTS = Path(__file__).parent
TASK = "counting_task:TASK"


def spawn(code: str) -> str:
    """Code that runs other code in a child process."""
    return f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}], check=True)"


def run_code(code: str, tmp_path: Path, timeout_s: float | None = None):
    return measure([sys.executable, "-c", code], log=tmp_path / "stderr.txt", timeout_s=timeout_s)


@pytest.fixture
def bench(tmp_path, monkeypatch):
    path = os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")]))
    monkeypatch.setenv("PYTHONPATH", path)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")

    def run(*systems: str, **options) -> BenchReport:
        return run_bench([TASK], systems=systems or None, out=tmp_path / "bench", **options)

    return run


# ---- measuring ------------------------------------------------------------------------------------------------------


def test_peak_memory_includes_a_grandchild(tmp_path):
    allocate = "import time; block = b'x' * 150_000_000; time.sleep(0.3)"
    assert run_code(spawn(spawn(allocate)), tmp_path).peak_rss_bytes > 150_000_000
    assert run_code(spawn(spawn("import time; time.sleep(0.3)")), tmp_path).peak_rss_bytes < 100_000_000


def test_peak_memory_adds_up_processes_that_live_together(tmp_path):
    allocate = "import time; block = b'x' * 80_000_000; time.sleep(0.5)"
    code = (
        "import subprocess, sys\n"
        f"children = [subprocess.Popen([sys.executable, '-c', {allocate!r}]) for _ in range(2)]\n"
        "[child.wait() for child in children]"
    )
    assert run_code(code, tmp_path).peak_rss_bytes > 160_000_000


def test_own_peak_remembers_what_was_freed_and_not_the_parent(tmp_path):
    code = (
        "from luckyfast.bench.process import own_peak_rss\n"
        "block = b'x' * 200_000_000\n"
        "del block\n"
        "assert own_peak_rss() > 200_000_000\n"
    )
    usage = run_code(code, tmp_path)
    assert usage.returncode == 0, usage.stderr
    ballast = b"x" * 300_000_000
    small = run_code("from luckyfast.bench.process import own_peak_rss; assert own_peak_rss() < 200_000_000", tmp_path)
    assert small.returncode == 0, small.stderr
    assert len(ballast) > small.peak_rss_bytes


def test_cpu_time_includes_children(tmp_path):
    usage = run_code(spawn("import time\nwhile time.process_time() < 0.3: pass"), tmp_path)
    assert usage.cpu_s >= 0.3


def test_work_of_others_is_told_apart(tmp_path):
    burn = "import time\nwhile time.process_time() < 0.5: pass"
    with subprocess.Popen([sys.executable, "-c", burn]) as other:
        usage = run_code("import time; time.sleep(1.5)", tmp_path)
    assert other.returncode == 0
    assert usage.cpu_s < 0.5 < usage.other_cpu_s + 0.1


def test_timeout_ends_the_whole_tree(tmp_path):
    mark = tmp_path / "mark"
    code = spawn(f"import time; time.sleep(1.5); open({str(mark)!r}, 'w')")
    usage = run_code(code, tmp_path, timeout_s=0.5)
    assert usage.timed_out
    assert usage.returncode < 0
    run_code("import time; time.sleep(1.5)", tmp_path)
    assert not mark.exists()


# ---- running --------------------------------------------------------------------------------------------------------


def test_systems_run_in_turn_and_results_are_kept(bench, tmp_path):
    report = bench("right", "wrong", runs=2)
    order = (tmp_path / "bench" / "cache" / "order.txt").read_text().split()
    assert order == ["right", "wrong", "right", "wrong"]
    warm_ups = (tmp_path / "bench" / "cache" / "warm.txt").read_text().split()
    assert sorted(warm_ups) == ["right"] * 3 + ["wrong"] * 3  # one before all runs, one in each process
    right, wrong = report.tasks[0].systems
    assert (right.status, len(right.runs), right.metrics) == ("ok", 2, {"digits": 1.0})
    assert right.first_run_s is not None
    assert right.peak_rss_bytes > 1_000_000
    assert wrong.status == "wrong"
    assert "the result is 6, not 7" in wrong.error
    assert not report.all_right
    assert not list((tmp_path / "bench" / "scratch").iterdir())
    written = json.loads(report.path.read_text())
    assert written == json.loads(json.dumps(report.to_dict()))
    assert written["tasks"][0]["systems"][0]["runs"][1]["checksum"] == "7"


def test_wrong_results_have_no_time_in_the_table(bench):
    report = bench("right", "wrong", "disordered")
    rows = [line for line in render_markdown(report).splitlines() if line.startswith("|")][-3:]
    assert "WRONG" not in rows[0]
    assert "WRONG: the result is 6, not 7" in rows[1]
    assert "WRONG: out of order" in rows[2]
    assert rows[1].split("|")[2].strip() == ""
    assert render_tables(report)[0].row_count == 3


def test_a_busy_machine_is_told(bench):
    report = bench("right", runs=1)
    (task,), (run,) = report.tasks, report.tasks[0].systems[0].runs
    for other_cpu_s, told in ((0.0, False), ((run.start_s + run.wall_s) * report.machine["cores"] / 2, True)):
        system = replace(task.systems[0], runs=(replace(run, other_cpu_s=other_cpu_s),))
        text = render_markdown(replace(report, tasks=(replace(task, systems=(system,)),)))
        assert ("other processes kept 50% of the cores busy" in text) == told


def test_failed_and_absent_systems_are_kept(bench):
    report = bench("failing", "killed", "absent", runs=1)
    failing, killed, absent = report.tasks[0].systems
    assert (failing.status, killed.status, absent.status) == ("failed", "failed", "not installed")
    assert "RuntimeError: no such luck" in failing.error
    assert "signal 9" in killed.error
    assert killed.runs[0].wall_s is None
    assert absent.runs == ()
    assert "failed" in render_markdown(report)
    assert not report.all_right


def test_a_run_that_never_ends_is_failed(bench):
    report = bench("endless", runs=1, timeout_s=1.0)
    assert report.tasks[0].systems[0].error == "ended after 1 s"


def test_unknown_names_are_refused_before_anything_runs(bench, tmp_path):
    with pytest.raises(UserError, match="no such system: 'fastest'"):
        bench("fastest")
    with pytest.raises(UserError, match="no benchmark task 'ingets'"):
        find_task("ingets")
    with pytest.raises(UserError, match="runs is 0"):
        bench("right", runs=0)
    assert not (tmp_path / "bench").exists()


def test_machine_is_described():
    machine = describe_machine()
    assert machine["cores"] >= 1
    assert machine["memory_bytes"] > 10**8
    assert "numpy" in machine["packages"]


# ---- ingest ---------------------------------------------------------------------------------------------------------


def make_log(seed: int) -> list[tuple[int, int, int, str | None]]:
    """Lines of (household, second, basket, category), in random order, with repeats and a few without category."""
    draw = random.Random(seed)
    baskets = [(draw.randrange(40), 1_483_228_800 + draw.randrange(500), 10_000_000_000 + at) for at in range(300)]
    names = ["MILK", "BREAD & ROLLS", "CHEESE/SOFT", "THÉ"]
    lines = [(*draw.choice(baskets), draw.choice(names) if draw.random() > 0.02 else None) for _ in range(2000)]
    draw.shuffle(lines)
    return lines


def naive_checksum(lines: list[tuple[int, int, int, str | None]]) -> str:
    """Histories by plain dictionaries."""
    histories: dict[int, dict[tuple[int, int], Counter[str]]] = {}
    for household, second, basket, category in lines:
        if category is not None:
            visits = histories.setdefault(household, {})
            visits.setdefault((second, basket), Counter())[category] += 1
    total = HistoryChecksum()
    for household, visits in histories.items():
        ordered = [visits[key] for key in sorted(visits)]
        starts = [sum(len(visit) for visit in ordered[:at]) for at in range(len(ordered) + 1)]
        total.add(
            hash_names([household]),
            [0, len(ordered)],
            [second * 1_000_000 for second, _ in sorted(visits)],
            starts,
            hash_names([name for visit in ordered for name in visit]),
            [count for visit in ordered for count in visit.values()],
        )
    return str(total)


def write_log(path: Path, lines: list[tuple[int, int, int, str | None]]) -> None:
    import numpy as np

    rows = ["household_id,store_id,basket_id,transaction_timestamp,product_category,package_size"]
    for household, second, basket, category in lines:
        time = np.datetime64(second, "s").astype("datetime64[ns]")
        rows.append(f"{household},3,{basket},{time},{category or ''},4 OZ")
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")


@pytest.mark.parametrize("system", WRITERS)
def test_every_system_writes_the_histories_of_plain_dictionaries(system, tmp_path):
    if not is_installed(find_task("ingest").systems[system]):
        pytest.skip(f"{system} is not installed")
    lines = make_log(seed=1)
    write_log(tmp_path / "log.csv", lines)
    values = {"csv": str(tmp_path / "log.csv"), "memory_bytes": 8_000_000_000, "n_threads": 1}
    WRITERS[system](values, tmp_path)
    total = HistoryChecksum()
    for block in READERS[system](tmp_path):
        total.add(**vars(block))
    assert str(total) == naive_checksum(lines)


def test_checksum_sees_every_change_and_no_order():
    lines = make_log(seed=2)
    right = naive_checksum(lines)
    assert naive_checksum(lines[::-1]) == right
    at = next(at for at, line in enumerate(lines) if line[3] is not None)
    household, second, basket, category = lines[at]
    for changed in (
        (household + 1000, second, basket, category),
        (household, second + 1, basket, category),
        (household, second, basket + 1000, category),
        (household, second, basket, category + " "),
        (household, second, basket, None),
    ):
        assert naive_checksum([*lines[:at], changed, *lines[at + 1 :]]) != right
    assert naive_checksum([*lines, lines[at]]) != right


def test_checksum_refuses_what_is_no_history():
    milk, ann = hash_names(["milk", "milk"]), hash_names(["ann"])
    with pytest.raises(ValueError, match="order of time"):
        HistoryChecksum().add(ann, [0, 2], [2, 1], [0, 1, 2], milk, [1, 1])
    with pytest.raises(ValueError, match="no action"):
        HistoryChecksum().add(ann, [0, 2], [1, 2], [0, 0, 2], milk, [1, 1])
    twice = HistoryChecksum()
    for _ in range(2):
        twice.add(ann, [0, 1], [1], [0, 1], milk[:1], [1])
    with pytest.raises(ValueError, match="more than one history"):
        str(twice)


def test_networks_are_compared_at_the_same_work(tmp_path):
    dataset = write_dataset(habit_log(n_customers=60, n_visits=12), tmp_path / "dataset")
    found = compare_networks(1, dataset, "lstm-embed", 1.0, 2)
    assert found.keys() == {"luckyfast", "plain torch"}
    ((own_ms, own_loss),), ((peer_ms, peer_loss),) = found.values()
    assert min(own_ms, peer_ms) > 0
    assert own_loss == pytest.approx(peer_loss, abs=1e-5)
