from __future__ import annotations

import multiprocessing
import os
import signal

import pytest
import torch

from lamella.data.loader import batches
from lamella.errors import SlideError


def noise(step: int) -> dict[str, torch.Tensor]:
    return {"step": torch.tensor([step]), "noise": torch.rand(3, generator=torch.Generator().manual_seed(step))}


def bad_slide_at_two(step: int) -> int:
    if step == 2:
        raise SlideError("slide_7", "tile 3 of level 1 is corrupt", "Scan it again.")
    return step


def bug_at_one(step: int) -> int:
    return 1 // (1 - step)


def about_the_worker(step: int) -> dict[str, object]:
    os.kill(os.getpid(), signal.SIGINT)  # a Ctrl-C reaches every process of the terminal
    os.kill(os.getpid(), signal.SIGTERM)  # and a scheduler's SIGTERM every process of the job
    return {"pid": os.getpid(), "threads": torch.get_num_threads()}


def test_workers_change_nothing_and_order_is_kept() -> None:
    alone, helped = list(batches(noise, 3, 7)), list(batches(noise, 3, 7, workers=2))
    assert [int(batch["step"]) for batch in alone] == list(range(3, 10))
    for one, other in zip(alone, helped, strict=True):
        assert torch.equal(one["step"], other["step"])
        assert torch.equal(one["noise"], other["noise"])


def test_a_resumed_run_continues_the_sequence() -> None:
    whole = [batch["noise"] for batch in batches(noise, 0, 6)]
    resumed = [batch["noise"] for batch in batches(noise, 4, 2, workers=1)]
    assert all(torch.equal(one, other) for one, other in zip(whole[4:], resumed, strict=True))


@pytest.mark.parametrize("workers", [0, 1])
def test_reading_leaves_torchs_random_numbers_alone(workers: int) -> None:
    before = torch.get_rng_state()
    list(batches(noise, 0, 2, workers=workers))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_fault_arrives_with_its_own_type_and_words_when_its_step_comes(workers: int) -> None:
    running = batches(bad_slide_at_two, 0, 5, workers=workers)
    assert [next(running), next(running)] == [0, 1]
    with pytest.raises(SlideError, match=r"slide_7: tile 3 of level 1 is corrupt\. Scan it again\."):
        next(running)


def test_a_bug_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        list(batches(bug_at_one, 0, 3, workers=1))


def test_workers_live_through_the_signals_that_reach_the_whole_job() -> None:
    (facts,) = batches(about_the_worker, 0, 1, workers=1)
    assert facts["pid"] != os.getpid()
    assert facts["threads"] == 1


def test_a_worker_ends_when_the_training_process_says_so() -> None:
    running = batches(noise, 0, 100, workers=1)
    next(running)
    (worker,) = multiprocessing.active_children()
    worker.terminate()
    worker.join(timeout=60)
    assert worker.exitcode == 0


@pytest.mark.parametrize("end", ["closed", "exhausted", "failed"])
def test_no_worker_is_left_behind(end: str) -> None:
    running = batches(bug_at_one if end == "failed" else noise, 0, 3, workers=2)
    next(running)
    if end == "closed":
        running.close()
    elif end == "exhausted":
        list(running)
    else:
        with pytest.raises(ZeroDivisionError):
            next(running)
    assert multiprocessing.active_children() == []


def test_no_steps_is_no_batch() -> None:
    assert list(batches(noise, 5, 0)) == []
