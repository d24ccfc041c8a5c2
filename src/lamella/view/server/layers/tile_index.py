"""Which of many boxes lies under each pixel of a tile: tiles of a slide, spots, bins."""

from __future__ import annotations

import numpy as np

from lamella.geometry import Box

# Pixels that are painted at once: boxes that overlap many times over would else fill the memory.
_AT_ONCE = 2**22


def index_under(
    bounds_px0: np.ndarray, box_px0: Box, width_px: int, height_px: int, *, disks: bool = False
) -> np.ndarray | None:
    """The number of the box that covers the centre of each of a tile's pixels; of several the last one.

    A box smaller than a pixel takes the pixel that its centre falls into, unless another covers that: far out, spots
    with gaps between them stay visible.

    Args:
        bounds_px0: (N, 4) x0, y0, x1, y1 in level-0 pixels.
        box_px0: The tile.
        width_px: Of the tile.
        height_px: Of the tile.
        disks: Each is the ellipse in its box.

    Returns:
        (height_px, width_px) int64, -1 where there is none; None where no box touches the tile.
    """
    near = touching(bounds_px0, box_px0)
    if not len(near):
        return None
    out = np.full((height_px, width_px), -1, np.int64)
    boxes = bounds_px0[near]
    left, right, narrow = _covered(boxes[:, 0] - box_px0.x0, boxes[:, 2] - box_px0.x0, width_px / box_px0.width)
    top, bottom, low = _covered(boxes[:, 1] - box_px0.y0, boxes[:, 3] - box_px0.y0, height_px / box_px0.height)
    across = [edges.clip(0, width_px) for edges in (left, right)]
    down = [edges.clip(0, height_px) for edges in (top, bottom)]
    spans = np.stack([*across, *down])
    # Those that only stand in for themselves come first, so that what truly covers a pixel wins.
    order = np.argsort(~(narrow | low), kind="stable")
    spans, near, boxes = spans[:, order], near[order], boxes[order]
    areas = (spans[1] - spans[0]).clip(0) * (spans[3] - spans[2]).clip(0)
    starts = np.flatnonzero(np.diff(np.concatenate([[-1], np.cumsum(areas) // _AT_ONCE])))
    for first, last in zip(starts, [*starts[1:], len(areas)], strict=True):
        part = slice(first, last)
        rows, columns, owners = _pixels(spans[:, part], areas[part])
        if disks:
            inside = _in_disk(boxes[part][owners], rows, columns, box_px0, width_px, height_px)
            rows, columns, owners = rows[inside], columns[inside], owners[inside]
        out[rows, columns] = near[part][owners]
    return out


def touching(bounds_px0: np.ndarray, box_px0: Box) -> np.ndarray:
    """Numbers of the boxes that touch a box."""
    x0, y0, x1, y1 = bounds_px0.T
    return np.flatnonzero((x0 < box_px0.x1) & (x1 >= box_px0.x0) & (y0 < box_px0.y1) & (y1 >= box_px0.y0))


def _covered(start: np.ndarray, stop: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First and behind-last pixel whose centres lie in [start, stop), and which of them had none and got one."""
    first = np.ceil(start * scale - 0.5).astype(np.int64)
    behind = np.ceil(stop * scale - 0.5).astype(np.int64)
    none = behind <= first
    middle = np.floor((start + stop) / 2 * scale).astype(np.int64)
    return np.where(none, middle, first), np.where(none, middle + 1, behind), none


def _pixels(spans: np.ndarray, areas: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, columns and owners of all pixels of all spans, span after span."""
    owners = np.repeat(np.arange(len(areas)), areas)
    within = np.arange(len(owners)) - np.repeat(np.cumsum(areas) - areas, areas)
    width = (spans[1] - spans[0])[owners]
    return spans[2][owners] + within // width, spans[0][owners] + within % width, owners


def _in_disk(
    boxes: np.ndarray, rows: np.ndarray, columns: np.ndarray, box_px0: Box, width_px: int, height_px: int
) -> np.ndarray:
    x = box_px0.x0 + (columns + 0.5) * box_px0.width / width_px
    y = box_px0.y0 + (rows + 0.5) * box_px0.height / height_px
    across, down = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    away = ((2 * x - boxes[:, 0] - boxes[:, 2]) / across) ** 2 + ((2 * y - boxes[:, 1] - boxes[:, 3]) / down) ** 2
    small = (across * width_px < 3 * box_px0.width) | (down * height_px < 3 * box_px0.height)  # of three pixels: a dot
    return (away <= 1) | small
