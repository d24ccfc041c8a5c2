"""Where a model is least sure: tiles of a slide by how close its two most probable classes are, and by entropy.

A person's labels help most there (active learning by margin or entropy; Settles, Active Learning Literature Survey,
2009). Probabilities are read at a coarser level of the raster: one row of its tiles is in memory.

Shapes: C channels, R x K tiles of a grid, h x w pixels of a band.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lamella.formats.ome_zarr import StoredRaster
from lamella.geometry import Frame

_COARSEST = 2  # level read: means of 4 x 4 pixels, a sixteenth of the work
_LEAST_PX = 16  # pixels of a tile's side at the level that is read
_LOOKED_AT = 0.5  # least share of a tile that was looked at: less says little of it


@dataclass(frozen=True)
class Doubts:
    """Tiles of one slide, row by row.

    Attributes:
        corners_px0: (N, 2) float64 x, y of the top-left corners in level-0 pixels of the slide.
        fov_um: Side of a tile.
        margin: (N,) float64 mean over the tile of the largest minus the second probability: 0 is undecided.
        entropy: (N,) float64 mean entropy, as a share of that of C equal probabilities: 1 is undecided.
        likeliest: (N,) int64 the channel with the largest mean probability.
    """

    corners_px0: np.ndarray
    fov_um: float
    margin: np.ndarray
    entropy: np.ndarray
    likeliest: np.ndarray

    def __len__(self) -> int:
        return len(self.margin)


def tile_doubts(raster: StoredRaster, slide: Frame, tile_px: int) -> Doubts:
    """How sure a prediction is, tile by tile; tiles that were mostly not looked at are left out.

    Args:
        raster: Of probabilities, over the slide from its top-left corner.
        slide: Its level 0.
        tile_px: Side of a tile in pixels of the raster; tiles lie edge to edge.
    """
    level = 0
    while level < min(_COARSEST, len(raster.levels) - 1) and tile_px % 2 ** (level + 1) == 0:
        if tile_px // 2 ** (level + 1) < _LEAST_PX:
            break
        level += 1
    frame, side = raster.level_frame(level), tile_px // 2**level
    columns = -(-frame.width_px // side)
    found = [np.zeros((0, 6))]
    for y0, band_CYX in raster.bands(level, side):
        rows = _of_band(band_CYX, side, columns)
        corners = np.stack([np.arange(columns) * side, np.full(columns, y0)], axis=1)
        kept = rows[:, 0] >= _LOOKED_AT
        found.append(np.concatenate([corners, rows], axis=1)[kept])
    table = np.concatenate(found)
    x, y = frame.point_in(slide, table[:, 0], table[:, 1])  # type: ignore[arg-type]
    return Doubts(np.stack([x, y], axis=1), side * frame.mpp, table[:, 3], table[:, 4], table[:, 5].astype(np.int64))


def _of_band(band_CYX: np.ndarray, side: int, columns: int) -> np.ndarray:
    """(K, 4): share looked at, margin, entropy and likeliest channel of each tile of a row; NaN where nobody looked."""
    channels = len(band_CYX)
    found = np.full((columns, 4), np.nan)
    for column in range(columns):
        tile = band_CYX[:, :, column * side : (column + 1) * side].reshape(channels, -1).astype(np.float32)
        total = tile.sum(0)
        seen = total > 0
        # Of the whole tile: one that reaches over the raster's edge was looked at in part.
        found[column, 0] = seen.sum() / (side * side)
        if not seen.any():
            continue
        shares = tile[:, seen] / total[seen]
        found[column, 1:] = _margin(shares), _entropy(shares), shares.mean(1).argmax()
    return found


def _margin(shares_CN: np.ndarray) -> float:
    """Mean of the largest minus the second; of one channel alone 1."""
    if len(shares_CN) == 1:
        return 1.0
    top = np.partition(shares_CN, len(shares_CN) - 2, axis=0)[-2:]
    return float((top[1] - top[0]).mean())


def _entropy(shares_CN: np.ndarray) -> float:
    if len(shares_CN) == 1:
        return 0.0
    logs = np.log(np.where(shares_CN > 0, shares_CN, 1))
    entropy = -(shares_CN * logs).sum(0).mean() / np.log(len(shares_CN))
    return float(min(entropy, 1.0))  # rounding may lead past it
