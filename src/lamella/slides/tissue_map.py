"""How much of a box is tissue: a mask laid over its slide, asked for exact area fractions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lamella.geometry import Box, Frame


@dataclass(frozen=True, eq=False)
class TissueMap:
    """A tissue mask laid over its slide. Keep it: the first question builds an integral image (4 bytes a pixel)."""

    mask: np.ndarray
    """(H, W) bool."""
    frame: Frame

    def fraction(self, box_um: Box) -> float:
        """Exact share of tissue in one box."""
        return float(self.fractions(np.array([[box_um.x0, box_um.y0, box_um.x1, box_um.y1]]))[0])

    def fractions(self, boxes_um: np.ndarray) -> np.ndarray:
        """Exact share of tissue in each box; what lies outside the mask counts as no tissue.

        Args:
            boxes_um: (N, 4) x0, y0, x1, y1 in micrometres of the slide, none of them empty.

        Returns:
            (N,) float64 in 0..1.
        """
        boxes = np.asarray(boxes_um, np.float64)
        height, width = self.mask.shape
        (left, left_part), (right, right_part) = (_cells(boxes[:, i] / self.frame.mpp_x, width) for i in (0, 2))
        (top, top_part), (bottom, bottom_part) = (_cells(boxes[:, i] / self.frame.mpp_y, height) for i in (1, 3))
        sums = self._sums

        def along(row: np.ndarray) -> np.ndarray:
            """Tissue above an integral-image row, between the left and the right edge."""
            to_right = sums[row, right] * (1 - right_part) + sums[row, right + 1] * right_part
            return to_right - (sums[row, left] * (1 - left_part) + sums[row, left + 1] * left_part)

        tissue = along(bottom) * (1 - bottom_part) + along(bottom + 1) * bottom_part
        tissue -= along(top) * (1 - top_part) + along(top + 1) * top_part
        return self._share(tissue, boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])

    def grid_fractions(self, x0_um: np.ndarray, y0_um: np.ndarray, width_um: float, height_um: float) -> np.ndarray:
        """Exact share of tissue in boxes of one size, at every pair of an x0 and a y0.

        The same as `fractions` on all pairs, but each axis is interpolated once.

        Args:
            x0_um: (X,) left edges in micrometres.
            y0_um: (Y,) top edges in micrometres.
            width_um: Width of every box.
            height_um: Height of every box.

        Returns:
            (Y, X) float64 in 0..1.
        """
        height, width = self.mask.shape
        (left, left_part), (right, right_part) = (
            _cells((x0_um + shift) / self.frame.mpp_x, width) for shift in (0.0, width_um)
        )
        (top, top_part), (bottom, bottom_part) = (
            _cells((y0_um + shift) / self.frame.mpp_y, height) for shift in (0.0, height_um)
        )
        first = int(left.min())
        columns = self._sums[:, first : int(right.max()) + 2]
        bands = columns[bottom] * (1 - bottom_part)[:, None] + columns[bottom + 1] * bottom_part[:, None]
        bands -= columns[top] * (1 - top_part)[:, None] + columns[top + 1] * top_part[:, None]
        steps = np.diff(bands, axis=1)
        tissue = bands[:, right - first] + steps[:, right - first] * right_part
        tissue -= bands[:, left - first] + steps[:, left - first] * left_part
        return self._share(tissue, width_um, height_um)

    @cached_property
    def _sums(self) -> np.ndarray:
        """(H + 1, W + 1): number of tissue pixels above and left of each pixel corner.

        A mask is constant inside a pixel, so a bilinear look-up at a fractional corner is the exact area.
        """
        height, width = self.mask.shape
        sums = np.zeros((height + 1, width + 1), np.int32)  # masks hold at most 2**26 pixels
        np.cumsum(self.mask, axis=1, dtype=np.int32, out=sums[1:, 1:])
        for row in range(2, height + 1):  # row by row: numpy's sum down the columns takes five times as long
            sums[row] += sums[row - 1]
        return sums

    def _share(self, tissue_px2: np.ndarray, width_um: np.ndarray | float, height_um: np.ndarray | float) -> np.ndarray:
        area_px2 = (width_um / self.frame.mpp_x) * (height_um / self.frame.mpp_y)
        return np.clip(tissue_px2 / area_px2, 0.0, 1.0)  # the clip takes off rounding of about 1e-10


def _cells(position_px: np.ndarray, length_px: int) -> tuple[np.ndarray, np.ndarray]:
    """The pixel that each position falls into and how far; positions outside go to the nearer end."""
    inside = np.clip(position_px, 0.0, length_px)
    cell = np.minimum(inside.astype(np.int64), length_px - 1)
    return cell, inside - cell
