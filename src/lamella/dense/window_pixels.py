"""Pixels of windows that may reach far over a slide's edge, without reading, or holding, what is not there."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from lamella.geometry import Box
from lamella.slides.slide import Slide
from lamella.slides.views import MAX_SOURCE_PX, PADDING_VALUE

# Of a pixel: a window that ends on the slide's edge up to rounding lies inside.
_ROUNDING = 1e-6
_BESIDE = 2


def read_windows(slide: Slide, boxes_px0: Sequence[Box], mpp: float, side_px: int, threads: int) -> np.ndarray:
    """(B, side, side, 3) uint8 of square boxes of `side_px * mpp` micrometres; white outside the slide.

    The same pixels as `Slide.read` gives. Windows inside the slide are read together; of the others only the part that
    is inside; and where a window needs very many pixels of the level that it is read from, piece by piece.

    Raises:
        SlideError: The pixels cannot be decoded.
    """
    out = np.empty((len(boxes_px0), side_px, side_px, 3), np.uint8)
    source_mpp = slide.levels[slide.choose_level(mpp).level].mpp
    small = (side_px * mpp / source_mpp) ** 2 <= MAX_SOURCE_PX
    alone = []
    for number, box_px0 in enumerate(boxes_px0):
        if not small or not slide.frame.bounds_px.contains(box_px0, _ROUNDING):
            alone.append(number)
    together = sorted({*range(len(boxes_px0))} - {*alone})
    if together:
        read = slide.read_many([boxes_px0[number] for number in together], mpp, threads=threads)
        out[together] = read
    for number in alone:
        _read_inside(slide, boxes_px0[number], mpp, out[number])
    return out


def _read_inside(slide: Slide, box_px0: Box, mpp: float, out_YXC: np.ndarray) -> None:
    """Fill one window; its pixels that have no part of the slide are not asked for."""
    out_YXC[...] = PADDING_VALUE
    side_px = len(out_YXC)
    columns = _touched(box_px0.x0, box_px0.x1, slide.frame.width_px, side_px)
    rows = _touched(box_px0.y0, box_px0.y1, slide.frame.height_px, side_px)
    if rows.stop <= rows.start or columns.stop <= columns.start:
        return
    step_x, step_y = box_px0.width / side_px, box_px0.height / side_px
    inside_px0 = Box(
        box_px0.x0 + columns.start * step_x,
        box_px0.y0 + rows.start * step_y,
        box_px0.x0 + columns.stop * step_x,
        box_px0.y0 + rows.stop * step_y,
    )
    out_YXC[rows, columns] = slide.read(inside_px0, mpp).pixels


def _touched(low_px0: float, high_px0: float, length_px0: int, side_px: int) -> slice:
    """The window's pixels that have any part of the slide, along one axis, and those beside them.

    Interpolated pixels look at their neighbours, which are white outside.
    """
    step = (high_px0 - low_px0) / side_px
    first = math.floor((0 - low_px0) / step) - _BESIDE
    last = math.ceil((length_px0 - low_px0) / step) + _BESIDE
    return slice(min(max(first, 0), side_px), max(min(last, side_px), 0))
