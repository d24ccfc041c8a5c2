"""What lies outside the tissue's mask is taken out of a prediction, though a tile on tissue showed it.

Shapes: C channels, Y x X pixels of a finished block.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lamella.dense.mosaic import Taker
from lamella.geometry import Frame
from lamella.slides.tissue_map import TissueMap


class InsideTissue:
    """Hands on what it takes, as if nobody had looked where the middle of a pixel is no tissue.

    Args:
        taker: Gets the blocks.
        tissue: Of the slide.
        frame: The blocks' raster laid over the slide.
    """

    def __init__(self, taker: Taker, tissue: TissueMap, frame: Frame) -> None:
        self._taker, self._mask = taker, tissue.mask
        self._rows = _cells(frame.height_px, frame.mpp_y / tissue.frame.mpp_y, tissue.mask.shape[0])
        self._columns = _cells(frame.width_px, frame.mpp_x / tissue.frame.mpp_x, tissue.mask.shape[1])

    def take(self, y: int, x: int, block_CYX: Tensor, seen_YX: Tensor | None) -> None:
        rows, columns = self._rows[y : y + block_CYX.shape[1]], self._columns[x : x + block_CYX.shape[2]]
        block = block_CYX[:, : len(rows), : len(columns)]  # tiles may reach over the raster
        inside = torch.from_numpy(self._mask[rows[:, None], columns[None]]).to(block.device)
        if seen_YX is not None:
            inside &= seen_YX[: len(rows), : len(columns)]
        self._taker.take(y, x, block.mul_(inside), inside)

    def rows_finished(self, y: int) -> None:
        self._taker.rows_finished(y)


def _cells(length: int, scale: float, cells: int) -> np.ndarray:
    """The mask's row or column under the middle of each pixel."""
    return ((np.arange(length) + 0.5) * scale).astype(np.int64).clip(0, cells - 1)
