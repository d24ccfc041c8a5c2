"""The settings of stage 3."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from lamella.config import Settings
from lamella.data.bag_batches import BagBatchSettings
from lamella.engine.budget import BudgetSettings
from lamella.engine.checkpoint import CheckpointSettings
from lamella.engine.early_stopping import EarlyStoppingSettings
from lamella.engine.log import LogSettings
from lamella.engine.optim import OptimSettings
from lamella.engine.world import DeviceName, PrecisionName
from lamella.methods.weak import WeakSettings

Criterion = Literal["loss", "masks"]
# Monitored value of each criterion, and whether larger or smaller is better.
MONITORS: dict[str, tuple[str, Literal["max", "min"]]] = {"loss": ("val_loss", "min"), "masks": ("val_miou", "max")}


class ValidationSettings(Settings):
    """How the best weights are chosen."""

    criterion: Criterion = "loss"
    """loss: the classification loss of the validation slides' (or patches') own labels. masks: the mean IoU of the
    classes against their pixel truth, which is no weak supervision any more. The reports say which it was."""
    share: Annotated[float, Field(ge=0, lt=1)] = 0.15
    """Share of the training groups that choose the weights where the split names no val slides, or in folds. 0: nothing
    chooses, the last weights are kept, and the report says so."""
    tiles_per_bag: Annotated[int, Field(ge=1)] | None = 64
    """Tiles of each validation slide, drawn once with the seed and always the same; null looks at all of them."""
    every_epochs: Annotated[int, Field(ge=1)] = 1
    """Epochs from one validation to the next."""
    patience: Annotated[int, Field(ge=1)] | None = None
    """Validations in a row without improvement after which training ends; null never ends it early."""
    min_delta: Annotated[float, Field(ge=0)] = 0.0
    """What counts as improvement."""

    def early_stopping(self) -> EarlyStoppingSettings:
        """The same for the training loop."""
        monitor, mode = MONITORS[self.criterion]
        return EarlyStoppingSettings(
            monitor=monitor,
            mode=mode,
            patience=self.patience,
            min_delta=self.min_delta,
            every_epochs=self.every_epochs,
        )


class TrainingSettings(Settings):
    """Settings of stage 3."""

    method: WeakSettings = WeakSettings()
    """The network, the pooling of slides' labels, and the losses."""
    batches: BagBatchSettings = BagBatchSettings()
    """How tiles are drawn."""
    # The source's schedule (its document): cosine after one of eight epochs of warm-up. Its rate, 1e-3, suits a head on
    # a frozen backbone; the presets of its code and paper fine-tune at 5e-5 and 1e-5.
    optim: OptimSettings = OptimSettings(
        lr_start=1e-4, lr=1e-3, lr_end=1e-6, warmup=0.125, weight_decay=5e-4, weight_decay_end=5e-4
    )
    budget: BudgetSettings = BudgetSettings(epochs=8)
    """How long; counted in tiles."""
    validation: ValidationSettings = ValidationSettings()
    log: LogSettings = LogSettings(tensorboard=False)
    checkpoint: CheckpointSettings = CheckpointSettings()
    folds: Annotated[int, Field(ge=2)] | None = None
    """Train one model per fold, each without the groups (patients) of that fold, into training/fold0, ...; the split's
    test slides are in no fold. null: one model on the train slides of the split."""
    fold: Annotated[int, Field(ge=0)] | None = None
    """Train this fold only; the others can be trained later."""
    seeds: tuple[int, ...] = ()
    """Train one model with each of these seeds of weights and draws, into training/seed0, ...: their maps are averaged.
    Empty: one, with the study's seed. Folds and what validates are the same for all."""
    init: Path | None = None
    """A weak model's folder to go on from (fine-tuning): its weights, and its prototypes with them. The network's
    settings must be those that it was made with; take a lower optim.lr."""
    device: DeviceName = "auto"
    """Where to train."""
    precision: PrecisionName = "auto"
    """Arithmetic of the forward pass: bf16 where the GPU has it, else fp32. Losses are in 32 bits."""

    @field_validator("seeds")
    @classmethod
    def _once(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) != len(seeds):
            raise ValueError("a seed stands twice")
        return seeds

    @model_validator(mode="after")
    def _fold_exists(self) -> TrainingSettings:
        if self.fold is not None and (self.folds is None or self.fold >= self.folds):
            raise ValueError("fold: there is no such fold; set folds, and a number below it")
        return self
