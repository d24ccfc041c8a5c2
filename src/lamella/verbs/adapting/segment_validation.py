"""How good a segmenter is on images that it is not trained on, on the path that is evaluated later."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from lamella.data.labelled_tiles import LabelledTiles
from lamella.dense.blending import BlendSettings
from lamella.dense.images import predict_image
from lamella.methods.segment import Segment
from lamella.metrics.segments.confusion import confusion_of, dice_per_class, mean_of_present
from lamella.models.dense_contract import DenseModel

MONITOR = "val_perclass_dice"
"""Mean over the classes (without the background) of the Dice of all validation pixels together."""


@dataclass(frozen=True)
class Validation:
    """Validates a method on whole images.

    Attributes:
        method: What is trained; left as it was.
        model: The same weights as a dense model.
        tiles: The images; none of them is trained on.
        tile_px: Side of the tiles that they are predicted by.
        device: Where the weights are.
    """

    method: Segment
    model: DenseModel
    tiles: LabelledTiles
    tile_px: int
    device: torch.device

    @torch.no_grad()
    def __call__(self, epochs: int) -> Mapping[str, float]:
        """Dice of each class over the pixels of all images together, and their mean."""
        was = {module: module.training for module in self.method.modules()}
        self.method.eval()
        try:
            matrix = self._confusion()
        finally:
            for module, training in was.items():
                module.training = training
        contract = self.model.contract
        dice = dice_per_class(matrix)
        background = contract.channels.index(contract.background) if contract.background else None
        named = {f"val_dice_{name}": float(value) for name, value in zip(contract.channels, dice, strict=True)}
        return {MONITOR: float(mean_of_present(dice, background)), **named}

    def _confusion(self) -> np.ndarray:
        classes = len(self.model.contract.channels)
        matrix = np.zeros((classes, classes + 1), np.int64)
        for number in range(len(self.tiles)):
            image = self.tiles.image(number)
            maps = predict_image(
                self.model, image.pixels_YXC, BlendSettings(), tile_px=self.tile_px, batch_size=4, device=self.device
            )
            matrix += confusion_of(image.channels_YX, maps.argmax(0).astype(np.uint8), classes)
        return matrix
