"""Layers that work on each place by itself, so that nothing of a tile reaches its other places through them.

Shapes: B tiles, C channels, Y x X places.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of each place. A norm over space would let every place see the whole tile."""

    def forward(self, x_BCYX: Tensor) -> Tensor:
        x_BYXC = x_BCYX.permute(0, 2, 3, 1)
        return F.layer_norm(x_BYXC, self.normalized_shape, self.weight, self.bias, self.eps).permute(0, 3, 1, 2)


def conv_block(inputs: int, outputs: int, side: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution, normalisation, bend. The edge is repeated, as zeros would mark it."""
    pad = side // 2
    conv = nn.Conv2d(inputs, outputs, side, stride, pad, padding_mode="replicate" if pad else "zeros")
    return nn.Sequential(conv, ChannelNorm(outputs), nn.GELU())


class Mlp(nn.Sequential):
    """Two maps of the channels with a bend between them, twice as wide inside."""

    def __init__(self, width: int) -> None:
        super().__init__(nn.Conv2d(width, 2 * width, 1), nn.GELU(), nn.Conv2d(2 * width, width, 1))
