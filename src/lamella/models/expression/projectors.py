"""From features of an encoder to the width of the network.

The encoder is frozen and its features are read from disk; these maps learn. Mistake of the source: its projectors ran
inside `no_grad` and kept their random weights.

Shapes: B tiles, D width of features, C width of the network, t tokens along the side.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from lamella.models.expression.channel_norm import ChannelNorm


class Projector(nn.Module):
    """One view: (B, D, t, t) to (B, C, t, t). Tokens that are not seen become 0, whatever stood there."""

    def __init__(self, inputs: int, width: int, kind: Literal["mlp", "linear"]) -> None:
        super().__init__()
        first = nn.Conv2d(inputs, width, 1)
        if kind == "linear":
            self.map: nn.Module = first
        else:
            self.map = nn.Sequential(first, ChannelNorm(width), nn.GELU(), nn.Conv2d(width, width, 1))

    def forward(self, features_BDtt: Tensor, seen_Btt: Tensor) -> Tensor:
        known = seen_Btt[:, None]
        # Before the map, too: a NaN there times 0 would stay one.
        return self.map(features_BDtt.masked_fill(~known, 0)).masked_fill(~known, 0)
