from __future__ import annotations

import builtins
import errno
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from lamella.engine import log as module
from lamella.engine.log import LogSettings, RunLog, StepRow, read_monitors, read_steps
from lamella.errors import MissingExtraError, StorageError

QUIET = LogSettings(tensorboard=False)


def row(iteration: int) -> StepRow:
    return StepRow(1, iteration, 1 / 3, 700.0, 260.5, 12.5, 2e-4, 0.04, 8 * iteration)


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    with RunLog(tmp_path, QUIET) as log:
        log.step(row(1), {"grad_norm": 0.5})
        log.step(row(2), {})
    assert read_steps(tmp_path) == [row(1), row(2)]
    assert read_steps(tmp_path / "absent") == []


def test_rows_after_the_checkpoint_are_dropped(tmp_path: Path) -> None:
    with RunLog(tmp_path, QUIET) as log:
        for step in (1, 2, 3):
            log.step(row(step), {})
            log.monitors(step, 8 * step, {"rankme": 2.0})
    with RunLog(tmp_path, QUIET, step=2) as log:
        log.step(row(3), {})
    assert [entry.iteration for entry in read_steps(tmp_path)] == [1, 2, 3]
    assert [entry["step"] for entry in read_monitors(tmp_path)] == [1, 2]
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 3


def test_a_run_that_starts_over_keeps_no_row(tmp_path: Path) -> None:
    for _ in range(2):
        with RunLog(tmp_path, QUIET) as log:
            log.monitors(0, 0, {"rankme": 2.0})
            log.step(row(1), {})
    assert [entry["step"] for entry in read_monitors(tmp_path)] == [0]
    assert read_steps(tmp_path) == [row(1)]


def test_a_monitor_that_is_not_a_number_stays_visible(tmp_path: Path) -> None:
    with RunLog(tmp_path, QUIET) as log:
        log.monitors(1, 8, {"rankme": float("nan"), "warnings": ["collapsed"]})
    assert read_monitors(tmp_path) == [{"step": 1, "images_seen": 8, "rankme": None, "warnings": ["collapsed"]}]


def test_tensorboard_shows_every_step_once_after_a_resume(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for first, last, resumed in ((1, 4, 0), (3, 5, 2)):
        with RunLog(tmp_path, LogSettings(), step=resumed) as log:
            for step in range(first, last + 1):
                log.step(row(step), {"grad_norm": 0.5})
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("loss")] == [1, 2, 3, 4, 5]
    assert {"learning_rate", "grad_norm", "images_seen"} <= set(events.Tags()["scalars"])


def test_wandb_that_is_not_installed_is_named_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'lamella\[wandb\]'"):
        RunLog(tmp_path, LogSettings(tensorboard=False, wandb_project="p"))


def test_wandb_continues_its_run_after_a_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[dict[str, Any]] = []
    sent: list[tuple[int, float]] = []
    finished: list[bool] = []

    def init(**arguments: Any) -> SimpleNamespace:
        calls.append(arguments)
        return SimpleNamespace(
            log=lambda values, step: sent.append((step, values["loss"])), finish=lambda: finished.append(True)
        )

    fake = ModuleType("wandb")
    fake.init = init
    monkeypatch.setitem(sys.modules, "wandb", fake)
    for step in (1, 2):
        with RunLog(tmp_path, LogSettings(tensorboard=False, wandb_project="p"), step=step - 1) as log:
            log.step(row(step), {})
    assert sent == [(1, 1 / 3), (2, 1 / 3)]
    assert calls[0]["id"] == calls[1]["id"]
    assert calls[0]["project"] == "p"
    assert finished == [True, True]


def test_a_full_disk_names_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = RunLog(tmp_path, QUIET)

    def full(path: Path, mode: str = "r", **more: Any) -> Any:
        if mode == "a":
            raise OSError(errno.ENOSPC, "No space left on device")
        return builtins.open(path, mode, **more)

    monkeypatch.setattr(module, "open", full, raising=False)
    with pytest.raises(StorageError, match=r"steps\.csv: the disk is full"):
        log.step(row(1), {})
