"""Polygons onto masks and masks into polygons.

A pixel belongs to a polygon that holds its centre. Under this rule a traced and simplified mask gives back exactly the
mask: its outlines keep 0.35 pixels away from every pixel centre, and simplifying moves them by less than that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from scipy import ndimage
from skimage.measure import find_contours

Rings = tuple[np.ndarray, ...]
"""One polygon: its outer ring first, then its holes; each (M, 2) float x, y, not closed or closed alike."""

# Outlines run midway between pixel centres and cut corners at 45 degrees: sqrt(1/8) = 0.354 from the nearest centre.
# A chain that stays within t < 0.354 of its chord cannot pass a centre on the far side of the chord. What is left of it
# goes to rounding on writing.
_SIMPLIFY_PX = 0.34
_CROSSINGS_AT_ONCE = 2**20  # of polygon edges and rows of pixels; about 64 MB while they are sorted


def fill_polygon(mask: np.ndarray, rings_px: Sequence[np.ndarray]) -> None:
    """Set the pixels whose centre lies inside one polygon, by the even-odd rule over all its rings.

    Args:
        mask: (H, W) bool, changed in place.
        rings_px: (M, 2) float x, y in pixels of the mask, (0, 0) its upper left corner; parts outside are cut off.
    """
    height, width = mask.shape
    starts = np.concatenate([np.asarray(ring, np.float64) for ring in rings_px])
    ends = np.concatenate([np.roll(np.asarray(ring, np.float64), -1, axis=0) for ring in rings_px])
    left, top = np.floor(starts.min(axis=0)).clip(0, (width, height)).astype(np.int64)
    right, bottom = np.ceil(starts.max(axis=0)).clip(0, (width, height)).astype(np.int64)
    if right <= left or bottom <= top:
        return
    parity = np.zeros((bottom - top, right - left + 1), np.uint8)  # the last column takes what lies right of the mask
    for rows, crossings_px in _crossings(starts, ends, int(top), int(bottom)):
        # A crossing flips every pixel whose centre lies right of it.
        columns = np.ceil(crossings_px - 0.5).clip(left, right).astype(np.int64) - left
        places, counts = np.unique((rows - top) * parity.shape[1] + columns, return_counts=True)
        parity.reshape(-1)[places[counts % 2 == 1]] ^= 1
    np.bitwise_xor.accumulate(parity, axis=1, out=parity)
    mask[top:bottom, left:right] |= parity[:, :-1].astype(bool)


def trace_mask(mask: np.ndarray) -> Iterator[Rings]:
    """The outlines of the 4-connected pieces of a mask, simplified by less than a third of a pixel.

    Args:
        mask: (H, W) bool.

    Yields:
        For each piece its rings in pixels of the mask. `fill_polygon` of all of them is the mask again, exactly.
    """
    labels, _ = ndimage.label(mask)
    for number, place in enumerate(ndimage.find_objects(labels), start=1):
        piece = np.pad(labels[place] == number, 1)
        rings = _simplified(find_contours(piece, 0.5, fully_connected="low"))
        # Contours are in centres of the padded piece's pixels; half a pixel brings them to corners.
        origin = np.array([place[1].start, place[0].start]) - 0.5
        yield tuple(sorted((ring[:, ::-1] + origin for ring in rings), key=_area, reverse=True))


def _crossings(starts: np.ndarray, ends: np.ndarray, top: int, bottom: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Where edges cross the middle lines of the rows from `top` to `bottom`: (N,) rows and (N,) x, in portions."""
    upper, lower = np.minimum(starts[:, 1], ends[:, 1]), np.maximum(starts[:, 1], ends[:, 1])
    # Half-open, so that a corner on a middle line counts once; an edge along one counts never.
    first = np.ceil(upper - 0.5).clip(top, bottom).astype(np.int64)
    counts = np.ceil(lower - 0.5).clip(top, bottom).astype(np.int64) - first
    portion = np.cumsum(counts) // _CROSSINGS_AT_ONCE
    for number in np.unique(portion[counts > 0]):
        edges = np.flatnonzero((portion == number) & (counts > 0))
        each = np.repeat(edges, counts[edges])
        before = np.repeat(np.cumsum(counts[edges]) - counts[edges], counts[edges])
        rows = first[each] + np.arange(len(each)) - before
        (x0, y0), (x1, y1) = starts[each].T, ends[each].T
        yield rows, x0 + (rows + 0.5 - y0) / (y1 - y0) * (x1 - x0)


def _simplified(rings: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Closed rings (M, 2) without the corners that lie within `_SIMPLIFY_PX` of the line between those kept; open."""
    corners = np.concatenate(rings)
    lasts = np.cumsum([len(ring) for ring in rings]) - 1
    kept = np.zeros(len(corners), bool)
    kept[lasts] = kept[np.r_[0, lasts[:-1] + 1]] = True
    kept = needed_corners(corners, kept, _SIMPLIFY_PX)
    return [ring[:-1] for ring in np.split(corners[kept], np.cumsum(kept)[lasts[:-1]])]


def needed_corners(corners: np.ndarray, kept: np.ndarray, tolerance_px: float) -> np.ndarray:
    """(N,) bool: the corners that may not be left out; the others lie within the tolerance of the line between these.

    The method of Douglas and Peucker (1973), all chains and all their chords at once.

    Args:
        corners: (N, 2) float of chains one after the other.
        kept: (N,) bool; at least the first and the last corner of each chain.
        tolerance_px: In the corners' unit.
    """
    kept = kept.copy()
    pending = np.flatnonzero(~kept)
    while len(pending):
        chords = np.cumsum(kept)[pending] - 1
        ends = np.flatnonzero(kept)
        away_px = _from_chord(corners[pending], corners[ends[chords]], corners[ends[chords + 1]])
        firsts = np.flatnonzero(np.diff(chords, prepend=-1))
        farthest_px = np.repeat(np.maximum.reduceat(away_px, firsts), np.diff(np.r_[firsts, len(chords)]))
        farthest = np.flatnonzero((away_px == farthest_px) & (farthest_px > tolerance_px))
        _, once = np.unique(chords[farthest], return_index=True)
        kept[pending[farthest[once]]] = True
        pending = pending[(farthest_px > tolerance_px) & ~kept[pending]]
    return kept


def _from_chord(points: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """(N,) distances of points from the line segments between starts and ends, all (N, 2)."""
    along, chord = points - starts, ends - starts
    length2 = (chord**2).sum(axis=1)
    share = (along * chord).sum(axis=1) / np.where(length2 > 0, length2, 1)
    return np.hypot(*(along - share.clip(0, 1)[:, None] * chord).T)


def _area(ring: np.ndarray) -> float:
    x, y = ring.T
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)
