"""Workers that die: only the slide they were on fails. Real processes, killed for real; each test is bounded."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.faults.deadly import FAULTS, deadly

from lamella.engine import dask_jobs, dask_workers
from lamella.engine.jobs import JobSettings, run_jobs
from lamella.errors import LamellaError, StorageError

GOOD = [f"good {number}" for number in range(6)]


def full(item: str) -> str:
    raise StorageError("out", "the disk is full", "Make room.")


def test_each_way_to_die_costs_one_slide_and_says_why() -> None:
    """One run with all of them, between good slides."""
    bad = [fault for fault in FAULTS if fault != "abort"]
    items = [item for pair in zip(GOOD, bad, strict=False) for item in pair] + bad[len(GOOD) :]
    limits = JobSettings(workers=2, retries=0, time_limit_s=2, memory_limit_gb=0.5)
    done = {one.item: one for one in run_jobs(deadly, items, limits, label="test")}
    assert set(done) == set(items)
    assert [done[item].result for item in GOOD] == [item.upper() for item in GOOD]
    for fault in bad:
        assert FAULTS[fault] in done[fault].error
    assert "in string_at" in done["segfault"].trace, "the stack of the crash"
    assert "in deadly" in done["hang"].trace
    assert dict(os.environ).get("PYTHONHASHSEED") != "6640", "Dask's variables stay with the workers"


@pytest.mark.slow  # seconds of waiting for processes; alike ones are in the default suite
def test_a_suspect_is_tried_again_by_itself() -> None:
    done = {one.item: one for one in run_jobs(deadly, ["segfault", *GOOD], JobSettings(workers=2), label="test")}
    assert (done["segfault"].attempts, done["segfault"].ok) == (2, False)
    assert all(done[item].ok and done[item].attempts == 1 for item in GOOD)


@pytest.mark.slow
def test_workers_that_do_not_come_back_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """A nanny can fail to start the next worker; then another crew is hired, and the work goes on."""
    real = dask_workers._nanny

    def nanny_that_gives_up(deaths):
        class Tired(real(deaths)):
            def __init__(self, *arguments, **options):
                super().__init__(*arguments, **options)
                self.auto_restart = False

        return Tired

    monkeypatch.setattr(dask_workers, "_nanny", nanny_that_gives_up)
    monkeypatch.setattr(dask_jobs, "_LOCAL_WAIT_S", 1.0)
    items = ["good 0", "segfault", "good 1"]
    done = {one.item: one for one in run_jobs(deadly, items, JobSettings(workers=1), label="test")}
    assert done["good 0"].ok
    assert done["good 1"].ok
    assert (done["segfault"].attempts, done["segfault"].ok) == (2, False)


@pytest.mark.slow  # seconds of waiting for processes; alike ones are in the default suite
def test_a_full_disk_on_a_worker_ends_the_run() -> None:
    with pytest.raises(StorageError, match="the disk is full"):
        list(run_jobs(full, GOOD, JobSettings(workers=1), label="test"))


@pytest.fixture
def cluster(tmp_path: Path):
    """A scheduler and a worker with two threads, as a cluster's admin starts them; the scheduler's file."""
    file = tmp_path / "scheduler.json"
    environment = {**os.environ, "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0", "PYTHONPATH": str(Path.cwd())}
    started: list[subprocess.Popen[bytes]] = []

    def start(*arguments: object) -> None:
        command = [str(Path(sys.executable).with_name("dask")), *map(str, arguments), "--scheduler-file", str(file)]
        quiet = subprocess.DEVNULL
        started.append(subprocess.Popen(command, env=environment, stdout=quiet, stderr=quiet, start_new_session=True))

    start("scheduler", "--host", "127.0.0.1", "--port", 0, "--no-dashboard")
    start("worker", "--nworkers", 1, "--nthreads", 2, "--no-dashboard", "--local-directory", tmp_path)
    while not file.exists():  # it appears when the scheduler listens
        assert started[0].poll() is None
        time.sleep(0.05)
    yield file
    for process in started:
        os.killpg(process.pid, 9)
        process.wait()


@pytest.mark.slow
def test_the_same_on_a_cluster_that_someone_else_started(cluster: Path) -> None:
    """Two threads of one process: the neighbour of a deadly slide dies with it, and is found innocent."""
    settings = JobSettings(scheduler=str(cluster), time_limit_s=3)
    done = {one.item: one for one in run_jobs(deadly, ["segfault", *GOOD[:3], "raise"], settings, label="test")}
    assert "the worker it was on died" in done["segfault"].error
    assert all(done[item].ok for item in GOOD[:3])
    assert FAULTS["raise"] in done["raise"].error


@pytest.mark.slow
def test_a_cluster_without_workers_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_workers.Crew, "places", lambda crew: 0)
    with pytest.raises(LamellaError, match=r"no worker was there for 0\.5 s \(jobs\.wait_s\)"):
        list(run_jobs(deadly, GOOD, JobSettings(workers=1, wait_s=0.5), label="test"))
