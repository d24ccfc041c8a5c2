"""How long a run is: in images or in epochs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, model_validator

from lamella.config import Settings

_DEFAULT_EPOCHS = 100  # short enough for a first run, a third of the 300 that I-JEPA trains on ImageNet


class BudgetSettings(Settings):
    """The length of a run. Give `images` or `epochs`; neither means 100 epochs."""

    images: Annotated[int, Field(ge=1)] | None = None
    """Contexts to train on in all."""
    epochs: Annotated[float, Field(gt=0)] | None = None
    """The same as a number of epochs."""

    @model_validator(mode="after")
    def _one_of_two(self) -> BudgetSettings:
        if self.images is not None and self.epochs is not None:
            raise ValueError("images and epochs are both given; set one of them to null, such as budget.images=null")
        return self

    def resolve(self, images_per_epoch: int, images_per_step: int) -> Budget:
        """The budget in steps.

        Args:
            images_per_epoch: Anchors of one pass over the catalogue, or the length of a virtual epoch.
            images_per_step: Size of the global batch.
        """
        images = self.images or math.ceil((self.epochs or _DEFAULT_EPOCHS) * images_per_epoch)
        return Budget(math.ceil(images / images_per_step), images_per_step, images_per_epoch)


@dataclass(frozen=True)
class Budget:
    """A run of `steps` optimiser steps; steps count from 0, epochs from 1."""

    steps: int
    images_per_step: int
    images_per_epoch: int

    def progress(self, step: int) -> float:
        """Share of the run that lies before this step, 0 to 1."""
        return step / self.steps

    def epoch(self, step: int) -> int:
        """The epoch in which this step's first image lies."""
        return 1 + step * self.images_per_step // self.images_per_epoch

    def images(self, step: int) -> int:
        """Images seen before this step."""
        return step * self.images_per_step

    def crosses(self, step: int, every_images: int) -> bool:
        """Whether a multiple of `every_images` is reached with the last image of this step."""
        return self.images(step + 1) // every_images > self.images(step) // every_images
