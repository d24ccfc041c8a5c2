"""What is trained on top of an encoder: pooling by a learnt query, a linear classifier, heads that label pixels.

Shapes: B items, N tokens, D width, C classes, Z slices, Y rows, X columns.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class AttentivePooling(nn.Module):
    """One learnt query that looks at all tokens, then a linear classifier.

    A single cross-attention without a block after it: as few weights as a probe may have that chooses its tokens.
    """

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.query = nn.Parameter(torch.zeros(dim))  # zero: it starts as the mean of the tokens
        self.key = nn.Linear(dim, dim)
        self.classify = nn.Linear(dim, classes)
        nn.init.zeros_(self.classify.weight)
        nn.init.zeros_(self.classify.bias)

    def forward(self, tokens_BND: Tensor) -> Tensor:
        """(B, C) logits."""
        normed_BND = self.norm(tokens_BND.float())
        weight_BN = (self.key(normed_BND) @ self.query / normed_BND.shape[-1] ** 0.5).softmax(-1)
        return self.classify(torch.einsum("bn,bnd->bd", weight_BN, normed_BND))


class GridHead(nn.Module):
    """Tokens on a grid to logits on that grid: a linear map, or a small convolutional network.

    Args:
        dim: Width D of a token.
        classes: C, background included.
        axes: 2 for images, 3 for volumes.
        hidden: Channels of the convolution; 0 for the linear head.
    """

    def __init__(self, dim: int, classes: int, axes: int, hidden: int = 0) -> None:
        super().__init__()
        conv = nn.Conv2d if axes == 2 else nn.Conv3d
        self.register_buffer("mean_D", torch.zeros(dim))
        self.register_buffer("std_D", torch.ones(dim))
        layers: list[nn.Module] = [conv(dim, hidden or classes, 1)]
        if hidden:
            layers += [nn.GELU(), conv(hidden, hidden, 3, padding=1), nn.GELU(), conv(hidden, classes, 1)]
        self.layers = nn.Sequential(*layers)

    def standardise_like(self, tokens_BND: Tensor) -> None:
        """Bring every dimension to the mean 0 and deviation 1 that it has in these (training) tokens.

        No normalisation token by token: that would hide how bright a patch is from a head on raw pixels.
        """
        flat = tokens_BND.float().flatten(0, 1)
        self.mean_D.copy_(flat.mean(0))
        self.std_D.copy_(flat.std(0).clamp(min=1e-6))  # a constant dimension says nothing: it stays 0

    def forward(self, tokens_BND: Tensor, grid: Sequence[int]) -> Tensor:
        """(B, C, *grid) logits of tokens in row-major order over the grid."""
        standard_BND = (tokens_BND.float() - self.mean_D) / self.std_D
        x = standard_BND.transpose(1, 2).unflatten(2, tuple(grid))
        logits: Tensor = self.layers(x)
        return logits


def upsampled(logits: Tensor, size: Sequence[int]) -> Tensor:
    """(B, C, *size): linear between the centres of the grid's cells, constant beyond the outermost."""
    mode = "bilinear" if logits.ndim == 4 else "trilinear"
    return F.interpolate(logits, size=tuple(size), mode=mode, align_corners=False)
