"""Positions in attention: queries and keys are turned by their places in micrometres (RoPE, arXiv 2104.09864).

What a query thinks of a key then depends on how far apart they lie along each axis, never on where in the tile.
Mistake of the source: no positions, so that a bin could not tell the token above it from one at the tile's edge.

Shapes: B tiles, Y x X places, H heads, E channels of a head (a multiple of 4).
"""

from __future__ import annotations

import torch
from torch import Tensor


def waves(channels: int, shortest_um: float, longest_um: float, device: torch.device | str | None = None) -> Tensor:
    """(E / 4,) angular frequencies in radians per micrometre, their wavelengths spread evenly in logarithm."""
    count = channels // 4
    steps = torch.linspace(0, 1, count, device=device) if count > 1 else torch.zeros(1, device=device)
    return 2 * torch.pi / (shortest_um * (longest_um / shortest_um) ** steps)


def turned(x_BYXHE: Tensor, rows_um: Tensor, cols_um: Tensor, waves_per_um: Tensor) -> Tensor:
    """Turn half of the channels by the rows' places and the other half by the columns'.

    Args:
        x_BYXHE: Queries or keys.
        rows_um: (Y,) places.
        cols_um: (X,) places.
        waves_per_um: (E / 4,) from `waves`.
    """
    by_row, by_col = x_BYXHE.chunk(2, -1)
    down = (rows_um[:, None] * waves_per_um)[:, None, None]  # (Y, 1, 1, E / 4): all columns and heads alike
    right = (cols_um[:, None] * waves_per_um)[:, None]  # (X, 1, E / 4)
    return torch.cat([_turn(by_row, down), _turn(by_col, right)], -1)


def _turn(x: Tensor, angle: Tensor) -> Tensor:
    cosine, sine = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    first, second = x.chunk(2, -1)
    return torch.cat([first * cosine - second * sine, first * sine + second * cosine], -1)
