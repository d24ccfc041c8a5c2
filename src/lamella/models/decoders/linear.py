"""The least head: one linear map of the features at each place, brought to the finest size."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from lamella.config import Settings
from lamella.models.decoders.levels import resized


class LinearSettings(Settings):
    """A linear map of all levels together."""

    name: Literal["linear"] = "linear"


class LinearHead(nn.Module):
    """Logits are a sum of one 1 x 1 convolution of each level: as linear as their concatenation would be.

    Channels are normalised over the tile first, without weights: features of different networks differ in size.
    """

    def __init__(self, settings: LinearSettings, widths: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.settings = settings
        self.norms = nn.ModuleList(nn.GroupNorm(1, width, affine=False) for width in widths)
        self.maps = nn.ModuleList(nn.Conv2d(width, classes, 1, bias=number == 0) for number, width in enumerate(widths))

    def forward(self, levels: list[Tensor]) -> Tensor:
        """(B, C, h, w) logits on the finest grid."""
        parts = [each(norm(level)) for each, norm, level in zip(self.maps, self.norms, levels, strict=True)]
        return sum((resized(part, parts[0]) for part in parts[1:]), start=parts[0])
