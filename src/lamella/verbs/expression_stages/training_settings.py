"""Settings of the stage `train`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from lamella.config import Settings
from lamella.data.expression_batches import ExpressionBatchSettings
from lamella.engine.budget import BudgetSettings
from lamella.engine.checkpoint import CheckpointSettings
from lamella.engine.early_stopping import EarlyStoppingSettings
from lamella.engine.log import LogSettings
from lamella.engine.optim import OptimSettings
from lamella.engine.world import DeviceName, PrecisionName
from lamella.methods.count_losses import PoissonSettings
from lamella.methods.expression_losses import ExpressionLossSettings
from lamella.models.expression.settings import ExpressionModelSettings

# Monitored value of each criterion, and whether larger or smaller is better.
MONITORS: dict[str, tuple[str, Literal["max", "min"]]] = {
    "loss": ("val_loss", "min"),
    "correlation": ("val_correlation", "max"),
}


class ValidationSettings(Settings):
    """How the best weights are chosen: on the inner patient of the fold, never on the one that is judged."""

    criterion: Literal["loss", "correlation", "none"] = "loss"
    """loss: the training loss on the inner patient's places. correlation: the mean over genes of Pearson's correlation
    there, of log1p where places are counted. none: a fixed budget; the inner patient (or slides) is trained on too, and
    the last weights are kept: for few patients, where budget and settings were settled beforehand."""
    samples: Annotated[int, Field(ge=1)] | None = 64
    """Tiles of each inner slide that are looked at, drawn once and always the same; null: all. Spots always all."""
    every_epochs: Annotated[int, Field(ge=1)] = 1
    """Epochs from one validation to the next."""
    patience: Annotated[int, Field(ge=1)] | None = 6
    """Validations in a row without improvement after which training ends; null never ends it early."""
    min_delta: Annotated[float, Field(ge=0)] = 0.0
    """What counts as improvement."""

    def early_stopping(self) -> EarlyStoppingSettings:
        """The same for the training loop."""
        monitor, mode = MONITORS.get(self.criterion, MONITORS["loss"])
        return EarlyStoppingSettings(
            monitor=monitor,
            mode=mode,
            patience=self.patience,
            min_delta=self.min_delta,
            every_epochs=self.every_epochs,
        )


class TrainingSettings(Settings):
    """Network, loss, and how long."""

    model: ExpressionModelSettings = ExpressionModelSettings()
    """The network."""
    loss: ExpressionLossSettings = PoissonSettings()
    """mse, poisson, nb, zinb, focal, focal_zinb, hurdle or multi_resolution."""
    library: Literal["none", "offset"] = "none"
    """none: how much is counted at a place is part of what is predicted. offset: rates are learned per library, times
    what a place has of all genes over the training median; predictions are then of a place with the median."""
    batches: ExpressionBatchSettings = ExpressionBatchSettings(batch_size=8)
    """How samples are drawn. Where samples_per_epoch is null, an epoch has 20 steps at least: a small study passes over
    its tiles or spots several times before it is validated again."""
    shuffle_labels: bool = False
    """Give every training sample the labels of another: a control. What such a network predicts has seen no link
    between image and expression; grid.controls trains it beside the study's own."""
    # Small networks on features that stand still: a high rate and few epochs, with a decay that a linear model wants.
    optim: OptimSettings = OptimSettings(
        lr_start=2e-4, lr=2e-3, lr_end=1e-5, warmup=0.05, weight_decay=0.01, weight_decay_end=0.01
    )
    budget: BudgetSettings = BudgetSettings(epochs=30)
    """How long at most; images are samples here."""
    validation: ValidationSettings = ValidationSettings()
    log: LogSettings = LogSettings(tensorboard=False)
    checkpoint: CheckpointSettings = CheckpointSettings(keep_last=1)
    seeds: tuple[int, ...] = ()
    """One model of every cell and fold with each of these seeds of weights and draws; their predictions are averaged.
    Empty: one, with the study's seed."""
    jobs: Annotated[int, Field(ge=1)] = 1
    """Models that are trained at once, each in a process of its own with one thread."""
    memory_mb: Annotated[float, Field(ge=0)] = 1024
    """Features of samples kept in memory by each process, for all its models that see the same ones."""
    device: DeviceName = "auto"
    """Where to train."""
    precision: PrecisionName = "auto"
    """Arithmetic of the network: bf16 where the GPU has it, else fp32. Likelihoods are in 32 bits."""

    @field_validator("seeds")
    @classmethod
    def _once(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) != len(seeds):
            raise ValueError("a seed stands twice")
        return seeds
