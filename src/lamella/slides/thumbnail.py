"""A whole slide at the spacing of its tissue mask, read piece by piece so that memory does not grow with the slide."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from lamella.geometry import Box, Frame, choose_level
from lamella.slides.slide import Slide

_TIE = 1e-9  # half a pixel more or less must not hang on the rounding of a division
_READ_PX = 2**22  # source pixels read at a time: 12 MB, and about 100 MB while they are averaged


def thumbnail_frame(slide: Frame, mpp: float) -> Frame:
    """The raster of about this spacing that covers a slide exactly."""
    width_um, height_um = slide.size_um
    width_px = max(1, round(width_um / mpp))
    # The rows follow the columns' exact spacing, so that any run of rows read at it has as many pixels; ties go down.
    return slide.resized(width_px, max(1, math.ceil(height_um * width_px / width_um - 0.5 - _TIE)))


def read_thumbnail(slide: Slide, frame: Frame) -> np.ndarray:
    """(H, W, 3) uint8: the whole slide on `frame`; holds 3 bytes for each of its pixels and one piece of the slide.

    Args:
        slide: The slide.
        frame: From `thumbnail_frame`.

    Raises:
        SlideError: The slide's pixels cannot be decoded.
    """
    picture = np.empty((frame.height_px, frame.width_px, 3), np.uint8)
    for rows, columns, box_px0 in _pieces(slide, frame):
        picture[rows, columns] = slide.read(box_px0, frame.mpp_x * (1 + _TIE)).pixels
    return picture


def _pieces(slide: Slide, frame: Frame) -> Iterator[tuple[slice, slice, Box]]:
    """Cut the slide into pieces of about `_READ_PX` pixels of the level that will be read."""
    level = slide.levels[choose_level([level.mpp for level in slide.levels], frame.mpp_x).level]
    side = max(1, int(_READ_PX**0.5 / max(1.0, frame.mpp_x / level.mpp)))
    for top in range(0, frame.height_px, side):
        bottom = min(frame.height_px, top + side)
        for left in range(0, frame.width_px, side):
            right = min(frame.width_px, left + side)
            yield slice(top, bottom), slice(left, right), frame.box_in(slide.frame, Box(left, top, right, bottom))
