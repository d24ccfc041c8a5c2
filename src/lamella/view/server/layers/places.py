"""Which pixel of a raster lies under each pixel of a tile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lamella.geometry import Box, Frame


@dataclass(frozen=True)
class Places:
    """Nearest pixels of a raster under a tile.

    Attributes:
        rows: (height_px,) int64 of the raster, -1 where the tile's row lies outside it.
        columns: (width_px,) int64, likewise.
    """

    rows: np.ndarray
    columns: np.ndarray

    @property
    def empty(self) -> bool:
        """Whether no pixel of the tile lies over the raster."""
        return not (self.rows >= 0).any() or not (self.columns >= 0).any()

    @property
    def window(self) -> tuple[slice, slice]:
        """The rows and columns of the raster that are needed; not of an empty one."""
        return _span(self.rows), _span(self.columns)

    def spread(self, window: np.ndarray, outside: float) -> np.ndarray:
        """The tile's values.

        Args:
            window: (..., h, w) what `window` names.
            outside: Value where the tile does not lie over the raster.

        Returns:
            (..., height_px, width_px) of the window's type.
        """
        rows, columns = self.window
        across = np.take(window, (self.columns - columns.start).clip(0), axis=-1)
        values = np.take(across, (self.rows - rows.start).clip(0), axis=-2)
        values[..., self.rows < 0, :] = outside
        values[..., :, self.columns < 0] = outside
        return values


def places_under(box_px0: Box, width_px: int, height_px: int, slide: Frame, raster: Frame) -> Places:
    """The raster's pixels at the centres of a tile's pixels.

    Args:
        box_px0: The tile, in level-0 pixels of `slide`.
        width_px: Of the tile.
        height_px: Of the tile.
        slide: Level 0.
        raster: Laid over the slide by its micrometres per pixel; may be smaller or larger than it.
    """
    box = slide.box_in(raster, box_px0)
    columns = _nearest(box.x0, box.x1, width_px, raster.width_px)
    return Places(_nearest(box.y0, box.y1, height_px, raster.height_px), columns)


def coarse_enough(frames: Sequence[Frame], box_px0: Box, width_px: int, height_px: int, slide: Frame) -> int:
    """The coarsest of a pyramid's levels (finest first) that is as fine as a tile's pixels; else the finest.

    A coarser one would show blocks where finer facts are known; a finer one only costs time.
    """
    box_um = slide.box_um(box_px0)
    mpp_x, mpp_y = box_um.width / width_px, box_um.height / height_px
    slack = 1 + 1e-6  # of rounding
    fine = (at for at, frame in enumerate(frames) if frame.mpp_x <= mpp_x * slack and frame.mpp_y <= mpp_y * slack)
    return max(fine, default=0)


def _nearest(start: float, stop: float, count: int, size: int) -> np.ndarray:
    at = np.floor(start + (np.arange(count) + 0.5) * (stop - start) / count).astype(np.int64)
    return np.where((at >= 0) & (at < size), at, -1)


def _span(numbers: np.ndarray) -> slice:
    inside = numbers[numbers >= 0]
    return slice(int(inside[0]), int(inside[-1]) + 1)
