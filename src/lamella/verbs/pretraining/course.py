"""What every pretraining run has, whatever it learns from: its settings, its samples, its method and its words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from lamella.config import Settings
from lamella.engine.budget import Budget, BudgetSettings
from lamella.engine.checkpoint import CheckpointSettings
from lamella.engine.log import LogSettings
from lamella.engine.loop import Batch
from lamella.engine.optim import OptimSettings
from lamella.engine.world import DeviceName, PrecisionName
from lamella.errors import ConfigError
from lamella.verbs.pretraining.monitors import Watched


class RunSettings(Settings):
    """What every pretraining run can be told beside its method and its data."""

    optim: OptimSettings = OptimSettings()
    budget: BudgetSettings = BudgetSettings()
    log: LogSettings = LogSettings()
    checkpoint: CheckpointSettings = CheckpointSettings()
    seed: int = 0
    """Seed of the weights, the order of the samples, their masks or targets, and the augmentation."""
    device: DeviceName = "auto"
    """Where to train; under torchrun one process per GPU."""
    precision: PrecisionName = "auto"
    """Arithmetic of the forward pass: bf16 where the GPU has it, else fp32."""


class Samples(Protocol):
    """Batches as a pure function of the step."""

    def __len__(self) -> int: ...

    @property
    def samples_per_epoch(self) -> int: ...

    def positions(self, step: int, rank: int, world_size: int) -> range: ...

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> Batch: ...


class Learner(Watched, Protocol):
    """A pretraining method: what the loop trains, the monitors watch and the model folder keeps."""

    def after_step(self, progress: float) -> None: ...

    def encoder(self) -> Any: ...


@dataclass(frozen=True)
class Course:
    """One run: who learns from what, and how it is told to a reader.

    Attributes:
        config: The resolved settings.
        samples: Batches.
        method: What is trained.
        batch_size: Samples of a step, over all ranks.
        workers: Processes that read ahead.
        inputs: What the results depend on beside the settings.
        sources: (label, text) lines that say what is learned from.
        card: `data`, `method` and `limits` (further ones) of the model card.
        held: Number of views -> the batches that the monitors are asked on.
        save: Writes the model folder with this card text.
        next_command: What to type next, with {model} for the model folder.
    """

    config: RunSettings
    samples: Samples
    method: Learner
    batch_size: int
    workers: int
    inputs: Mapping[str, Any]
    sources: tuple[tuple[str, str], ...]
    card: Mapping[str, Any]
    held: Callable[[int], list[Batch]]
    save: Callable[[Path, str], None]
    next_command: str

    @property
    def budget(self) -> Budget:
        return self.config.budget.resolve(self.samples.samples_per_epoch, self.batch_size)

    def check_share(self, rank: int, world_size: int) -> None:
        """Refuse micro-batches that do not divide this rank's share of a batch.

        Raises:
            ConfigError: They do not.
        """
        share = len(self.samples.positions(0, rank, world_size))
        if share % self.config.optim.micro_batches:
            raise ConfigError(
                [
                    f"optim.micro_batches: {self.config.optim.micro_batches} equal parts cannot be made of the {share} "
                    "images that each process has of a batch; choose a divisor, or another data.batch_size"
                ],
                "pretrain",
            )
