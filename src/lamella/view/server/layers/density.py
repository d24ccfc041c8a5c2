"""How densely places lie, where they are too many or too small to be seen one by one."""

from __future__ import annotations

import math

import numpy as np

from lamella.geometry import Box, Frame

# Sides of a cell on the display: the finest in which places as dense as on average are this many. Fewer tell no density
# from chance; coarser ones than the last show nothing of the tissue.
_CELLS_PX, _PLACES_IN_CELL = (4, 8, 16, 32), 8
# Cells of the whole slide from which the range is taken: with so many places on average, and this many a side at most.
_PLACES_FOR_RANGE, _CELLS_ACROSS = 8, 128


def density_under(
    places_px0: np.ndarray, total: int, box_px0: Box, width_px: int, height_px: int, slide: Frame
) -> np.ndarray:
    """(height_px, width_px) places per mm2, in cells of the display; NaN in cells without any.

    Args:
        places_px0: (N, 2) of those near the tile at least.
        total: Of the whole slide, which decides how large the cells are: neighbouring tiles have the same.
        box_px0: The tile.
        width_px: Of the tile.
        height_px: Of the tile.
        slide: Level 0.
    """
    scale_x, scale_y = box_px0.width / width_px, box_px0.height / height_px
    average = total / _area_mm2(slide, slide.width_px, slide.height_px)
    areas = ((cell, _area_mm2(slide, cell * scale_x, cell * scale_y)) for cell in _CELLS_PX)
    enough = (cell for cell, area in areas if average * area >= _PLACES_IN_CELL)
    cell = next(enough, _CELLS_PX[-1])
    columns, rows = -(-width_px // cell), -(-height_px // cell)
    step_x, step_y = cell * scale_x, cell * scale_y
    cells = Box(box_px0.x0, box_px0.y0, box_px0.x0 + columns * step_x, box_px0.y0 + rows * step_y)
    counts = _counts(places_px0, cells, columns, rows)
    densities = np.where(counts > 0, counts / _area_mm2(slide, step_x, step_y), np.nan)
    return densities.repeat(cell, axis=0)[:height_px].repeat(cell, axis=1)[:, :width_px]


def densest(places_px0: np.ndarray, slide: Frame) -> float:
    """The 99th percentile of the slide's cells that hold any places, in places per mm2; 1 if there are none."""
    wanted = slide.bounds_px.area * _PLACES_FOR_RANGE / max(1, len(places_px0))
    longer = max(slide.width_px, slide.height_px)
    step = min(max(math.sqrt(wanted), longer / _CELLS_ACROSS), longer)
    columns, rows = -(-slide.width_px // step), -(-slide.height_px // step)
    counts = _counts(places_px0, Box(0, 0, columns * step, rows * step), int(columns), int(rows))
    if not counts.any():
        return 1.0
    return float(np.percentile(counts[counts > 0], 99) / _area_mm2(slide, step, step))


def _counts(places_px0: np.ndarray, box: Box, columns: int, rows: int) -> np.ndarray:
    column = np.floor((places_px0[:, 0] - box.x0) / box.width * columns).astype(np.int64)
    row = np.floor((places_px0[:, 1] - box.y0) / box.height * rows).astype(np.int64)
    inside = (column >= 0) & (column < columns) & (row >= 0) & (row < rows)
    counts = np.bincount(row[inside] * columns + column[inside], minlength=rows * columns)
    return counts.reshape(rows, columns)


def _area_mm2(slide: Frame, width_px0: float, height_px0: float) -> float:
    return slide.box_um(Box(0, 0, width_px0, height_px0)).area / 1e6
