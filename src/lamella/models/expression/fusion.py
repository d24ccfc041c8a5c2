"""Several scales become one map of the bins. Space is kept: nothing is pooled away.

Every fusion takes the projected views, (B, C, t, t) each and finest first, with what is seen of them, and gives
(B, C, n, n).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lamella.models.expression.channel_norm import ChannelNorm, Mlp, conv_block
from lamella.models.expression.contract import ViewShape
from lamella.models.expression.cross_scale import CrossScaleAttention
from lamella.models.expression.places import places_um, registered
from lamella.models.expression.settings import (
    AnyFusionSettings,
    CrossScaleSettings,
    GatedSettings,
    HierarchicalSettings,
    NoFusionSettings,
)


class CrossScaleFusion(nn.Module):
    """Bins ask each coarser view; what they hear is added, and a map of the channels follows."""

    def __init__(self, settings: CrossScaleSettings, width: int, views: tuple[ViewShape, ...]) -> None:
        super().__init__()
        bin_um = views[0].token_um
        self.norms = nn.ModuleList(ChannelNorm(width) for _ in views)
        self.attention = nn.ModuleList(CrossScaleAttention(settings, width, view, bin_um) for view in views[1:])
        self.mlp = nn.Sequential(ChannelNorm(width), Mlp(width))

    def forward(self, views: Sequence[Tensor], seen: Sequence[Tensor]) -> Tensor:
        x, *coarse = views
        asked = self.norms[0](x)
        for attend, norm, view, known in zip(self.attention, self.norms[1:], coarse, seen[1:], strict=True):
            x = x + attend(asked, norm(view), known)
        return x + self.mlp(x)


class GatedFusion(nn.Module):
    """Each coarser view, registered to the bins, times a gate that both decide."""

    def __init__(self, width: int, views: tuple[ViewShape, ...]) -> None:
        super().__init__()
        self.shapes = views
        self.gates = nn.ModuleList(nn.Conv2d(2 * width, width, 1) for _ in views[1:])

    def forward(self, views: Sequence[Tensor], seen: Sequence[Tensor]) -> Tensor:
        first = views[0]
        fused, asked = first, places_um(first.shape[-1], self.shapes[0].token_um, first.device)
        for gate, view, known, shape in zip(self.gates, views[1:], seen[1:], self.shapes[1:], strict=True):
            laid, _ = registered(view, known, shape.token_um, asked)
            fused = fused + gate(torch.cat([first, laid], 1)).sigmoid() * laid
        return fused


class HierarchicalFusion(nn.Module):
    """128 -> 32 -> 8 -> 2: each view hears what the next coarser one knows at its places."""

    def __init__(self, width: int, views: tuple[ViewShape, ...]) -> None:
        super().__init__()
        self.shapes = views
        self.around = nn.ModuleList(conv_block(width, width) for _ in views[1:])
        self.joined = nn.ModuleList(conv_block(2 * width, width, 1) for _ in views[1:])

    def forward(self, views: Sequence[Tensor], seen: Sequence[Tensor]) -> Tensor:
        x, known = views[-1], seen[-1]
        for number in range(len(views) - 2, -1, -1):
            x = x + self.around[number](x)
            finer = views[number]
            asked = places_um(finer.shape[-1], self.shapes[number].token_um, finer.device)
            laid, there = registered(x, known, self.shapes[number + 1].token_um, asked)
            x = finer + self.joined[number](torch.cat([finer, laid], 1))
            known = seen[number] | there  # a token that is not seen itself still knows its surroundings
        return x


class AddedFusion(nn.Module):
    """The sum of the views, registered to the bins."""

    def __init__(self, views: tuple[ViewShape, ...]) -> None:
        super().__init__()
        self.shapes = views

    def forward(self, views: Sequence[Tensor], seen: Sequence[Tensor]) -> Tensor:
        fused = views[0]
        asked = places_um(fused.shape[-1], self.shapes[0].token_um, fused.device)
        for view, known, shape in zip(views[1:], seen[1:], self.shapes[1:], strict=True):
            fused = fused + registered(view, known, shape.token_um, asked)[0]
        return fused


class FirstView(nn.Module):
    """No fusion."""

    def forward(self, views: Sequence[Tensor], seen: Sequence[Tensor]) -> Tensor:
        return views[0]


def used_views(settings: AnyFusionSettings, views: tuple[ViewShape, ...]) -> tuple[ViewShape, ...]:
    """The views that a fusion looks at: the first alone without one."""
    return views[:1] if isinstance(settings, NoFusionSettings) else views


def make_fusion(settings: AnyFusionSettings, width: int, views: tuple[ViewShape, ...]) -> nn.Module:
    """A fusion with fresh weights, for the views that it uses."""
    if isinstance(settings, NoFusionSettings) or len(views) == 1:
        return FirstView()
    if isinstance(settings, CrossScaleSettings):
        return CrossScaleFusion(settings, width, views)
    if isinstance(settings, GatedSettings):
        return GatedFusion(width, views)
    return HierarchicalFusion(width, views) if isinstance(settings, HierarchicalSettings) else AddedFusion(views)
