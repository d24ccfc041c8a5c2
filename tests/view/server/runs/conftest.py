"""Folders as runs and evaluations leave them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from lamella.engine.log import LogSettings, RunLog, StepRow
from lamella.engine.rundir import claim
from lamella.metrics.segments.protocol import HEADS, LABEL_ORACLE, Protocol


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """make_run(name, settings=None, verb="pretrain", steps=0) -> the run's folder, with that many steps in its log."""

    def make(name: str, settings: Mapping[str, Any] | None = None, verb: str = "pretrain", steps: int = 0) -> Path:
        tree = settings or {"optim": {"lr": 0.001, "betas": [0.9, 0.999]}, "seed": 0}
        claim(tmp_path / "runs" / name, tree, {"optim.lr": "run.yaml:3"}, verb=verb)
        if steps:
            write_steps(tmp_path / "runs" / name, 1, steps)
        return tmp_path / "runs" / name

    return make


def write_steps(folder: Path, first: int, last: int, resumed: int = 0) -> None:
    """Log steps as a run does; the loss of a step is its number."""
    with RunLog(folder, LogSettings(tensorboard=False), resumed) as log:
        for step in range(first, last + 1):
            log.step(StepRow(1, step, float(step), 10, 4, 5.0, 1e-3, 0.04, 8 * step), {"loss_dice": step / 2})


def protocol(task: str, n: int = 4, split: str = "ab", prompt: str = "") -> dict[str, Any]:
    """Conditions of a segmentation's rows."""
    oracle = task == "prompted"
    made = Protocol(task, oracle, prompt or ("box" if oracle else "none"), (), split, ("gland",), 0.5, "pixels", n)
    return made.tree()


def row(question: str, encoder: str, value: float, **more: Any) -> dict[str, Any]:
    """A row of results.json."""
    estimate = {"value": value, "low": value - 0.1, "high": value + 0.1, "n": 40, "groups": 4, "note": ""}
    made = {
        "question": question, "measure": "Dice", "probe": "all pixels", "encoder": encoder, "estimate": estimate,
        "baseline": {"name": "all gland", "value": 0.5}, "better": "higher",
        "control": {"name": "labels exchanged", "value": 0.49}, "note": "few", "protocol": None,
    }  # fmt: skip
    return made | more


def write_results(folder: Path, rows: list[dict[str, Any]], **more: Any) -> Path:
    tree = {
        "title": "How well?", "rows": rows, "meanings": {}, "warnings": ["few slides"],
        "conclusions": ["ours is better"], "unasked": [{"question": "Sites", "reason": "one site"}],
        "notes": [], "facts": {"images": 40},
        "command": "lamella evaluate <b>", "pictures": [],
    }  # fmt: skip
    (folder / "results.json").write_text(json.dumps(tree | more))
    return folder


AUTOMATIC = f"{HEADS['automatic']}: glas"
PROMPTED = f"{HEADS['prompted']}: glas"
WEAK = f"{HEADS['weak']}: glas"
TOLD = LABEL_ORACLE
