"""Rasters at half their resolution: labels by majority, numbers by mean. Odd last rows and columns stand for two."""

from __future__ import annotations

import numpy as np


def majority_halved(labels: np.ndarray) -> np.ndarray:
    """The most frequent of each 2 x 2 labels; among equals the first one, row by row. Labels are never averaged.

    Args:
        labels: (H, W) integers.

    Returns:
        (ceil(H / 2), ceil(W / 2)) of the same type.
    """
    a, b, c, d = _quarters(labels)
    # Only where a is alone can another label have the majority, and only as a pair among b, c and d.
    alone = (a != b) & (a != c) & (a != d)
    pair = np.where((b == c) | (b == d), b, np.where(c == d, c, a))
    return np.where(alone, pair, a)


def mean_halved(values: np.ndarray) -> np.ndarray:
    """The mean of each 2 x 2 values, whole numbers rounded half up, NaN left out unless all four are.

    Args:
        values: (..., H, W) uint8 or floats.

    Returns:
        (..., ceil(H / 2), ceil(W / 2)) of the same type.
    """
    quarters = _quarters(values)
    if values.dtype == np.uint8:
        total = np.full(quarters[0].shape, 2, np.uint16)
        for quarter in quarters:
            total += quarter
        return (total >> 2).astype(np.uint8)
    known = np.zeros(quarters[0].shape, np.float32)
    sums = np.zeros(quarters[0].shape, np.float32)
    for quarter in quarters:
        here = ~np.isnan(quarter)
        known += here
        sums += np.where(here, quarter, 0).astype(np.float32)
    return np.where(known > 0, sums / np.maximum(known, 1), np.nan).astype(values.dtype)


def _quarters(raster: np.ndarray) -> list[np.ndarray]:
    """Upper left, upper right, lower left, lower right of each 2 x 2."""
    height, width = raster.shape[-2:]
    if height % 2 or width % 2:
        raster = np.pad(raster, [(0, 0)] * (raster.ndim - 2) + [(0, height % 2), (0, width % 2)], mode="edge")
    return [raster[..., row::2, column::2] for row in (0, 1) for column in (0, 1)]
