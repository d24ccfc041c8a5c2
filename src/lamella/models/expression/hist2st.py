"""A decoder after Hist2ST (Zeng et al. 2022): convolutions, then attention, then a graph of neighbours.

Theirs sees one patch for each spot; here bins are dense, so convolutions mix neighbouring bins (ConvMixer), attention
runs between patches of bins, whose places it knows in micrometres, and messages go between the eight neighbours of each
bin (GraphSAGE with the mean). Their losses on replicates are not taken over.

Shapes: B tiles, C width, n bins along a side, p patches along a side, H heads, E = C / H.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from lamella.models.expression.channel_norm import ChannelNorm, Mlp
from lamella.models.expression.places import places_um
from lamella.models.expression.rotary import turned, waves
from lamella.models.expression.settings import Hist2STSettings

_MIXER_SIDE = 5  # bins; theirs is 5 as well


class Mixer(nn.Module):
    """ConvMixer (arXiv 2201.09792): channels by themselves over space, then places by themselves over channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        pad = _MIXER_SIDE // 2
        self.space = nn.Conv2d(width, width, _MIXER_SIDE, padding=pad, groups=width, padding_mode="replicate")
        self.norms = nn.ModuleList(ChannelNorm(width) for _ in range(2))
        self.channels = nn.Conv2d(width, width, 1)

    def forward(self, x_BCnn: Tensor) -> Tensor:
        x = x_BCnn + self.norms[0](F.gelu(self.space(x_BCnn)))
        return x + self.norms[1](F.gelu(self.channels(x)))


class PatchAttention(nn.Module):
    """Attention between the means of patches of bins; each bin is given what its patch has heard, smoothly."""

    def __init__(self, width: int, heads: int, patch_bins: int, bin_um: float) -> None:
        super().__init__()
        self.heads, self.patch_bins, self.bin_um = heads, patch_bins, bin_um
        self.norm = ChannelNorm(width)
        self.project, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(ChannelNorm(width), Mlp(width))

    def forward(self, x_BCnn: Tensor) -> Tensor:
        n = x_BCnn.shape[-1]
        side = max(1, round(n / self.patch_bins))
        patches = F.adaptive_avg_pool2d(self.norm(x_BCnn), side).permute(0, 2, 3, 1)
        q, k, v = self.project(patches).unflatten(-1, (3, self.heads, -1)).unbind(3)
        step_um = n * self.bin_um / side
        place = places_um(side, step_um, x_BCnn.device)
        frequencies = waves(q.shape[-1], 2 * step_um, 4 * n * self.bin_um, x_BCnn.device)
        q, k = (turned(part, place, place, frequencies) for part in (q, k))
        heard = F.scaled_dot_product_attention(*(part.flatten(1, 2).transpose(1, 2) for part in (q, k, v)))
        heard = self.out(heard.transpose(1, 2).flatten(2)).unflatten(1, (side, side)).permute(0, 3, 1, 2)
        x = x_BCnn + F.interpolate(heard, size=(n, n), mode="bilinear", align_corners=False)
        return x + self.mlp(x)


class Messages(nn.Module):
    """GraphSAGE (arXiv 1706.02216) on the lattice: a bin beside the mean of its neighbours that exist."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(width)
        self.own, self.others = nn.Conv2d(width, width, 1), nn.Conv2d(width, width, 1, bias=False)

    def forward(self, x_BCnn: Tensor) -> Tensor:
        x = self.norm(x_BCnn)
        return x_BCnn + F.gelu(self.own(x) + self.others(neighbour_mean(x)))


def neighbour_mean(x_BCnn: Tensor) -> Tensor:
    """Mean of the up to eight neighbours of each bin, without the bin itself; a bin alone keeps 0."""
    ones = x_BCnn.new_ones(1, 1, *x_BCnn.shape[-2:])
    # Nine times the mean over the window, zeros beyond the edge, is the sum of those that exist.
    summed, counted = (F.avg_pool2d(part, 3, 1, 1) * 9 - part for part in (x_BCnn, ones))
    return summed / counted.clamp_min(1)


class Hist2ST(nn.Module):
    """(B, C, n, n) to (B, C, n, n)."""

    def __init__(self, settings: Hist2STSettings, width: int, bin_um: float) -> None:
        super().__init__()
        blocks: list[nn.Module] = [Mixer(width) for _ in range(settings.mixers)]
        blocks += [PatchAttention(width, settings.heads, settings.patch_bins, bin_um) for _ in range(settings.blocks)]
        blocks += [Messages(width) for _ in range(settings.graphs)]
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x_BCnn: Tensor) -> Tensor:
        return self.blocks(x_BCnn)
