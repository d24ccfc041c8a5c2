"""A feature pyramid head: coarse maps say what, fine maps say where (FPN, arXiv 1612.03144; UPerNet, 1807.10221)."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from lamella.config import Settings
from lamella.models.decoders.levels import LevelsOf, conv_block, resized

_BINS = (1, 2, 3, 6)  # sides of the pooled maps, as in PSPNet and UPerNet


class FpnSettings(Settings):
    """Laterals, a top-down path, and one map of all levels."""

    name: Literal["fpn"] = "fpn"
    dim: Annotated[int, Field(ge=8, multiple_of=8)] = 128
    """Channels of the head."""
    pooling: bool = True
    """Show the coarsest level a summary of the whole tile (pyramid pooling, which makes it UPerNet's head)."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the channels left out before the last map."""


class FpnHead(nn.Module):
    """Logits on the finest grid."""

    def __init__(self, settings: FpnSettings, widths: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.settings, dim = settings, settings.dim
        self.levels = LevelsOf(widths, dim)
        widths = self.levels.widths
        self.laterals = nn.ModuleList(conv_block(width, dim, 1) for width in widths)
        # No normalisation here: a map of one pixel has no spread to divide by.
        bins = _BINS if settings.pooling else ()
        self.pooled = nn.ModuleList(nn.Sequential(nn.Conv2d(dim, dim // 4, 1), nn.GELU()) for _ in bins)
        self.joined = conv_block(dim + len(bins) * (dim // 4), dim, 3) if bins else nn.Identity()
        self.smooth = nn.ModuleList(conv_block(dim, dim, 3) for _ in widths[:-1])
        self.fuse = conv_block(len(widths) * dim, dim, 1)
        self.dropout = nn.Dropout2d(settings.dropout)
        self.classify = nn.Conv2d(dim, classes, 1)

    def features(self, levels: list[Tensor]) -> list[Tensor]:
        """Each level `dim` wide and told what the coarser ones know, finest first."""
        laterals = [each(level) for each, level in zip(self.laterals, self.levels(levels), strict=True)]
        top = laterals[-1]
        summaries = [
            resized(each(F.adaptive_avg_pool2d(top, side)), top) for each, side in zip(self.pooled, _BINS, strict=False)
        ]
        found = [self.joined(torch.cat([top, *summaries], 1) if summaries else top)]
        for lateral, smooth in zip(laterals[-2::-1], reversed(self.smooth), strict=True):
            found.insert(0, smooth(lateral + resized(found[0], lateral)))
        return found

    def embedding(self, levels: list[Tensor]) -> Tensor:
        """(B, dim, h, w) on the finest grid, of all levels."""
        found = self.features(levels)
        return self.fuse(torch.cat([resized(level, found[0]) for level in found], 1))

    def forward(self, levels: list[Tensor]) -> Tensor:
        """(B, C, h, w) logits."""
        return self.classify(self.dropout(self.embedding(levels)))
