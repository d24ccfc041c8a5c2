"""Specks and pinholes of a mask."""

from __future__ import annotations

import numpy as np
from scipy import ndimage


def tidied(mask: np.ndarray, share: float) -> np.ndarray:
    """Leave out pieces, and fill holes, that are smaller than a share of the mask; the largest piece always stays.

    Pieces hang together by their sides; so do holes, and a hole that reaches the edge of the picture is none.

    Args:
        mask: (H, W) bool.
        share: 0 changes nothing.
    """
    if share <= 0 or not mask.any():
        return mask
    least = share * mask.sum()
    labels, count = ndimage.label(mask)
    areas = np.bincount(labels.reshape(-1), minlength=count + 1)
    areas[0] = 0
    kept: np.ndarray = areas >= min(least, areas.max())
    kept[0] = False
    result = kept[labels]
    holes = ndimage.binary_fill_holes(result) & ~result
    labels, count = ndimage.label(holes)
    small = np.bincount(labels.reshape(-1), minlength=count + 1) < least
    small[0] = False
    return np.asarray(result | small[labels])
