"""Pixels and truth of a bag's tiles.

Shapes: n rows of a bag's tiles, T = tile_px.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lamella.data.bag_truth import sampled, truth_of, truth_rows
from lamella.data.bags import Bag, WeakStudy
from lamella.geometry import Box
from lamella.slides.slide import Slide, SlideCache, open_slide

__all__ = ["read_tiles", "read_truth", "tile_boxes_px0", "truth_of", "truth_rows"]


def tile_boxes_px0(study: WeakStudy, bag: Bag, rows: Sequence[int] | np.ndarray) -> list[Box]:
    """The boxes of these tiles in level-0 pixels."""
    side_x, side_y = study.fov_um / bag.frame.mpp_x, study.fov_um / bag.frame.mpp_y
    return [Box(x, y, x + side_x, y + side_y) for x, y in bag.corners_px0[np.asarray(rows, np.int64)].tolist()]


def read_tiles(
    study: WeakStudy,
    bag: Bag,
    rows: Sequence[int] | np.ndarray,
    *,
    threads: int = 2,
    slides: SlideCache | None = None,
    mpp: float | None = None,
) -> np.ndarray:
    """The pixels of some tiles of a bag, in the order of `rows`.

    Args:
        study: States the tiles' size.
        bag: The slide.
        rows: Which tiles, by their place in `bag.corners_px0`.
        threads: How many decode at once.
        slides: Keeps slides open between calls; without it the slide is opened and closed. Not for several threads.
        mpp: Another spacing around the same centres, with as many pixels; None: the study's.

    Returns:
        (n, T, T, 3) uint8. What lies off the slide is white, as everywhere in Lamella.

    Raises:
        SlideError: The slide cannot be read; nothing is put in its place.
    """
    if not len(rows):
        return np.empty((0, study.tile_px, study.tile_px, 3), np.uint8)
    boxes = tile_boxes_px0(study, bag, rows)
    if mpp is not None and mpp != study.mpp:
        scale = mpp / study.mpp
        boxes = [Box.around(*box.center, box.width * scale, box.height * scale) for box in boxes]
    spacing = study.mpp if mpp is None else mpp

    def read(slide: Slide) -> np.ndarray:
        return slide.read_many(boxes, spacing, threads=threads)

    if slides is not None:
        return read(slides.get(bag.wsi_path, bag.mpp_stated))
    with open_slide(bag.wsi_path, mpp=bag.mpp_stated) as slide:
        return read(slide)


def read_truth(study: WeakStudy, bag: Bag, rows: Sequence[int] | np.ndarray) -> np.ndarray:
    """The truth of some tiles: (n, T, T) uint8 channels of the study, or NOT_LABELLED.

    Raises:
        LamellaError: The bag has no truth, or it cannot be read.
    """
    side = study.tile_px
    out = np.empty((len(rows), side, side), np.uint8)
    offsets_um = (np.arange(side) + 0.5) * study.mpp
    for place, row in enumerate(np.asarray(rows, np.int64)):
        x_um, y_um = bag.corners_px0[row] * (bag.frame.mpp_x, bag.frame.mpp_y)
        out[place] = sampled(study, bag, y_um + offsets_um, x_um + offsets_um)
    return out
