"""Settings of `lamella adapt method.name=prompted`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from lamella.data.prompted_objects import PromptedDataSettings
from lamella.engine.budget import BudgetSettings
from lamella.engine.early_stopping import EarlyStoppingSettings
from lamella.engine.optim import OptimSettings
from lamella.methods.prompted import PromptedSettings
from lamella.verbs.adapting.fold_plan import FoldSettings
from lamella.verbs.adapting.prompted_validation import MONITOR, ValidationSettings
from lamella.verbs.pretraining.course import RunSettings


class PromptedRunDataSettings(PromptedDataSettings, FoldSettings):
    """What is learned from, what is asked about, and what is held out."""


class PromptedConfig(RunSettings):
    """Settings of `lamella adapt DATA method.name=prompted`."""

    model: str
    """The promptable model to start from: a name of SAM 2 with @ and the place of its weights, a folder, or a hub
    id."""
    method: PromptedSettings = PromptedSettings()
    data: PromptedRunDataSettings = PromptedRunDataSettings()
    validation: ValidationSettings = ValidationSettings()
    """What the held images are asked, before the first step and after every epoch: the same code as `lamella
    evaluate`."""
    # For what reads prompts and draws masks alone; an encoder wants a tenth (see the profiles).
    optim: OptimSettings = OptimSettings(lr_start=5e-6, lr=5e-5, lr_end=5e-7, weight_decay=0.01, weight_decay_end=0.01)
    budget: BudgetSettings = BudgetSettings(epochs=20)
    early_stopping: EarlyStoppingSettings = EarlyStoppingSettings(monitor=MONITOR, patience=10, min_delta=0.001)
    """When to end before the budget is spent; the best weights are kept either way, those before the first step too."""
    embeddings: Path | None = None
    """Folder for embeddings of fixed views (data.views), in half precision, about 8 MB each; null keeps them in
    memory."""
    embeddings_mb: Annotated[int, Field(ge=0)] = 6144
    """Memory for them."""
