"""Draws what people drew as a mask of classes over a part of a slide."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from lamella.data.drawn import Drawn, area_px2
from lamella.formats.geojson import Polygon
from lamella.formats.label_values import NOT_LABELLED
from lamella.geometry import Box
from lamella.slides.polygons import fill_polygon

_NONE = -1


def drawn_mask(
    drawn: Drawn,
    box_px0: Box,
    size_px: tuple[int, int],
    values: Mapping[str, int],
    *,
    smaller_wins: bool,
) -> tuple[np.ndarray, Counter[tuple[str, str]]]:
    """The classes of an image's pixels; a pixel is of the object that holds its centre.

    Args:
        drawn: By one author.
        box_px0: The image's place on the slide.
        size_px: Its width and height.
        values: Class -> value.
        smaller_wins: Where two classes overlap, the smaller object counts; else nothing does.

    Returns:
        (H, W) uint8 with NOT_LABELLED where nobody said anything; and the pixels where two classes overlap.
    """
    width, height = size_px
    picture = _Picture(box_px0, width, height)
    labels = np.full((height, width), _NONE, np.int16)
    disputed = np.zeros((height, width), bool)
    overlaps: Counter[tuple[str, str]] = Counter()
    names = {value: name for name, value in values.items()}
    # From large to small, so that the smaller lies on top.
    for name, polygons in sorted(drawn.objects, key=lambda each: -area_px2(each[1])):
        for window, piece in picture.filled(polygons):
            under = labels[window]
            other = piece & (under != _NONE) & (under != values[name])
            for value in np.unique(under[other]):
                one, two = sorted((name, names[int(value)]))
                overlaps[one, two] += int((under[other] == value).sum())
            disputed[window] |= other
            under[piece] = values[name]
    mask = np.full((height, width), NOT_LABELLED, np.uint8)
    for window, piece in picture.filled(drawn.regions):
        mask[window][piece] = 0
    mask[labels != _NONE] = labels[labels != _NONE]
    if not smaller_wins:
        mask[disputed] = NOT_LABELLED
    for window, piece in picture.filled(drawn.ignored):
        mask[window][piece] = NOT_LABELLED
    return mask, overlaps


class _Picture:
    """The pixels of an image over a box of the slide."""

    def __init__(self, box_px0: Box, width: int, height: int) -> None:
        self.width, self.height = width, height
        self._origin = np.array([box_px0.x0, box_px0.y0])
        self._px_per_px0 = np.array([width / box_px0.width, height / box_px0.height])

    def filled(self, polygons: Sequence[Polygon]) -> list[tuple[tuple[slice, slice], np.ndarray]]:
        """The window of each polygon that is in the picture, and its pixels there."""
        found = []
        for rings in polygons:
            own = [(np.asarray(ring) - self._origin) * self._px_per_px0 for ring in rings]
            left, top = np.floor(own[0].min(axis=0)).clip(0, (self.width, self.height)).astype(int)
            right, bottom = np.ceil(own[0].max(axis=0)).clip(0, (self.width, self.height)).astype(int)
            if left >= right or top >= bottom:
                continue
            piece = np.zeros((bottom - top, right - left), bool)
            fill_polygon(piece, [ring - [left, top] for ring in own])
            found.append(((slice(top, bottom), slice(left, right)), piece))
        return found
