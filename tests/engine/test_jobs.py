"""The runner of per-slide work in this process; tests/faults has the workers and what kills them."""

from __future__ import annotations

import pickle
import sys

import pytest

from lamella.config import resolve
from lamella.engine import dask_workers
from lamella.engine.jobs import JobSettings, run_jobs
from lamella.errors import (
    ConfigError,
    EmptyTissueError,
    LamellaError,
    OutputConflictError,
    SlideError,
    StorageError,
)


class Work:
    """Does what each item says; counts the tries."""

    def __init__(self) -> None:
        self.tries: list[str] = []

    def __call__(self, item: str) -> str:
        self.tries.append(item)
        faults = {
            "unreadable": SlideError("a.tif", "it is cut short", "Copy it again."),
            "empty": EmptyTissueError("a.tif", "no tissue", "Look at it."),
            "full": StorageError("out", "the disk is full", "Make room."),
            "conflict": OutputConflictError("out", "other settings", "Choose another folder."),
            "bug": KeyError("mpp"),
            "greedy": MemoryError(),
            "network": OSError(5, "Input/output error"),
            "exit": SystemExit(3),
        }
        if item in faults:
            raise faults[item]
        if item == "flaky" and self.tries.count("flaky") == 1:
            raise OSError("for the moment")
        return item.upper()


def outcomes(work, items, **settings):
    return {done.item: done for done in run_jobs(work, items, JobSettings(**settings), label="test")}


def test_every_item_has_one_outcome_and_knows_its_place() -> None:
    done = list(run_jobs(str.upper, ["a", "b", "c"], JobSettings(), label="test"))
    assert [(one.number, one.item, one.result, one.ok, one.attempts) for one in done] == [
        (0, "a", "A", True, 1),
        (1, "b", "B", True, 1),
        (2, "c", "C", True, 1),
    ]
    assert list(run_jobs(str.upper, [], JobSettings(), label="test")) == []


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ("unreadable", "a.tif: it is cut short. Copy it again."),
        ("bug", "KeyError: 'mpp' (test_jobs.py:"),
        ("greedy", "it needs more memory than there is"),
        ("network", "OSError: [Errno 5] Input/output error (test_jobs.py:"),
        ("exit", "SystemExit: 3 (test_jobs.py:"),
    ],
)
def test_a_fault_is_the_items_own_and_is_tried_once_more_after_the_others(item: str, reason: str) -> None:
    work = Work()
    done = outcomes(work, ["a", item, "b"])
    assert work.tries == ["a", item, "b", item]
    assert done[item].error.startswith(reason)
    assert (done[item].attempts, done[item].result) == (2, None)
    assert [done[name].ok for name in "ab"] == [True, True]
    assert bool(done[item].trace) == (item != "unreadable"), "an unexpected fault leaves its trace, a slide's own none"


def test_what_passes_by_is_no_failure() -> None:
    done = outcomes(Work(), ["flaky", "a"])
    assert done["flaky"].ok
    assert done["flaky"].attempts == 2


def test_no_second_try_where_it_cannot_help_or_is_not_wanted() -> None:
    work = Work()
    assert not outcomes(work, ["empty"])["empty"].ok
    assert not outcomes(work, ["network"], retries=0)["network"].ok
    assert work.tries == ["empty", "network"]


@pytest.mark.parametrize(("item", "kind"), [("full", StorageError), ("conflict", OutputConflictError)])
def test_what_concerns_the_whole_run_ends_it_and_keeps_what_is_done(item: str, kind: type[LamellaError]) -> None:
    work, done = Work(), []

    def collect() -> None:
        for one in run_jobs(work, ["a", item, "b"], JobSettings(), label="test"):
            done.append(one.item)

    with pytest.raises(kind):
        collect()
    assert (done, work.tries) == (["a"], ["a", item])


def test_ctrl_c_ends_the_run() -> None:
    def interrupted(item: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(run_jobs(interrupted, ["a"], JobSettings(), label="test"))


@pytest.mark.parametrize(
    ("overrides", "cause"),
    [
        (("time_limit_s=5",), "time_limit_s needs a worker that can be ended; set jobs.workers=1"),
        (("memory_limit_gb=4",), "memory_limit_gb is for local workers"),
        (("scheduler=tcp://a:1", "memory_limit_gb=4"), "memory_limit_gb is for local workers"),
        (("scheduler=tcp://a:1", "workers=2"), "workers and scheduler exclude each other"),
        (("workers=-1",), "greater than or equal to 0"),
        (("workers=1", "memory_limit_gb=0.1"), "greater than or equal to 0.5"),
    ],
)
def test_limits_that_nothing_would_hold_are_refused(overrides: tuple[str, ...], cause: str) -> None:
    with pytest.raises(ConfigError, match=cause):
        resolve(JobSettings, overrides=overrides)


def test_work_in_this_process_does_not_load_dask() -> None:
    code = "import sys, lamella.verbs.slide_jobs as s; sys.exit('distributed' in sys.modules)"
    import subprocess

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_each_local_worker_has_its_share_of_the_cores_and_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(dask_workers, "CPU_COUNT", 8)
    assert dask_workers.worker_environments(3, None) == [{"OMP_NUM_THREADS": "2"}] * 3
    two = dask_workers.worker_environments(2, ["4", "7"])
    assert [one["CUDA_VISIBLE_DEVICES"] for one in two] == ["4", "7"]
    assert [one["OMP_NUM_THREADS"] for one in two] == ["4", "4"]
    with pytest.raises(LamellaError, match=r"shows 1 GPU\(s\), and each worker needs its own. Set jobs.workers=1"):
        dask_workers.worker_environments(2, ["0"])


def test_gpus_already_given_out_by_a_scheduler_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-aa,3")
    assert dask_workers.visible_gpus() == ["GPU-aa", "3"]


def test_a_cluster_that_is_not_there_is_a_plain_error(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_workers, "_CONNECT_S", 0.3)
    for scheduler, cause in (("tcp://127.0.0.1:9", "no Dask scheduler answers"), (str(tmp_path / "s"), "neither an")):
        with pytest.raises(LamellaError, match=cause):
            list(run_jobs(str.upper, ["a"], JobSettings(scheduler=scheduler), label="test"))


def test_errors_keep_their_words_on_the_way_between_processes() -> None:
    for error in (StorageError("a", "b", "c"), ConfigError(["x"], "index")):
        assert str(pickle.loads(pickle.dumps(error))) == str(error)  # noqa: S301 - our own bytes
