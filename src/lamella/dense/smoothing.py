"""Outlines that follow the edges of pixels, made smoother: staircases become lines, corners within a tolerance go.

An outline is first led through the middles of the pixels' edges, which cuts every corner at 45 degrees and keeps
sqrt(1/8) = 0.354 pixels away from every pixel centre. Then corners are left out as long as the outline stays within the
tolerance; under 0.354 pixels it cannot pass a centre, so that filling stays exact, and two of its parts, which are
sqrt(1/2) apart or more, cannot meet. With larger tolerances they can: every polygon is tried, and one that crosses or
touches itself is made again with half the tolerance.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lamella.formats.ring_crossings import crossing_pairs
from lamella.slides.polygons import needed_corners

Rings = tuple[np.ndarray, ...]
LOSSLESS_PX = 0.34  # what is left of 0.354 goes to rounding when the outline is written
# Every so many corners one stays: it bounds the rounds of the search, for one corner in ten of what remains.
_ANCHOR = 256
_LEAST_CORNERS = 3


def smoothed(polygons: Sequence[Sequence[np.ndarray]], tolerance_px: float) -> list[Rings]:
    """Simplify polygons; none crosses or touches itself afterwards.

    Args:
        polygons: Outer ring, then holes, of each: (M, 2) integer corners of pixels, open, not collinear.
        tolerance_px: 0 follows the pixels' edges; then rings that touch themselves at a corner are parted there.

    Returns:
        float64 rings of each polygon.
    """
    if not polygons:
        return []
    if tolerance_px <= 0:
        return [_without_pinches(rings) for rings in polygons]
    counts = [len(rings) for rings in polygons]
    corners, sizes = _thinned([ring for rings in polygons for ring in rings], tolerance_px)
    polygon_of_ring = np.repeat(np.arange(len(polygons)), counts)
    bad = np.zeros(len(polygons), bool)
    bad[polygon_of_ring[sizes < _LEAST_CORNERS]] = True
    bad[_clashing(corners, sizes, polygon_of_ring, tolerance_px)] = True
    split = np.split(corners, np.cumsum(sizes)[:-1])
    lasts = np.cumsum(counts).tolist()
    found = [tuple(split[last - count : last]) for last, count in zip(lasts, counts, strict=True)]
    if bad.any():
        finer = 0.0 if tolerance_px <= LOSSLESS_PX else max(LOSSLESS_PX, tolerance_px / 2)
        again = np.flatnonzero(bad).tolist()
        for number, rings in zip(again, smoothed([polygons[number] for number in again], finer), strict=True):
            found[number] = rings
    return found


def _thinned(rings: Sequence[np.ndarray], tolerance_px: float) -> tuple[np.ndarray, np.ndarray]:
    """(N, 2) corners of all rings, one after the other, and how many each has."""
    corners = np.concatenate(rings).astype(np.float64)
    sizes = np.array([len(ring) for ring in rings])
    lasts = np.cumsum(sizes) - 1
    after = np.arange(1, len(corners) + 1)
    after[lasts] = lasts - sizes + 1
    middles, sizes = _middles(corners, corners[after], np.repeat(np.arange(len(rings)), sizes), len(rings))
    # Each ring is closed for the search: its first corner stands behind its last one.
    begins = np.cumsum(sizes) - sizes
    closed = np.insert(middles, begins + sizes, middles[begins], axis=0)
    begins = begins + np.arange(len(rings))
    within = np.arange(len(closed)) - np.repeat(begins, sizes + 1)
    kept = within % _ANCHOR == 0
    kept[begins + sizes] = True
    kept = needed_corners(closed, kept, tolerance_px)
    kept[begins + sizes] = False
    return closed[kept], np.add.reduceat(kept, begins, dtype=np.int64)


def _middles(corners: np.ndarray, following: np.ndarray, ring: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The middles of the first and of the last pixel's edge between neighbouring corners, and how many a ring has."""
    way = following - corners
    length = np.abs(way).sum(axis=1)  # they run along rows or columns
    half = way / length[:, None] / 2
    both = np.stack([corners + half, following - half], axis=1).reshape(-1, 2)
    there = np.stack([np.ones(len(length), bool), length > 1], axis=1)
    sizes = np.bincount(ring, there.sum(axis=1), count).astype(np.int64)
    return both[there.reshape(-1)], sizes


def _clashing(corners: np.ndarray, sizes: np.ndarray, polygon_of_ring: np.ndarray, tolerance_px: float) -> np.ndarray:
    """Numbers of the polygons that cross or touch themselves, or have a hole in the wrong place."""
    lasts = np.cumsum(sizes) - 1
    after = np.arange(1, len(corners) + 1)
    after[lasts] = lasts - sizes + 1
    ring = np.repeat(np.arange(len(sizes)), sizes)
    polygon = polygon_of_ring[ring]
    pairs = crossing_pairs(corners, corners[after], polygon, touching=True)
    clashing = polygon[pairs[:, 0]]
    if tolerance_px <= LOSSLESS_PX:
        return clashing
    return np.concatenate([clashing, _holes_outside(corners, corners[after], ring, polygon_of_ring)])


def _holes_outside(starts: np.ndarray, ends: np.ndarray, ring: np.ndarray, polygon_of_ring: np.ndarray) -> np.ndarray:
    """Polygons with a hole that lies outside the outer ring or within another hole."""
    firsts = np.flatnonzero(np.diff(ring, prepend=-1))
    polygon = polygon_of_ring[ring]
    is_hole = np.diff(polygon_of_ring[ring[firsts]], prepend=-1) == 0
    points = firsts[is_hole]
    points = points[np.argsort(starts[points, 1], kind="stable")]
    heights = starts[points, 1]
    # Points at whose height an edge passes, half-open so that a corner counts once.
    low = np.searchsorted(heights, np.minimum(starts[:, 1], ends[:, 1]), "left")
    high = np.searchsorted(heights, np.maximum(starts[:, 1], ends[:, 1]), "left")
    edge = np.repeat(np.arange(len(starts)), high - low)
    which = low[edge] + np.arange(len(edge)) - np.repeat(np.cumsum(high - low) - (high - low), high - low)
    point = points[which]
    own = (polygon[edge] == polygon[point]) & (ring[edge] != ring[point])
    edge, which, point = edge[own], which[own], point[own]
    share = (starts[point, 1] - starts[edge, 1]) / (ends[edge, 1] - starts[edge, 1])
    left_of = starts[edge, 0] + share * (ends[edge, 0] - starts[edge, 0]) < starts[point, 0]
    crossings = np.bincount(which[left_of], minlength=len(points))
    return polygon[points[crossings % 2 == 0]]


def _without_pinches(rings: Sequence[np.ndarray]) -> Rings:
    """Part rings at the corners they pass twice, so that no ring touches itself; the loops become holes.

    A hole may touch the outer ring at a corner (OGC Simple Features, 6.1.11), a ring not itself.
    """
    parted: list[list[np.ndarray]] = [_parted(np.asarray(ring, np.float64)) for ring in rings]
    return tuple([loops[0] for loops in parted] + [loop for loops in parted for loop in loops[1:]])


def _parted(ring: np.ndarray) -> list[np.ndarray]:
    """The ring that its first corner, its uppermost, lies on; then the loops that hang on it or on each other."""
    _, number, times = np.unique(ring, axis=0, return_inverse=True, return_counts=True)
    twice = np.flatnonzero(times[number.reshape(-1)] > 1)
    if not len(twice):
        return [ring]
    loops: list[np.ndarray] = []
    path: list[tuple[int, list[np.ndarray]]] = [(-1, [])]  # (corner at which a loop began, its pieces so far)
    at = 0
    for position in twice.tolist():
        corner = int(number.reshape(-1)[position])
        path[-1][1].append(ring[at:position])
        at = position
        if any(corner == begun for begun, _ in path):
            while True:
                begun, pieces = path.pop()
                if begun == corner:
                    loops.append(np.concatenate(pieces))
                    break
                path[-1][1].extend(pieces)
        path.append((corner, []))
    path[-1][1].append(ring[at:])
    return [np.concatenate([piece for _, pieces in path for piece in pieces]), *loops]
