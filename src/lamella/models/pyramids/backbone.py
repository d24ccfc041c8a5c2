"""What every backbone offers: uint8 tiles in, feature maps out, finest first.

Shapes: B tiles, C = 3 channels, H, W pixels; level i is (B, widths[i], H / strides[i], W / strides[i]).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lamella.models.contract import check_images

# Mean and deviation of ImageNet's colours (0 to 1): what SegFormer and SAM 2 were trained with.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Backbone(nn.Module):
    """A pyramid of features with normalisation inside.

    Attributes:
        kind: What it is called in a model folder's config.json.
        widths: Channels of each level, finest first.
        strides: Image pixels per feature of each level.
        multiple_px: Sides of tiles must be multiples of it.
        licence: Of the weights that it began with.
    """

    kind: ClassVar[str]
    widths: tuple[int, ...]
    strides: tuple[float, ...]
    multiple_px: int
    licence: str

    @abstractmethod
    def forward(self, images: Tensor) -> list[Tensor]:
        """uint8 (B, 3, H, W) to the levels, finest first.

        Raises:
            ValueError: The images are not uint8 RGB, or their sides no multiples of `multiple_px`.
        """

    def level(self, images: Tensor, number: int) -> Tensor:
        """One level of uint8 (B, 3, H, W); backbones that can stop early do. Raises as `forward` does."""
        levels: list[Tensor] = self(images)
        return levels[number]

    @abstractmethod
    def description(self) -> Mapping[str, Any]:
        """All that is needed, as JSON, to build the same network again before its weights are read."""

    def thaw(self) -> None:
        """Make every weight trainable that has a part in the levels."""
        self.requires_grad_(True)

    def check(self, images: Tensor) -> None:
        """Refuse what cannot be encoded; see `forward`."""
        check_images(images)
        height, width = images.shape[-2:]
        if height % self.multiple_px or width % self.multiple_px:
            raise ValueError(f"tiles of {height} x {width} px: the sides must be multiples of {self.multiple_px} px")


class Normalised(Backbone):
    """A backbone that takes its images as (value / 255 - mean) / std."""

    def __init__(self, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD) -> None:
        super().__init__()
        # Not in the checkpoint: these are settings, not weights.
        self.register_buffer("mean_C11", 255 * torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std_C11", 255 * torch.tensor(std)[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> list[Tensor]:
        return self.levels(self.normalised(images))

    def normalised(self, images: Tensor) -> Tensor:
        """What the network is shown of uint8 (B, 3, H, W); refuses what `forward` refuses."""
        self.check(images)
        shown: Tensor = (images.float() - self.mean_C11) / self.std_C11
        return shown

    @abstractmethod
    def levels(self, x_BCHW: Tensor) -> list[Tensor]:
        """The levels of normalised images."""
