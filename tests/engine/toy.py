"""A method of a few hundred weights for the engine's tests; `python toy.py FOLDER '{"steps": 9}'` trains it."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lamella.engine.budget import Budget
from lamella.engine.checkpoint import CheckpointSettings
from lamella.engine.early_stopping import EarlyStoppingSettings
from lamella.engine.log import LogSettings
from lamella.engine.loop import Outcome, TrainSettings, train
from lamella.engine.optim import OptimSettings
from lamella.engine.rundir import settings_hash
from lamella.engine.world import World, start_world

BATCH, EPOCH = 8, 20


class Toy(nn.Module):
    """A student that predicts its slowly following teacher."""

    def __init__(self, width: int = 12, dropout: float = 0.0, bad_step: int | None = None) -> None:
        super().__init__()
        self.student = nn.Sequential(nn.Linear(6, width), nn.GELU(), nn.Dropout(dropout), nn.Linear(width, 4))
        self.teacher = nn.Linear(6, 4).requires_grad_(False)
        self.bad_step = bad_step

    def forward(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        goal = torch.tanh(self.teacher(batch["x"]))
        loss = (self.student(batch["x"]) - goal).square().mean()
        if self.bad_step is not None and int(batch["position"][0]) // BATCH == self.bad_step:
            loss = loss * torch.inf
        return loss, {"context_keep_tokens": batch["x"][:, 0].mean(), "target_predict_tokens": torch.tensor(4.0)}

    def after_step(self, progress: float) -> None:
        with torch.no_grad():
            self.teacher.weight.lerp_(self.student[0].weight[:4], 0.1 * (1 - progress))


def batch(step: int, world: World) -> dict[str, torch.Tensor]:
    share = BATCH // world.size
    positions = torch.arange(share) + step * BATCH + world.rank * share
    rows = [torch.randn(6, generator=torch.Generator().manual_seed(int(position))) for position in positions]
    return {"x": torch.stack(rows), "position": positions}


def run(
    folder: Path,
    steps: int = 9,
    *,
    world: World | None = None,
    micro_batches: int = 1,
    dropout: float = 0.1,
    width: int = 12,
    bad_step: int | None = None,
    optim: dict[str, Any] | None = None,
    log: dict[str, Any] | None = None,
    checkpoint: dict[str, Any] | None = None,
    on_step: Callable[[int, float], None] | None = None,
    monitor: Callable[[int], dict[str, Any]] | None = None,
    hash_of: str = "toy",
    validate: Callable[[int], dict[str, float]] | None = None,
    early: dict[str, Any] | None = None,
) -> Outcome:
    world = world or World(0, 1, torch.device("cpu"), "fp32", "a test")
    torch.manual_seed(0)
    method = Toy(width, dropout, bad_step)

    def batches(first: int, count: int) -> Iterator[dict[str, torch.Tensor]]:
        return (batch(step, world) for step in range(first, first + count))

    settings = TrainSettings(
        budget=Budget(steps, BATCH, EPOCH),
        optim=OptimSettings(**{"lr": 1e-2, "lr_start": 1e-3, "micro_batches": micro_batches, **(optim or {})}),
        log=LogSettings(**{"tensorboard": False, **(log or {})}),
        checkpoint=CheckpointSettings(**{"every_minutes": 1e6, "every_images": 3 * BATCH, **(checkpoint or {})}),
        seed=7,
        settings_hash=settings_hash({"of": hash_of}),
        early_stopping=EarlyStoppingSettings(**(early or {})),
    )
    return train(method, batches, settings, folder, world, monitor=monitor, on_step=on_step, validate=validate)


def main(folder: Path, *, kill_at: int | None = None, signal_name: str = "SIGKILL", **options: Any) -> int:
    """Train; after step `kill_at` the process sends itself the signal."""

    def on_step(step: int, loss: float) -> None:
        if step == kill_at:
            os.kill(os.getpid(), getattr(signal, signal_name))

    with start_world(device="cpu") as world:
        outcome = run(folder, world=world, on_step=on_step, **options)
    print(f"rank {world.rank}: step {outcome.step}, stopped by {outcome.stopped_by}")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), **json.loads(sys.argv[2])))
