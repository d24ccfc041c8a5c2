"""Closing and opening of the classes of a label map, with a square kernel.

What lies beyond the raster, and what nobody looked at, is unknown: closing takes it for nothing, opening for more of
the same, so that neither changes a class because an edge cuts it.

Shapes: Y x X pixels.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import correlate1d

from lamella.formats.label_values import NOT_LABELLED


def closed(labels_YX: np.ndarray, channels: int, background: int | None, kernel_px: int) -> np.ndarray:
    """Fill the gaps of each class that the kernel does not fit into.

    A class takes pixels of the background only, and the first class wins where several could. Where there is no
    background, a class takes pixels of those behind it in the order of the channels.

    Args:
        labels_YX: uint8, channels or NOT_LABELLED.
        channels: How many there are.
        background: The channel that is none of the classes, or None.
        kernel_px: Side of the square, odd.
    """
    filled = labels_YX.copy()
    radius = kernel_px // 2
    for value in _classes(labels_YX, channels, background):
        own = np.pad(labels_YX == value, radius)
        gained = _eroded(_dilated(own, kernel_px), kernel_px)[_inner(own, radius)]
        gained &= labels_YX == background if background is not None else labels_YX != NOT_LABELLED
        gained &= filled == labels_YX  # not taken by a class before this one
        if background is None:
            gained &= labels_YX > value
        filled[gained] = value
    return filled


def opened(labels_YX: np.ndarray, channels: int, background: int | None, kernel_px: int) -> np.ndarray:
    """Remove from each class what the kernel does not fit into; the background is left as it is.

    A removed pixel takes the other channel that most of the kernel around it has kept, the first one among equals.
    Where no other was kept it is background, or stays as it was if there is none.

    Args:
        labels_YX: uint8, channels or NOT_LABELLED.
        channels: How many there are.
        background: The channel that is none of the classes, or None.
        kernel_px: Side of the square, odd.
    """
    radius = kernel_px // 2
    around = np.pad(labels_YX, radius, constant_values=NOT_LABELLED)
    inner = _inner(around, radius)
    removed = np.zeros(labels_YX.shape, bool)
    for value in _classes(labels_YX, channels, background):
        own = around == value
        kept = _dilated(_eroded(own | (around == NOT_LABELLED), kernel_px), kernel_px)
        removed |= (own & ~kept)[inner]
    cut = labels_YX.copy()
    if not removed.any():
        return cut
    if background is not None:
        cut[removed] = background
    was = labels_YX[removed]
    becomes, most = cut[removed], np.zeros(len(was), np.int32)
    for value in range(channels):
        count = _counted((labels_YX == value) & ~removed, kernel_px)[removed]
        more = (count > most) & (was != value)
        becomes[more], most[more] = value, count[more]
    cut[removed] = becomes
    return cut


def _classes(labels_YX: np.ndarray, channels: int, background: int | None) -> list[int]:
    """Those that occur, without the background."""
    there = np.bincount(labels_YX.reshape(-1), minlength=256) > 0
    return [value for value in range(channels) if value != background and there[value]]


def _inner(padded: np.ndarray, radius: int) -> tuple[slice, slice]:
    height, width = padded.shape
    return slice(radius, height - radius), slice(radius, width - radius)


def _dilated(mask: np.ndarray, kernel_px: int) -> np.ndarray:
    """Beyond the array is nothing."""
    return spread(spread(mask, kernel_px, axis=0), kernel_px, axis=1)


def _eroded(mask: np.ndarray, kernel_px: int) -> np.ndarray:
    """Beyond the array counts as set."""
    return ~_dilated(~mask, kernel_px)


def spread(mask: np.ndarray, kernel_px: int, axis: int) -> np.ndarray:
    """Whether any of the `kernel_px` (odd) pixels around each along an axis is set; beyond the array is nothing.

    By doubling: an or of two neighbouring stretches is one of twice the length. A tenth of the time of scipy's filters.
    """
    radius = kernel_px // 2
    wide = np.pad(mask, [(radius, radius) if each == axis else (0, 0) for each in (0, 1)])
    length = 1
    while length < kernel_px:
        step = min(length, kernel_px - length)
        wide = wide[step:] | wide[:-step] if axis == 0 else wide[:, step:] | wide[:, :-step]
        length += step
    return wide


def _counted(mask: np.ndarray, kernel_px: int) -> np.ndarray:
    """int32: set pixels of the kernel around each pixel."""
    counts = mask.astype(np.int32)
    for axis in (0, 1):
        counts = correlate1d(counts, np.ones(kernel_px, np.int32), axis=axis, mode="constant")
    return counts
