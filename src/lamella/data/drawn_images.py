"""Which parts of a slide become images: around all that was drawn, cut where it is large, joined where it is near."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from lamella.formats.geojson import Polygon
from lamella.geometry import Box, Frame


def image_boxes(polygons: Sequence[Polygon], slide: Frame, mpp: float, *, context_um: float, most_px: int) -> list[Box]:
    """Boxes in whole level-0 pixels, from top to bottom, that hold all of the polygons that lies on the slide.

    Args:
        polygons: Of one author, in level-0 pixels.
        slide: The slide's level-0 frame.
        mpp: Micrometres per pixel of the images.
        context_um: Of the slide around each polygon.
        most_px: Longest side of an image.
    """
    most_um = most_px * mpp
    boxes = np.array(
        [
            [box.x0, box.y0, box.x1, box.y1]
            for polygon in polygons
            for box in _cells(_bounds(polygon).intersection(slide.bounds_px), slide, max(1.0, most_um - 2 * context_um))
        ]
    ).reshape(-1, 4)
    margin = np.array([context_um / slide.mpp_x, context_um / slide.mpp_y])
    boxes = np.concatenate([boxes[:, :2] - margin, boxes[:, 2:] + margin], axis=1)
    sides = np.array([slide.width_px, slide.height_px] * 2)
    boxes = np.unique(boxes.clip(0, sides), axis=0)
    most_px0 = np.array([most_um / slide.mpp_x, most_um / slide.mpp_y])
    joined = _joined(boxes, most_px0)
    whole = np.concatenate([np.floor(joined[:, :2]), np.minimum(np.ceil(joined[:, 2:]), sides[:2])], axis=1)
    whole = np.unique(whole, axis=0)
    return [Box(*map(float, box)) for box in whole[np.lexsort((whole[:, 0], whole[:, 1]))]]


def _bounds(polygon: Polygon) -> Box:
    outer = np.asarray(polygon[0])
    return Box(*map(float, outer.min(axis=0)), *map(float, outer.max(axis=0)))


def _cells(box_px0: Box, slide: Frame, most_um: float) -> Iterator[Box]:
    """Even parts of a box whose sides are at most so long; none of a box that lies beside the slide."""
    if box_px0.width <= 0 or box_px0.height <= 0:
        return
    box_um = slide.box_um(box_px0)
    columns, rows = math.ceil(box_um.width / most_um), math.ceil(box_um.height / most_um)
    width, height = box_px0.width / columns, box_px0.height / rows
    for row in range(rows):
        for column in range(columns):
            yield Box(0, 0, width, height).shifted(box_px0.x0 + column * width, box_px0.y0 + row * height)


def _joined(boxes_N4: np.ndarray, most_px0: np.ndarray) -> np.ndarray:
    """Boxes that overlap become one, unless it would be too large: the same tissue is then in two images."""
    waiting = list(boxes_N4)
    done: list[np.ndarray] = []
    while waiting:
        box = waiting.pop()
        while True:
            others = np.array(waiting).reshape(-1, 4)
            union = np.concatenate([np.minimum(others[:, :2], box[:2]), np.maximum(others[:, 2:], box[2:])], axis=1)
            meets = ((others[:, :2] < box[2:]) & (others[:, 2:] > box[:2])).all(axis=1)
            fits = meets & (union[:, 2:] - union[:, :2] <= most_px0).all(axis=1)
            if not fits.any():
                break
            nearest = int(np.flatnonzero(fits)[0])
            box = union[nearest]
            del waiting[nearest]
        done.append(box)
    # A box that was done may lie inside one that grew later.
    found = np.array(done).reshape(-1, 4)
    inside = (found[:, None, :2] >= found[None, :, :2]) & (found[:, None, 2:] <= found[None, :, 2:])
    held = inside.all(axis=2) & ~np.eye(len(found), dtype=bool)
    return found[~held.any(axis=1)]
