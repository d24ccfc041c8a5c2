"""Gaussian filtering of scattered points in many dimensions, on a permutohedral lattice.

Each point gives its value to the d + 1 corners of the simplex around it, neighbouring corners are blurred along the
lattice's d + 1 directions, and each point reads its corners again. The lattice only has the corners that points touch.
Source: Adams, Baek, Davis, Fast High-Dimensional Filtering Using the Permutohedral Lattice, Eurographics 2010; the
scaling of the blur as in Krahenbuhl and Koltun's code, whose filter this equals up to rounding.

Shapes: N points, d dimensions, V corners of the lattice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from scipy.sparse import csr_array

_AT_ONCE = 2**15  # points whose corners are sought together: what that takes stays in a core's cache
_MARGIN = 4  # steps beyond the outermost points: neighbours of their corners must not be taken for others
_MOST_KEYS = 2**62  # of an int64, with room for the neighbours of the outermost


@dataclass(frozen=True)
class Lattice:
    """A filter for one set of points.

    Attributes:
        share: (N, V) how much of each corner a point reads and gives: d + 1 values a row, which add up to 1.
        neighbours: (d + 1, 2, V) int64: those on either side along each direction; V where there is none.
    """

    share: csr_array
    neighbours: np.ndarray

    @classmethod
    def of(cls, points_dN: np.ndarray) -> Lattice:
        """Lay the lattice under points.

        Args:
            points_dN: float32, in standard deviations of the Gaussian.

        Raises:
            ValueError: The points reach so far that corners cannot be numbered.
        """
        dimensions, count = points_dN.shape
        side = dimensions + 1
        keying = _Keying.over(points_dN)
        keys, weights = np.empty((count, side), np.int64), np.empty((count, side), np.float32)
        for start in range(0, count, _AT_ONCE):
            some = slice(start, start + _AT_ONCE)
            _find_simplices(points_dN[:, some], keying, keys[some], weights[some])
        # Hashed: sorting six keys for each pixel would take longer than all else together.
        numbered = pa.array(keys.reshape(-1)).dictionary_encode()
        del keys
        rows = np.arange(0, count * side + 1, side, dtype=np.int32 if count * side < 2**31 else np.int64)
        corners = numbered.dictionary
        share = csr_array((weights.reshape(-1), numbered.indices.to_numpy(), rows), shape=(count, len(corners)))
        return cls(share, _neighbours(corners.to_numpy(), keying.steps))

    def filter(self, values_N: np.ndarray) -> np.ndarray:
        """(N,) float32: the Gaussian-weighted sum over all points, itself included, at each point."""
        at_corners = np.append(self.share.T @ values_N, np.float32(0))  # the last is the neighbour that is not there
        for one, other in self.neighbours:
            beside = at_corners[one]
            beside += at_corners[other]
            beside *= np.float32(0.5)
            at_corners[:-1] += beside
        # What the blur adds to a constant, as in the source's code; it cancels where weights are normalised.
        at_corners *= np.float32(1 / (1 + 2.0 ** -(len(self.neighbours) - 1)))
        found: np.ndarray = self.share @ at_corners[:-1]
        return found


@dataclass(frozen=True)
class _Keying:
    """How the corners around some points become numbers.

    Attributes:
        scales: (d + 1, d) float32, into the plane where d + 1 coordinates add up to 0; a blur has standard deviation 1.
        least: (d,) below every corner, in steps of d + 1.
        units: (d + 1,) int64: what one step along each coordinate adds. The last is 0: coordinates add up to 0.
    """

    scales: np.ndarray
    least: np.ndarray
    units: np.ndarray

    @classmethod
    def over(cls, points_dN: np.ndarray) -> _Keying:
        dimensions = len(points_dN)
        side = dimensions + 1
        scales = np.zeros((side, dimensions))
        for axis in range(1, side):  # p. 5 and 6 of the source
            scale = math.sqrt(2 / 3) * side / math.sqrt(axis * (axis + 1))
            scales[axis, axis - 1] = -axis * scale
            scales[:axis, axis - 1] = scale
        ends = np.stack([points_dN.min(1), points_dN.max(1)]).astype(np.float64)
        reached = np.stack([scales[:-1] * end for end in ends])
        least, most = (
            np.floor(reached.min(0).sum(1) / side) - _MARGIN,
            np.ceil(reached.max(0).sum(1) / side) + _MARGIN,
        )
        spans = [int(span) * side for span in most - least]
        if math.prod(spans) >= _MOST_KEYS:
            raise ValueError(f"points that reach over {spans} steps of a lattice")
        units = np.array([math.prod(spans[:axis]) for axis in range(dimensions)] + [0], np.int64)
        return cls(scales.astype(np.float32), least.astype(np.int64), units)

    @property
    def steps(self) -> list[int]:
        """What a step along each of the lattice's directions adds to a key."""
        return [int(unit) * len(self.units) - int(self.units.sum()) for unit in self.units]


def _find_simplices(points_dN: np.ndarray, keying: _Keying, keys: np.ndarray, weights: np.ndarray) -> None:
    """The corners around each point, (N, d + 1) int64 keys, and its barycentric coordinates, (N, d + 1) float32."""
    side, count = len(keying.scales), points_dN.shape[1]
    elevated = np.empty((side, count), np.float32)
    total = np.zeros(count, np.float32)
    for axis in range(side - 1, 0, -1):
        scaled = points_dN[axis - 1] * keying.scales[0, axis - 1]
        np.subtract(total, np.float32(axis) * scaled, out=elevated[axis])
        total += scaled
    elevated[0] = total
    cells = np.rint(elevated * np.float32(1 / side))  # the nearest corner whose coordinates are all multiples of d + 1
    off = elevated - cells * np.float32(side)
    rank = cells.sum(0).astype(np.int8) + _ranks(off)
    # Rounding may have left the plane on which coordinates add up to 0: those rounded the farthest go back.
    back = (rank < 0).view(np.int8) - (rank >= side).view(np.int8)
    rank += back * np.int8(side)
    off -= back * np.float32(side)
    # Coordinates in the order of their ranks, the largest offset first, and their units in the same order.
    falling, unit = np.empty((count, side), np.float32), np.empty((count, side), np.int64)
    first = np.arange(0, count * side, side)
    for row, one, step in zip(rank, off, keying.units, strict=True):
        at = first + row
        falling.reshape(-1)[at] = one
        unit.reshape(-1)[at] = step
    falling *= np.float32(1 / side)
    weights[:, 0] = 1 + falling[:, -1] - falling[:, 0]
    np.subtract(falling[:, -2::-1], falling[:, :0:-1], out=weights[:, 1:])
    keys[:, 0] = 0
    for cell, moved, low, step in zip(cells, back, keying.least, keying.units, strict=False):
        keys[:, 0] += (cell.astype(np.int64) + moved - low) * (step * side)
    # From corner to corner all coordinates grow by 1, and the next one in the order falls by d + 1.
    for corner in range(1, side):
        np.subtract(keys[:, corner - 1] + keying.units.sum(), unit[:, side - corner] * side, out=keys[:, corner])


def _ranks(off: np.ndarray) -> np.ndarray:
    """int8 (d + 1, N): how many coordinates are larger; among equals the later one ranks behind."""
    rank = np.zeros(off.shape, np.int8)
    for one in range(len(off)):
        for other in range(one + 1, len(off)):
            smaller = (off[one] < off[other]).view(np.int8)
            rank[one] += smaller
            rank[other] += 1 - smaller
    return rank


def _neighbours(keys: np.ndarray, steps: list[int]) -> np.ndarray:
    """(d + 1, 2, V) from the keys of V corners."""
    count = len(keys)
    order = np.argsort(keys)
    rising = keys[order]
    neighbours = np.full((len(steps), 2, count), count, np.int64)
    for (after, before), step in zip(neighbours, steps, strict=True):
        wanted = rising + step
        at = np.minimum(np.searchsorted(rising, wanted), count - 1)  # fast, as both rise
        there = rising[at] == wanted
        here, beside = order[there], order[at[there]]
        after[here], before[beside] = beside, here
    return neighbours
