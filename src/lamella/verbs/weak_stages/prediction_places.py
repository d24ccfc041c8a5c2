"""Where stage 5 looks on a slide: the area that given tiles cover, in place of its tissue.

Shapes: N tiles.
"""

from __future__ import annotations

import numpy as np

from lamella.geometry import Frame
from lamella.slides.placing import check_inside
from lamella.slides.tissue_map import TissueMap

_MASK_PX = 4096  # longer side of a mask at the most: a slide's 100,000 pixels in steps of 25, a twelfth of a tile


def area_of_tiles(
    source: object, slide_id: str, corners_px0: np.ndarray, side_px0: tuple[float, float], frame: Frame
) -> TissueMap:
    """The area that tiles cover, as a mask over their slide.

    Tiles on a whole-pixel grid are covered exactly where their common step allows; otherwise their edges go to the
    nearest pixel of the mask, by half of `longer side / 4096` level-0 pixels at the most.

    Args:
        source: The file they are from, for errors.
        slide_id: Named in errors.
        corners_px0: (N, 2) x, y of the top-left corners in level-0 pixels; N may be 0.
        side_px0: Width and height of every tile in level-0 pixels.
        frame: Level 0 of the slide.

    Raises:
        SlideError: A tile lies off the slide: the file belongs to another one, or is in other pixels.
    """
    corners = np.asarray(corners_px0, np.float64).reshape(-1, 2)
    size = (frame.width_px, frame.height_px)
    check_inside(source, slide_id, corners, np.broadcast_to(side_px0, corners.shape), size)  # type: ignore[arg-type]
    step = _step(np.concatenate([corners, corners + side_px0]), size)
    width, height = (-(-length // step) for length in size)
    mask = np.zeros((height, width), bool)
    first = np.rint(corners / step).astype(np.int64).clip(0)
    last = np.rint((corners + side_px0) / step).astype(np.int64)
    last = np.maximum(last, first + 1)  # a tile smaller than a pixel of the mask is still looked at
    for (x0, y0), (x1, y1) in zip(first.tolist(), last.tolist(), strict=True):
        mask[y0:y1, x0:x1] = True
    # The mask's last row and column may reach over the slide by less than a step.
    return TissueMap(mask, Frame(width, height, frame.mpp_x * step, frame.mpp_y * step))


def _step(edges_px0: np.ndarray, size: tuple[int, int]) -> int:
    """Level-0 pixels of one pixel of the mask: the largest that all edges are multiples of, if the mask stays small."""
    least = -(-max(size) // _MASK_PX)
    whole = np.rint(edges_px0).astype(np.int64)
    common = int(np.gcd.reduce(whole, axis=None)) if len(whole) and np.array_equal(whole, edges_px0) else 0
    return max(least, common)
