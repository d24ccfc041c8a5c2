"""How much of each bin lies under a spot's disk."""

from __future__ import annotations

import numpy as np


def disk_shares(bins: int, bin_um: float, diameter_um: float) -> np.ndarray:
    """(bins, bins) float32: the exact share of each bin under a disk about the middle of the tile.

    The shares add up to the disk's area in bins wherever the tile covers it. The area of a disk above and left of a
    corner is an integral with a closed form, and a square's share is the four corners' difference.

    Args:
        bins: Along the tile's side.
        bin_um: Side of a bin.
        diameter_um: Of the disk.
    """
    radius = diameter_um / 2 / bin_um
    edges = np.arange(bins + 1) - bins / 2
    quadrant = _area(edges[:, None], edges[None, :], radius)
    shares = quadrant[1:, 1:] - quadrant[:-1, 1:] - quadrant[1:, :-1] + quadrant[:-1, :-1]
    return np.clip(shares, 0, 1).astype(np.float32)


def _area(y: np.ndarray, x: np.ndarray, radius: float) -> np.ndarray:
    """Signed area of the disk inside the rectangle from the origin to (x, y): odd in both, so differences add up."""
    width, height = np.broadcast_arrays(np.minimum(np.abs(x), radius), np.minimum(np.abs(y), radius))
    # Up to `bend` the rectangle's upper side lies inside the disk, beyond it the circle is lower.
    bend = np.minimum(width, np.sqrt(np.maximum(radius**2 - height**2, 0)))
    area = height * bend + _under_circle(width, radius) - _under_circle(bend, radius)
    return np.sign(x) * np.sign(y) * area


def _under_circle(x: np.ndarray, radius: float) -> np.ndarray:
    """The integral of sqrt(radius^2 - t^2) from 0 to x."""
    ratio = np.clip(x / radius, -1, 1)
    return (x * np.sqrt(np.maximum(radius**2 - x**2, 0)) + radius**2 * np.arcsin(ratio)) / 2
