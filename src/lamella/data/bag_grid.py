"""Tiles that cover all of a patch or region, without looking for tissue."""

from __future__ import annotations

import numpy as np

from lamella.errors import DatasetError
from lamella.geometry import Frame

# A length that misses a whole number by this much (in level-0 pixels, or steps) is rounding.
_ROUNDING_PX0 = 1e-6


def everywhere_corners(slide_id: str, frame: Frame, mpp: float, tile_px: int, overlap: float) -> np.ndarray:
    """(N, 2) float64 corners of tiles that cover a slide, row by row; they overlap more where they come out uneven.

    A side that is a tile up to half a pixel of it is one tile: patches were cut with spacings rounded to a few digits.

    Raises:
        DatasetError: The slide is smaller than a tile.
    """
    fov_um = mpp * tile_px
    starts = [
        _starts(length_px, fov_um / spacing, overlap, 0.5 * mpp / spacing)
        for length_px, spacing in ((frame.width_px, frame.mpp_x), (frame.height_px, frame.mpp_y))
    ]
    if not all(len(one) for one in starts):
        raise DatasetError(
            slide_id,
            f"it is {frame.width_px} x {frame.height_px} px of {frame.mpp:g} um, smaller than a tile of {tile_px} px "
            f"at {mpp:g} um",
            "Set a smaller data.tile_px or a finer data.mpp.",
        )
    return np.stack(np.meshgrid(*starts), axis=-1).reshape(-1, 2)


def _starts(length_px0: int, side_px0: float, overlap: float, slack_px0: float) -> np.ndarray:
    """Where tiles of one axis start, evenly spread from edge to edge; none where the axis is too short."""
    left_px0 = length_px0 - side_px0
    if left_px0 < -slack_px0:
        return np.zeros(0)
    if left_px0 <= slack_px0:
        return np.zeros(1)
    steps = int(np.ceil(left_px0 / (side_px0 * (1 - overlap)) - _ROUNDING_PX0))
    return np.floor(np.arange(steps + 1) * left_px0 / steps + _ROUNDING_PX0)
