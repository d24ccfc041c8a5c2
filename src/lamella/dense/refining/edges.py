"""Boundaries of a label map smoothed, and nothing else.

Near a boundary each class is blurred by a Gaussian, and pixels take the class that is the strongest there. The source
(seeds/004, boundary refinement): distance to the boundary, Gaussian near it, a lower threshold there.

Shapes: Y x X pixels.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.ndimage import correlate1d

from lamella.dense.refining.morphology import spread
from lamella.dense.refining.settings import EdgeSettings
from lamella.formats.label_values import NOT_LABELLED

_REACH = 3  # standard deviations at which the Gaussian is cut


def edge_halo_px(settings: EdgeSettings) -> int:
    """How far a pixel's new label depends on others."""
    return max(_radius_px(settings), math.ceil(settings.width_px)) + 1


def smoothed_edges(labels_YX: np.ndarray, channels: int, background: int | None, settings: EdgeSettings) -> np.ndarray:
    """Pixels within `width_px` of a boundary take the strongest class of the blurred map.

    With a background, the strongest of the classes wins where all of them together have at least the threshold's
    share; without one, the strongest class wins. Equal ones: the first.

    Args:
        labels_YX: uint8, channels or NOT_LABELLED; the latter stays and has no say.
        channels: How many there are.
        background: The channel that is none of the classes, or None.
        settings: Width, Gaussian, threshold.
    """
    near = _near_boundary(labels_YX, settings.width_px)
    smooth = labels_YX.copy()
    if not near.any():
        return smooth
    weights = _gaussian(settings)
    seen = _blurred(labels_YX != NOT_LABELLED, weights)[near]
    best = np.full(len(seen), -1.0, np.float32)
    chosen = np.zeros(len(seen), np.uint8)
    total = np.zeros(len(seen), np.float32)
    for value in range(channels):
        mask = labels_YX == value
        if value == background or not mask.any():
            continue
        share = _blurred(mask, weights)[near]
        chosen[share > best] = value
        np.maximum(best, share, out=best)
        total += share
    if background is not None:
        chosen[total < np.float32(settings.threshold) * seen] = background
    smooth[near] = chosen
    return smooth


def _near_boundary(labels_YX: np.ndarray, width_px: float) -> np.ndarray:
    """Pixels whose centre lies at most `width_px` from that of a pixel that touches another class."""
    edge = np.zeros(labels_YX.shape, bool)
    seen = labels_YX != NOT_LABELLED
    for axis in (0, 1):
        one, other = [slice(None)] * 2, [slice(None)] * 2
        one[axis], other[axis] = slice(1, None), slice(None, -1)
        here, there = tuple(one), tuple(other)
        differ = (labels_YX[here] != labels_YX[there]) & seen[here] & seen[there]
        edge[here] |= differ
        edge[there] |= differ
    return _within(edge, width_px) & seen if edge.any() else edge


def _within(mask: np.ndarray, width_px: float) -> np.ndarray:
    """Pixels at most so far from a set one: rows of a disk, one above the other.

    A few pixels wide, this takes a tenth of the time of a distance transform.
    """
    near, height = np.zeros_like(mask), len(mask)
    for above in range(min(math.floor(width_px) + 1, height)):
        wide = spread(mask, 2 * math.floor(math.sqrt(width_px**2 - above**2)) + 1, axis=1)
        near[above:] |= wide[: height - above]
        near[: height - above] |= wide[above:]
    return near


def _radius_px(settings: EdgeSettings) -> int:
    return math.ceil(_REACH * settings.sigma_px)


def _gaussian(settings: EdgeSettings) -> np.ndarray:
    radius = _radius_px(settings)
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / settings.sigma_px) ** 2)
    return weights / weights.sum()


def _blurred(mask: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """float32; beyond the raster is nothing. Each pixel is summed in the same order, wherever a window begins."""
    values = mask.astype(np.float32)
    for axis in (0, 1):
        values = correlate1d(values, weights, axis=axis, mode="constant")
    return values
