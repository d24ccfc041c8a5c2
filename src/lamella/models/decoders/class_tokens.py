"""One learnt token for each class, which looks at the image and becomes a mask: SAM's mask decoder without prompts.

Logit of class c at a pixel = (token of c after looking) . (embedding of the pixel), as in SAM (arXiv 2304.02643) and
MaskFormer (2107.06278). Shapes: B tiles, C classes, D width, N pixels of the coarsest map.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from lamella.config import Settings
from lamella.models.decoders.fpn import FpnHead, FpnSettings


class ClassTokenSettings(Settings):
    """A mask token for each class."""

    name: Literal["class_tokens"] = "class_tokens"
    dim: Annotated[int, Field(ge=8, multiple_of=8)] = 128
    """Width of tokens and pixel embeddings."""
    depth: Annotated[int, Field(ge=1)] = 2
    """Rounds of attention among the tokens and to the image; SAM's decoder has two."""
    heads: Annotated[int, Field(ge=1)] = 4
    """Attention heads; they divide the width."""


class _Round(nn.Module):
    """Tokens look at each other, then at the image, then think; each after a norm."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(3))
        self.among = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.look = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.think = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, tokens_BCD: Tensor, image_BND: Tensor) -> Tensor:
        normed = self.norms[0](tokens_BCD)
        tokens_BCD = tokens_BCD + self.among(normed, normed, normed, need_weights=False)[0]
        asked = self.norms[1](tokens_BCD)
        tokens_BCD = tokens_BCD + self.look(asked, image_BND, image_BND, need_weights=False)[0]
        return tokens_BCD + self.think(self.norms[2](tokens_BCD))


class ClassTokenHead(nn.Module):
    """Logits on the finest grid."""

    def __init__(self, settings: ClassTokenSettings, widths: tuple[int, ...], classes: int) -> None:
        super().__init__()
        dim = settings.dim
        self.settings = settings
        self.pyramid = FpnHead(FpnSettings(dim=dim, pooling=False, dropout=0), widths, classes=1)
        self.pyramid.classify = nn.Identity()  # its embedding is wanted, not its logits
        self.tokens_CD = nn.Parameter(torch.randn(classes, dim))
        self.rounds = nn.ModuleList(_Round(dim, settings.heads) for _ in range(settings.depth))
        self.to_mask = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, dim))
        self.bias_C = nn.Parameter(torch.zeros(classes))

    def forward(self, levels: list[Tensor]) -> Tensor:
        """(B, C, h, w) logits."""
        found = self.pyramid.features(levels)
        image_BND = torch.cat([level.flatten(2) for level in found[-2:]], 2).transpose(1, 2)
        tokens_BCD = self.tokens_CD.expand(len(image_BND), -1, -1)
        for each in self.rounds:
            tokens_BCD = each(tokens_BCD, image_BND)
        sized = [F.interpolate(level, size=found[0].shape[-2:], mode="bilinear") for level in found]
        pixels_BDhw = self.pyramid.fuse(torch.cat(sized, 1))
        masks_BCD = self.to_mask(tokens_BCD)
        logits = torch.einsum("bcd,bdhw->bchw", masks_BCD, pixels_BDhw) / masks_BCD.shape[-1] ** 0.5
        return logits + self.bias_C[:, None, None]
