"""Connected pieces of masks."""

from __future__ import annotations

import numpy as np
from scipy import ndimage


def without_small(mask: np.ndarray, min_px: float, structure: np.ndarray | None = None) -> np.ndarray:
    """The connected pieces of a (H, W) bool mask that have at least `min_px` pixels.

    Args:
        mask: The mask.
        min_px: Fewest pixels of a piece that is kept.
        structure: Which neighbours connect; the four nearest by default.
    """
    labels, _ = ndimage.label(mask, structure)
    kept = np.bincount(labels.ravel()) >= min_px
    kept[0] = False
    return kept[labels]


def touching(mask: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """The connected pieces of a (H, W) bool mask that hold at least one of the seeds, (H, W) bool."""
    labels, count = ndimage.label(mask)
    kept = np.zeros(count + 1, bool)
    kept[labels[seeds]] = True
    kept[0] = False
    return kept[labels]
