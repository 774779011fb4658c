"""Jobs in processes of their own: what they give, how they die, and what they may take."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import search_jobs

from luckyfast.errors import BudgetError, ModelError
from luckyfast.search.process import JobDiedError, JobProcesses, OutOfMemoryError, resident

MB = 1_000_000


@pytest.fixture(scope="module", params=["search_jobs", None], ids=["forked", "anew"])
def processes(request: pytest.FixtureRequest) -> Iterator[JobProcesses]:
    # The folder of the tests is on our path, not on that of a new process.
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)
    with JobProcesses(preload=request.param) as executor:
        yield executor
    del os.environ["PYTHONPATH"]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_results_and_errors_come_back(processes: JobProcesses) -> None:
    assert processes.submit(search_jobs.add, 2, 3).result(30) == 5
    with pytest.raises(ModelError, match="no such thing") as caught:
        processes.submit(search_jobs.mistake).result(30)
    assert caught.value.hint == "try another"
    with pytest.raises(JobDiedError, match="ValueError: a defect"):
        processes.submit(search_jobs.fail).result(30)


def test_each_job_has_its_own_process_and_it_ends(processes: JobProcesses) -> None:
    pids = [processes.submit(search_jobs.pid).result(30) for _ in range(3)]
    assert len({*pids, os.getpid()}) == 4
    deadline = time.monotonic() + 5
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(map(alive, pids))


def test_jobs_run_side_by_side(processes: JobProcesses) -> None:
    began = time.monotonic()
    assert [future.result(30) for future in [processes.submit(search_jobs.wait, 1.0) for _ in range(4)]] == ["done"] * 4
    assert time.monotonic() - began < 3.5


def test_one_large_allocation_is_refused_within_the_job(processes: JobProcesses) -> None:
    future = processes.start(search_jobs.fill_memory, 2000 * MB, memory_bytes=200 * MB)
    with pytest.raises(OutOfMemoryError):
        future.result(30)
    assert processes.start(search_jobs.fill_memory, 20 * MB, memory_bytes=300 * MB).result(30) == 20 * MB // 8


def test_growth_is_stopped_near_the_limit(processes: JobProcesses) -> None:
    future = processes.start(search_jobs.creep_memory, 3000 * MB, memory_bytes=300 * MB)
    peak = 0
    while not future.done():
        peak = max(peak, processes.peak_of(future))
        time.sleep(0.005)
    with pytest.raises(OutOfMemoryError):
        future.result(30)
    assert 100 * MB < peak < 400 * MB


def test_the_largest_job_gives_way_where_the_whole_is_too_large() -> None:
    with JobProcesses(memory_bytes=resident(os.getpid()) + 600 * MB) as executor:
        small, large = executor.submit(search_jobs.wait, 3.0), executor.submit(search_jobs.creep_memory, 3000 * MB)
        with pytest.raises(OutOfMemoryError):
            large.result(30)
        assert small.result(30) == "done"
        assert executor.peak_bytes < executor.memory_bytes + 100 * MB


def test_killed_and_interrupted(processes: JobProcesses) -> None:
    killed, interrupted = (processes.submit(search_jobs.wait, 60.0) for _ in range(2))
    time.sleep(1.5)
    processes.kill(killed)
    processes.interrupt(interrupted)
    with pytest.raises(JobDiedError):
        killed.result(30)
    assert interrupted.result(30) == "interrupted"


def test_events_are_heard(processes: JobProcesses) -> None:
    events: list[tuple] = []
    processes.start(search_jobs.tell, on_event=events.append).result(30)
    assert events == [("start", "train", 1.0, "share"), ("advance", 0.25), ("note", "loss 1"), ("finish",)]


def test_a_killed_server_is_replaced(processes: JobProcesses) -> None:
    if processes.preload is None:
        pytest.skip("there is no server")
    assert processes._server is not None
    running = processes.submit(search_jobs.wait, 60.0)
    time.sleep(0.5)
    processes._server.send_signal(signal.SIGKILL)
    processes._server.wait()
    with pytest.raises(JobDiedError):
        running.result(30)
    assert processes.submit(search_jobs.add, 1, 1).result(30) == 2


@pytest.mark.parametrize("preload", ["'search_jobs'", "None"])
def test_all_die_with_the_one_who_asked(tmp_path: Path, preload: str) -> None:
    code = (
        "import search_jobs, time\nfrom luckyfast.search.process import JobProcesses\n"
        f"executor = JobProcesses(preload={preload})\n"
        "print(executor.submit(search_jobs.pid).result(30), flush=True)\n"
        "waiting = [executor.submit(search_jobs.wait, 60.0) for _ in range(2)]\n"
        "time.sleep(1.5)\n"
        "print(*[job.pid for job in executor._jobs.values()], executor._server and executor._server.pid or 0, "
        "flush=True)\ntime.sleep(60)"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    owner = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment)
    assert owner.stdout is not None
    owner.stdout.readline()
    pids = [int(pid) for pid in owner.stdout.readline().split() if pid != "0"]
    assert len(pids) >= 2
    assert all(map(alive, pids))
    owner.kill()
    owner.communicate()
    deadline = time.monotonic() + 10
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(map(alive, pids))


def test_who_listens_badly_still_gets_the_result(processes: JobProcesses) -> None:
    def hear(event: tuple[object, ...]) -> None:
        raise OSError("no space left on device")

    assert processes.start(search_jobs.tell, on_event=hear).result(30) is None


def test_a_job_that_has_just_been_given_can_be_killed(processes: JobProcesses) -> None:
    future = processes.start(search_jobs.wait, 60.0)
    processes.kill(future)
    with pytest.raises(JobDiedError):
        future.result(30)


def test_who_is_first_to_go_makes_room() -> None:
    with JobProcesses(preload="search_jobs") as probe:
        rest = probe.own_bytes
    with JobProcesses(memory_bytes=rest + 300 * MB, preload="search_jobs") as executor:
        small = executor.start(search_jobs.hold, 60 * MB, 8.0, first_to_go=True)
        time.sleep(1)
        large = executor.start(search_jobs.hold, 220 * MB, 3.0)
        with pytest.raises(OutOfMemoryError):
            small.result(30)
        assert large.result(30) == 1


def test_a_full_disk_is_no_defect(processes: JobProcesses) -> None:
    with pytest.raises(BudgetError, match="the disk is full") as caught:
        processes.submit(search_jobs.write_beyond_limit).result(30)
    assert "--resume" in str(caught.value.hint)
    with pytest.raises(ModelError, match=r"No such file or directory \(/nowhere/file\)"):
        processes.submit(search_jobs.read, "/nowhere/file").result(30)
