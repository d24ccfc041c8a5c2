"""MiniUNet: a U-Net of a few convolutions, up again by transposed ones, to features of the bins.

Shapes: B tiles, C width, n bins along a side.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lamella.models.expression.channel_norm import conv_block
from lamella.models.expression.settings import MiniUNetSettings


class MiniUNet(nn.Module):
    """(B, C, n, n) to (B, C, n, n).

    The width stays C at all depths, so that a step stays light on processors. A bin hears of its surroundings up to
    3 x 2^depth - 2 bins away.
    """

    def __init__(self, settings: MiniUNetSettings, width: int, bins: int) -> None:
        super().__init__()
        # At least two bins are left along a side: fewer would be nothing but the edge.
        depth = max(0, min(settings.depth, bins.bit_length() - 2))
        self.multiple = 2**depth
        self.down = nn.ModuleList(conv_block(width, width, 3, stride=2) for _ in range(depth))
        self.up = nn.ModuleList(nn.ConvTranspose2d(width, width, 2, stride=2) for _ in range(depth))
        self.joined = nn.ModuleList(conv_block(2 * width, width) for _ in range(depth))
        self.first = conv_block(width, width)

    def forward(self, x_BCnn: Tensor) -> Tensor:
        n = x_BCnn.shape[-1]
        more = -n % self.multiple
        x = F.pad(x_BCnn, (0, more, 0, more), mode="replicate") if more else x_BCnn
        levels = [x + self.first(x)]
        for down in self.down:
            levels.append(down(levels[-1]))
        x = levels.pop()
        for up, join in zip(self.up, self.joined, strict=True):
            x = join(torch.cat([levels.pop(), up(x)], 1))
        return x_BCnn + x[..., :n, :n]  # what the bins themselves say goes straight to the genes
