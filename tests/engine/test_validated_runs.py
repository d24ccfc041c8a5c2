"""Stages, validation and early stopping in whole runs: a run that was cut short ends as one that was not."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from lamella.engine.checkpoint import Checkpoints, CheckpointSettings
from lamella.engine.early_stopping import EarlyStoppingSettings
from lamella.engine.log import read_monitors, read_steps
from lamella.engine.optim import OptimSettings
from lamella.errors import ConfigError

# Epochs of 20 images in batches of 8: epoch 2 begins with step 3 of 9 (the first whose first image is the 20th or
# later), epoch 3 with step 5.
STAGES = ({"from_epoch": 2, "parameters": ["student.0.*"], "factor": 0.5},)


class _Crash(Exception):
    pass


def crash_at(step: int) -> Callable[[int, float], None]:
    def on_step(done: int, loss: float) -> None:
        if done == step:
            raise _Crash

    return on_step


def weights(folder: Path, step: int) -> dict[str, Any]:
    return torch.load(folder / "checkpoints" / f"step_{step:08d}.pt", weights_only=True)


def scripted(values: Sequence[float]) -> tuple[Callable[[int], dict[str, float]], list[int]]:
    """A validation whose values are known by the epoch; and the epochs that it was asked after."""
    asked: list[int] = []

    def validate(epochs: int) -> dict[str, float]:
        asked.append(epochs)
        return {"dice": values[epochs]}

    return validate, asked


@pytest.mark.parametrize("crash", [2, 3, 4, 5, 8])
def test_a_staged_run_resumes_exactly_at_any_step(toy: ModuleType, tmp_path: Path, crash: int) -> None:
    options = {"optim": {"stages": STAGES}, "checkpoint": {"every_images": 8, "keep_last": 9}}
    toy.run(tmp_path / "whole", 9, **options)
    with pytest.raises(_Crash):
        toy.run(tmp_path / "cut", 9, on_step=crash_at(crash), **options)
    toy.run(tmp_path / "cut", 9, **options)
    one, other = (weights(tmp_path / name, 9) for name in ("whole", "cut"))
    assert all(torch.equal(one["method"][key], other["method"][key]) for key in one["method"])
    assert [row.loss for row in read_steps(tmp_path / "cut")] == [row.loss for row in read_steps(tmp_path / "whole")]


def test_frozen_parameters_stand_still_until_their_epoch(toy: ModuleType, tmp_path: Path) -> None:
    toy.run(tmp_path, 5, optim={"stages": STAGES}, checkpoint={"every_images": 8, "keep_last": 9})
    first = [weights(tmp_path, step)["method"]["student.0.weight"] for step in range(1, 6)]
    assert all(torch.equal(first[0], each) for each in first[1:3])  # steps 0 to 2 are of epoch 1
    assert not torch.equal(first[2], first[3])
    head = [weights(tmp_path, step)["method"]["student.3.weight"] for step in range(1, 6)]
    assert not torch.equal(head[0], head[1])


@pytest.mark.slow
def test_two_processes_train_stages_as_one(toy: ModuleType, toy_process: Callable[..., Any], tmp_path: Path) -> None:
    """DDP is made anew where the stage changes: otherwise the gradients of what thaws would not be exchanged."""
    options = {"dropout": 0.0, "optim": {"stages": STAGES}}
    toy.run(tmp_path / "one", 9, **options)
    two = toy_process(tmp_path / "two", processes=2, steps=9, **options)
    assert two.returncode == 0, two.stderr
    one, other = ([row.loss for row in read_steps(tmp_path / name)] for name in ("one", "two"))
    assert other == pytest.approx(one, abs=1e-5, rel=1e-5)


def test_warm_up_can_be_told_in_steps(toy: ModuleType, tmp_path: Path) -> None:
    optim = {"lr_start": 0, "lr": 1e-2, "warmup_steps": 3}
    toy.run(tmp_path, 9, optim=optim)
    rates = [row.learning_rate for row in read_steps(tmp_path)]
    assert rates[:4] == pytest.approx([0, 1e-2 / 3, 2e-2 / 3, 1e-2])
    with pytest.raises(ConfigError, match=r"optim\.warmup_steps: 9, and the whole run has 9 steps"):
        OptimSettings(warmup_steps=9).in_steps(9)


def test_a_run_is_validated_before_the_first_step_after_each_epoch_and_at_the_end(
    toy: ModuleType, tmp_path: Path
) -> None:
    validate, asked = scripted([0.1, 0.3, 0.2, 0.4])
    outcome = toy.run(tmp_path, 9, validate=validate, early={"monitor": "dice"})
    assert asked == [0, 1, 2, 3, 3]  # 20, 40 and 60 images are seen after steps 3, 5 and 8; the last step is the 9th
    records = [(record["step"], record["dice"], record["best_so_far"]) for record in read_monitors(tmp_path)]
    assert records == [(0, 0.1, True), (3, 0.3, True), (5, 0.2, False), (8, 0.4, True), (9, 0.4, False)]
    assert (outcome.best.best, outcome.best.best_step) == (0.4, 8)


def test_early_stopping_ends_the_run_for_good(toy: ModuleType, tmp_path: Path) -> None:
    validate, asked = scripted([0.1, 0.5, 0.4, 0.45, 0.9, 0.9, 0.9, 0.9])
    early = {"monitor": "dice", "patience": 2}
    outcome = toy.run(tmp_path, 18, validate=validate, early=early)
    assert outcome.finished_early
    assert outcome.step < 18
    assert asked == [0, 1, 2, 3]
    again = toy.run(tmp_path, 18, validate=validate, early=early)  # nothing is taken up again
    assert (again.finished_early, again.step, again.best.best, len(asked)) == (True, outcome.step, 0.5, 4)


def test_the_best_weights_are_kept_and_can_be_restored(toy: ModuleType, tmp_path: Path) -> None:
    validate, _ = scripted([0.1, 0.9, 0.2, 0.3, 0.1, 0.1, 0.1, 0.1])
    options = {"checkpoint": {"every_images": 8, "keep_last": 1}, "early": {"monitor": "dice"}}
    outcome = toy.run(tmp_path, 18, validate=validate, **options)
    best = outcome.best.best_step
    names = sorted(path.name for path in (tmp_path / "checkpoints").glob("*.pt"))
    assert names == [f"step_{best:08d}.pt", "step_00000018.pt"]  # the last, and the best however old
    method = toy.Toy()
    settings = CheckpointSettings()
    Checkpoints(tmp_path / "checkpoints", settings, "any").restore(method, best)
    assert torch.equal(method.student[0].weight, weights(tmp_path, best)["method"]["student.0.weight"])


def test_where_nothing_ever_got_better_the_weights_before_the_first_step_are_the_best(
    toy: ModuleType, tmp_path: Path
) -> None:
    validate, _ = scripted([0.9, 0.1, 0.2, 0.3])
    outcome = toy.run(tmp_path, 9, validate=validate, early={"monitor": "dice"})
    assert outcome.best.best_step == 0
    assert weights(tmp_path, 0)["step"] == 0


@pytest.mark.parametrize("crash", [2, 3, 4, 6, 8])
def test_early_stopping_survives_a_resume(toy: ModuleType, tmp_path: Path, crash: int) -> None:
    values = [0.1, 0.5, 0.6, 0.4, 0.45, 0.44, 0.43, 0.9]
    early = {"monitor": "dice", "patience": 3}
    whole = toy.run(tmp_path / "whole", 18, validate=scripted(values)[0], early=early)
    with pytest.raises(_Crash):
        toy.run(tmp_path / "cut", 18, validate=scripted(values)[0], early=early, on_step=crash_at(crash))
    cut = toy.run(tmp_path / "cut", 18, validate=scripted(values)[0], early=early)
    assert (cut.step, cut.best) == (whole.step, whole.best)
    assert read_monitors(tmp_path / "cut") == read_monitors(tmp_path / "whole")


def test_a_run_stopped_between_a_step_and_its_validation_makes_up_for_it(toy: ModuleType, tmp_path: Path) -> None:
    import signal

    validate, asked = scripted([0.1, 0.2, 0.3, 0.4])
    options = {"validate": validate, "early": {"monitor": "dice"}}
    toy.run(
        tmp_path, 9, on_step=lambda done, loss: signal.raise_signal(signal.SIGTERM) if done == 2 else None, **options
    )
    assert asked == [0]  # stopped after step 3, where the first epoch ends
    assert toy.run(tmp_path, 9, **options).resumed_from == 3
    assert asked == [0, 1, 2, 3, 3]


def test_the_state_is_in_the_checkpoints_seal_and_absent_without_validation(toy: ModuleType, tmp_path: Path) -> None:
    toy.run(tmp_path / "plain", 3)
    assert "validated" not in weights(tmp_path / "plain", 3)
    validate, _ = scripted([0.1, 0.2, 0.3])
    toy.run(tmp_path / "seen", 3, validate=validate, early={"monitor": "dice"})
    seal = json.loads((tmp_path / "seen" / "checkpoints" / "step_00000003.json").read_text())
    assert seal["best_step"] == 3
    assert EarlyStoppingSettings().patience is None
