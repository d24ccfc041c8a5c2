from __future__ import annotations

import csv
import json
import math
import signal
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from lamella.engine.log import STEP_COLUMNS, read_monitors, read_steps
from lamella.engine.loop import accumulate, step_seed
from lamella.engine.world import World
from lamella.errors import DivergedError

ALONE = World(0, 1, torch.device("cpu"), "fp32", "a test")


def losses(folder: Path) -> list[float]:
    return [row.loss for row in read_steps(folder)]


def without_times(folder: Path) -> list[tuple[Any, ...]]:
    with open(folder / "steps.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return [tuple(value for key, value in row.items() if key != "iteration_time_ms") for row in rows]


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return torch.load(checkpoint, weights_only=True)["method"]


def assert_same_run(one: Path, other: Path) -> None:
    """Bit-equal logs and final weights."""
    assert without_times(one) == without_times(other)
    last = sorted((one / "checkpoints").glob("*.pt"))[-1].name
    first_weights, other_weights = (weights(folder / "checkpoints" / last) for folder in (one, other))
    assert all(torch.equal(first_weights[key], other_weights[key]) for key in first_weights)


class _Crash(Exception):
    """Stands for a machine that dies: nothing of ours catches it."""


def crash_at(step: int) -> Callable[[int, float], None]:
    def on_step(done: int, loss: float) -> None:
        if done == step:
            raise _Crash

    return on_step


def send_at(step: int, number: signal.Signals) -> Callable[[int, float], None]:
    return lambda done, loss: signal.raise_signal(number) if done == step else None


def test_training_lowers_the_loss_and_moves_the_teacher(toy: ModuleType, tmp_path: Path) -> None:
    outcome = toy.run(tmp_path, 60, dropout=0.0)
    assert outcome.step == 60
    assert outcome.images_seen == 480
    assert sum(losses(tmp_path)[-5:]) < 0.5 * sum(losses(tmp_path)[:5])
    torch.manual_seed(0)
    assert not torch.equal(toy.Toy().teacher.weight, weights(outcome.checkpoint)["teacher.weight"])


def test_the_step_csv_has_the_source_projects_columns(toy: ModuleType, tmp_path: Path) -> None:
    toy.run(tmp_path, 6)
    header = (tmp_path / "steps.csv").read_text().splitlines()[0]
    assert header == (
        "epoch,iteration,loss,context_keep_tokens,target_predict_tokens,iteration_time_ms,learning_rate,weight_decay,"
        "images_seen"
    )
    assert header == ",".join(STEP_COLUMNS)
    rows = read_steps(tmp_path)
    assert [row.iteration for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [row.images_seen for row in rows] == [8, 16, 24, 32, 40, 48]
    assert [row.epoch for row in rows] == [1, 1, 1, 2, 2, 3]  # epochs of 20 images, first image of the step decides
    assert all(row.target_predict_tokens == 4 for row in rows)
    events = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [event["loss"] for event in events] == [row.loss for row in rows]
    assert all(event["grad_norm"] > 0 for event in events)


@pytest.mark.parametrize("crash", [1, 4, 6, 8])
def test_a_resume_is_bit_equal_to_an_undisturbed_run(toy: ModuleType, tmp_path: Path, crash: int) -> None:
    toy.run(tmp_path / "whole", 9)
    with pytest.raises(_Crash):
        toy.run(tmp_path / "cut", 9, on_step=crash_at(crash))
    outcome = toy.run(tmp_path / "cut", 9)
    # A checkpoint every 3 steps; the one due at the step of the crash itself was not written any more.
    assert outcome.resumed_from == (crash - 1) // 3 * 3
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_a_half_written_log_line_is_dropped_at_resume(toy: ModuleType, tmp_path: Path) -> None:
    toy.run(tmp_path / "whole", 9)
    with pytest.raises(_Crash):
        toy.run(tmp_path / "cut", 9, on_step=crash_at(5))
    for name in ("steps.csv", "log.jsonl"):
        with open(tmp_path / "cut" / name, "a") as file:
            file.write('{"st' if name == "log.jsonl" else "1,6,0.1")
    toy.run(tmp_path / "cut", 9)
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_a_finished_run_is_left_as_it_is(toy: ModuleType, tmp_path: Path) -> None:
    toy.run(tmp_path, 5)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    outcome = toy.run(tmp_path, 5)
    assert (outcome.step, outcome.resumed_from, math.isnan(outcome.loss)) == (5, 5, True)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_dropout_differs_between_steps_and_ranks() -> None:
    seeds = {step_seed(3, step, rank) for step in range(100) for rank in range(8)}
    assert len(seeds) == 800
    assert max(seeds) < 2**63


@pytest.mark.parametrize("parts", [2, 4, 8])
def test_micro_batches_give_the_gradient_of_the_whole_batch(toy: ModuleType, parts: int) -> None:
    torch.manual_seed(1)
    method, batch = toy.Toy(dropout=0.0).double(), toy.batch(0, ALONE)
    batch["x"] = batch["x"].double()
    whole = accumulate(method, batch, 1, ALONE)
    expected = [parameter.grad.clone() for parameter in method.student.parameters()]
    method.zero_grad()
    split = accumulate(method, batch, parts, ALONE)
    torch.testing.assert_close(split, whole)
    torch.testing.assert_close(
        [parameter.grad for parameter in method.student.parameters()], expected, rtol=1e-12, atol=1e-14
    )


def test_a_batch_that_does_not_divide_is_refused(toy: ModuleType) -> None:
    with pytest.raises(ValueError, match="8 samples does not divide into 3"):
        accumulate(toy.Toy(), toy.batch(0, ALONE), 3, ALONE)


def test_clipping_limits_the_update(toy: ModuleType, tmp_path: Path) -> None:
    toy.run(tmp_path / "free", 4, optim={"clip_norm": None})
    toy.run(tmp_path / "clipped", 4, optim={"clip_norm": 1e-9})
    assert losses(tmp_path / "free")[0] == losses(tmp_path / "clipped")[0]
    assert losses(tmp_path / "free")[3] != losses(tmp_path / "clipped")[3]


def test_a_loss_that_is_not_a_number_stops_and_keeps_the_last_checkpoint(toy: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(DivergedError) as caught:
        toy.run(tmp_path, 9, bad_step=4)
    last = tmp_path / "checkpoints" / "step_00000003.pt"
    assert "step 5: the loss is inf" in str(caught.value)
    assert str(last) in str(caught.value)
    assert "optim.lr" in str(caught.value)
    assert all(value.isfinite().all() for value in weights(last).values())
    assert len(losses(tmp_path)) == 4  # the bad step is not a row
    with pytest.raises(DivergedError, match="no checkpoint was written"):
        toy.run(tmp_path / "early", 9, bad_step=0)


def test_sigterm_saves_after_the_step_and_the_same_command_goes_on(toy: ModuleType, tmp_path: Path) -> None:
    toy.run(tmp_path / "whole", 9)
    former = signal.getsignal(signal.SIGTERM)
    # The signal of step 4 arrives after its exchange, so it is seen at the end of step 5.
    outcome = toy.run(tmp_path / "cut", 9, on_step=send_at(4, signal.SIGTERM))
    assert (outcome.stopped_by, outcome.step) == ("SIGTERM", 5)
    assert outcome.checkpoint == tmp_path / "cut" / "checkpoints" / "step_00000005.pt"
    assert signal.getsignal(signal.SIGTERM) == former
    assert toy.run(tmp_path / "cut", 9).resumed_from == 5
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_ctrl_c_saves_and_then_interrupts(toy: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toy.run(tmp_path / "whole", 9)
    with pytest.raises(KeyboardInterrupt):
        toy.run(tmp_path / "cut", 9, on_step=send_at(4, signal.SIGINT))
    assert "saving after this step" in capsys.readouterr().err
    assert toy.run(tmp_path / "cut", 9).resumed_from == 5
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_monitors_are_taken_at_the_start_every_so_many_images_and_at_the_end(toy: ModuleType, tmp_path: Path) -> None:
    asked: list[int] = []

    def monitor(images_seen: int) -> dict[str, float]:
        asked.append(images_seen)
        return {"rank": math.nan if images_seen == 0 else images_seen / 2}

    with pytest.raises(_Crash):
        toy.run(tmp_path, 9, log={"monitor_every_images": 30}, monitor=monitor, on_step=crash_at(5))
    toy.run(tmp_path, 9, log={"monitor_every_images": 30}, monitor=monitor)
    assert asked == [0, 32, 32, 64, 72]  # step 4 is taken twice
    records = read_monitors(tmp_path)
    assert [record["images_seen"] for record in records] == [0, 32, 64, 72]  # and recorded once
    assert [record["rank"] for record in records] == [None, 16, 32, 36]


def test_batches_that_end_early_are_a_fault(toy: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = toy.train
    monkeypatch.setattr(
        toy, "train", lambda method, batches, *rest, **more: full(method, lambda a, b: batches(a, 3), *rest, **more)
    )
    with pytest.raises(ValueError, match="ended after step 3 of 9"):
        toy.run(tmp_path, 9)
