"""All kinds of masks by name, and the masks of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from lamella.data.masks.draws import Draws
from lamella.data.masks.exact import (
    Block3dMaskSettings,
    BlockMaskSettings,
    Random3dMaskSettings,
    RandomMaskSettings,
)
from lamella.data.masks.mask import Grid, Masks
from lamella.data.masks.multiblock import MultiBlockMaskSettings
from lamella.data.masks.temporal import TemporalMaskSettings
from lamella.data.masks.tube import TubeMaskSettings

MaskSettings = Annotated[RandomMaskSettings | BlockMaskSettings | MultiBlockMaskSettings, Field(discriminator="name")]
"""Masks of images: random, block, multiblock."""
Mask3dSettings = Annotated[
    Random3dMaskSettings | Block3dMaskSettings | TubeMaskSettings | TemporalMaskSettings, Field(discriminator="name")
]
"""Masks of volumes and videos: random3d, block3d, tube, temporal."""

# Keeps the masks' random numbers apart from those of other uses of the same seed and position.
_USE = 0x6D61736B  # "mask"


def draw_masks(
    settings: MaskSettings | Mask3dSettings,
    grid: Grid,
    seed: int,
    positions: Sequence[int] | np.ndarray,
    *,
    number: int = 0,
) -> Masks:
    """One mask per sample: a pure function of (settings, grid, seed, position, number), whatever the others are.

    Args:
        settings: The kind of mask.
        grid: Tokens along (y, x), or (t or z, y, x).
        seed: Of the run.
        positions: Of the samples, counted from the start of training.
        number: Which of several masks of a sample.

    Raises:
        LamellaError: Such masks cannot leave anything to see on this grid.
        ValueError: The grid is not of the kind that these masks are for.
    """
    return settings.masks(Draws(seed, positions, _USE + number), grid)
