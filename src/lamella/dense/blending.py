"""How the tiles of a dense model are laid over each other: window, overlap, turned copies.

A tile's edge knows less of its surroundings than its middle, so overlapping tiles are averaged with weights that fall
off from the middle. Weights are products of one weight for the row and one for the column.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from lamella.config import Settings

WindowName = Literal["gaussian", "hann", "constant"]
_SIGMA_SHARE = 1 / 8  # of the tile's side, as nnU-Net and MONAI have it
_ROUNDING = 1e-9  # of a pixel: a share such as 0.7 of 10 px must not come out as 6.999...


class BlendSettings(Settings):
    """How overlapping tiles become one map."""

    window: WindowName = "gaussian"
    """Weight of a tile's pixels: gaussian (sigma: an eighth of the side), hann, or constant."""
    overlap: Annotated[float, Field(ge=0, le=0.9)] = 0.25
    """Least share of a tile's side that its neighbour covers too; more means more tiles and softer seams."""
    tta: Literal["none", "flips", "d4"] = "none"
    """Each tile is also shown mirrored (flips: 4 times in all) or also turned (d4: 8 times); the maps are turned back
    and averaged."""


def window_1d(name: WindowName, length_px: int) -> np.ndarray:
    """(L,) float64 weights along one axis, symmetric, positive everywhere, 1 at the most."""
    centre = np.arange(length_px) + 0.5 - length_px / 2
    if name == "gaussian":
        return np.exp(-0.5 * (centre / (length_px * _SIGMA_SHARE)) ** 2)
    if name == "hann":
        return np.cos(np.pi * centre / length_px) ** 2
    return np.ones(length_px)


def window(name: WindowName, side_px: int) -> Tensor:
    """(L, L) float32 weights of a tile's pixels, positive everywhere."""
    line = window_1d(name, side_px)
    return torch.from_numpy(np.outer(line, line).astype(np.float32))


def starts(length_px: int, side_px: int, overlap: float) -> np.ndarray:
    """(N,) int64: where tiles start along an axis. As few as the overlap allows, evenly spread, flush with both ends.

    Evenly (as nnU-Net does), because a last tile pushed back over its neighbour would overlap it by almost a whole
    tile, and the rows of an overlap are what must be held in memory. An axis shorter than a tile has one that reaches
    over its end.
    """
    if length_px <= side_px:
        return np.zeros(1, np.int64)
    step_px = max(1, int(side_px * (1 - overlap) + _ROUNDING))
    last = -(-(length_px - side_px) // step_px)
    return (np.arange(last + 1) * (length_px - side_px) * 2 + last) // (2 * last)  # rounded to whole pixels
