"""What heads share: the sizes of feature maps, brought together."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

# Groups of a GroupNorm: no statistics over the batch, which is a few tiles here and would differ between processes.
_GROUPS = 8


def conv_block(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    """Convolution, normalisation over groups of channels, GELU; the size stays."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
        nn.GroupNorm(_GROUPS, outputs),
        nn.GELU(),
    )


def resized(x_BDhw: Tensor, like: Tensor) -> Tensor:
    """Bilinear, to the size of another map."""
    return F.interpolate(x_BDhw, size=like.shape[-2:], mode="bilinear", align_corners=False)


class LevelsOf(nn.Module):
    """One grid of tokens to maps of four sizes: 4 and 2 times finer, itself, and 2 times coarser.

    The simple feature pyramid of ViTDet (arXiv 2203.16527). Several levels pass through as they are.

    Attributes:
        widths: Channels of what comes out.
    """

    def __init__(self, widths: tuple[int, ...], dim: int) -> None:
        super().__init__()
        self.single = len(widths) == 1
        self.widths = (dim,) * 4 if self.single else widths
        if self.single:
            self.norm = nn.GroupNorm(1, widths[0])  # tokens of other networks come in any size
            self.finer = nn.ConvTranspose2d(widths[0], dim, 2, stride=2)
            self.finest = nn.Sequential(nn.GELU(), nn.ConvTranspose2d(dim, dim, 2, stride=2))
            self.same = nn.Conv2d(widths[0], dim, 1)
            self.coarser = nn.MaxPool2d(2, ceil_mode=True)

    def forward(self, levels: list[Tensor]) -> list[Tensor]:
        if not self.single:
            return levels
        grid = self.norm(levels[0])
        finer, same = self.finer(grid), self.same(grid)
        return [self.finest(finer), finer, same, self.coarser(same)]
