"""What only a process of its own can show: kill -9, SIGTERM from outside, several processes under torchrun."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from types import ModuleType

import pytest

from lamella.engine.log import read_steps

ToyProcess = Callable[..., CompletedProcess[str]]


def rows(folder: Path) -> list[tuple[int, float]]:
    return [(row.iteration, row.loss) for row in read_steps(folder)]


def test_a_run_killed_by_kill_9_resumes_to_the_same_losses(
    toy: ModuleType, toy_process: ToyProcess, tmp_path: Path
) -> None:
    toy.run(tmp_path / "whole", 9)
    killed = toy_process(tmp_path / "cut", steps=9, kill_at=5)
    assert killed.returncode == -9
    assert [step for step, _ in rows(tmp_path / "cut")] == [1, 2, 3, 4, 5]
    assert toy.run(tmp_path / "cut", 9).resumed_from == 3
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")


@pytest.mark.slow  # seconds of waiting for processes; alike ones are in the default suite
def test_a_run_stopped_by_sigterm_exits_with_0(toy: ModuleType, toy_process: ToyProcess, tmp_path: Path) -> None:
    stopped = toy_process(tmp_path, steps=9, kill_at=5, signal_name="SIGTERM")
    assert stopped.returncode == 0, stopped.stderr
    assert "step 6, stopped by SIGTERM" in stopped.stdout
    assert toy.run(tmp_path, 9).resumed_from == 6


def test_two_processes_train_as_one(toy: ModuleType, toy_process: ToyProcess, tmp_path: Path) -> None:
    """Same global batch, same losses; and a run of two may be stopped and finished by one."""
    toy.run(tmp_path / "one", 12, dropout=0.0, micro_batches=2)
    options = {"steps": 12, "dropout": 0.0, "micro_batches": 2, "kill_at": 7, "signal_name": "SIGTERM"}
    two = toy_process(tmp_path / "two", processes=2, **options)
    assert two.returncode == 0, two.stderr
    # Only rank 0 got the signal; both agreed to stop after the same step.
    assert "rank 0: step 8, stopped by SIGTERM" in two.stdout
    assert "rank 1: step 8, stopped by SIGTERM" in two.stdout
    toy.run(tmp_path / "two", 12, dropout=0.0, micro_batches=2)
    one, other = rows(tmp_path / "one"), rows(tmp_path / "two")
    assert [step for step, _ in other] == list(range(1, 13))
    assert [loss for _, loss in other] == pytest.approx([loss for _, loss in one], abs=1e-5, rel=1e-5)
    tokens = [row.context_keep_tokens for row in read_steps(tmp_path / "two")]
    assert tokens == pytest.approx([row.context_keep_tokens for row in read_steps(tmp_path / "one")], abs=1e-6)
