"""Corners of the outlines of a band of labels, and which corner follows which; pure geometry, nothing is kept.

A corner lies between four pixels and belongs to one of them, whose piece it bounds: a convex one to the pixel that
sticks out, a concave one to the pixel opposite the missing one. Pieces are 4-connected, so two pixels that touch at a
corner only have a corner each. Walking on, the piece lies on the right hand (with y downward): along its upper edge to
the right, down its right side.

Of each corner one edge is horizontal and one vertical. Along a row of corners the left and the right ends of the edges
with the piece below them alternate, as do those with the piece above, and along a column the upper and lower ends: the
k-th left end belongs to the k-th right end, and no search is needed.

Shapes: labels are (h + 1, W + 2), the row above the band first and a column without labels on either side; there are
h rows of W + 1 places between four pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lamella.formats.label_values import NOT_LABELLED

_NW, _NE, _SW, _SE = range(4)
Mask = np.ndarray
"""(P,) bool over the places where there is a corner."""


@dataclass(frozen=True)
class Corners:
    """The corners of a band.

    Attributes:
        x: (N,) int64 column of each corner, in pixels of the raster.
        row: (N,) int64 row of each corner within the band, 0 above its first row.
        pixel: (N,) int64 flat number, in the labels, of the pixel that the corner belongs to.
        down: Places and corners where an edge with its piece on the left of it begins and ends.
        up: The same with its piece on the right of it; it runs upwards, from its lower to its upper end.
        following: (N,) int64 the corner after each along a horizontal edge; -1 where the edge is vertical.
    """

    x: np.ndarray
    row: np.ndarray
    pixel: np.ndarray
    down: VerticalEnds
    up: VerticalEnds
    following: np.ndarray


@dataclass(frozen=True)
class VerticalEnds:
    """Ends of vertical edges, row by row.

    Attributes:
        top_columns: (T,) int64.
        tops: (T,) int64 corners.
        bottom_columns: (B,) int64.
        bottoms: (B,) int64 corners.
    """

    top_columns: np.ndarray
    tops: np.ndarray
    bottom_columns: np.ndarray
    bottoms: np.ndarray


def find_corners(labels: np.ndarray) -> Corners:
    """All corners between the rows of `labels`, (h + 1, W + 2) uint8; NOT_LABELLED has no outline."""
    rows, columns = _places(labels)
    base = rows * labels.shape[1] + columns
    pixels = [base, base + 1, base + labels.shape[1], base + labels.shape[1] + 1]
    flat = labels.reshape(-1)
    nw, ne, sw, se = (flat[pixel] for pixel in pixels)
    labelled = [value != NOT_LABELLED for value in (nw, ne, sw, se)]
    top, bottom, left, right = nw == ne, sw == se, nw == sw, ne == se
    convex = [
        ~top & ~left & labelled[_NW],
        ~top & ~right & labelled[_NE],
        ~bottom & ~left & labelled[_SW],
        ~bottom & ~right & labelled[_SE],
    ]
    concave = [  # by the pixel opposite the missing one
        top & left & ~right & labelled[_NW],
        top & right & ~left & labelled[_NE],
        bottom & left & ~right & labelled[_SW],
        bottom & right & ~left & labelled[_SE],
    ]
    there = np.stack([a | b for a, b in zip(convex, concave, strict=True)], axis=1)
    number = np.cumsum(there.reshape(-1), dtype=np.int64).reshape(there.shape) - 1
    place, kind = np.nonzero(there)

    def ends(outward: int, inward: int) -> tuple[np.ndarray, np.ndarray]:
        """Columns and corners: convex ones of one pixel and concave ones of another; never both at a place."""
        here = convex[outward] | concave[inward]
        return columns[here], np.where(convex[outward], number[:, outward], number[:, inward])[here]

    following = np.full(len(place), -1, np.int64)
    # Upper edges of pieces are walked to the right, lower ones to the left.
    following[ends(_SE, _SW)[1]] = ends(_SW, _SE)[1]
    following[ends(_NW, _NE)[1]] = ends(_NE, _NW)[1]
    return Corners(
        x=columns[place],
        row=rows[place],
        pixel=np.stack(pixels, axis=1)[place, kind],
        down=VerticalEnds(*ends(_SW, _NW), *ends(_NW, _SW)),
        up=VerticalEnds(*ends(_SE, _NE), *ends(_NE, _SE)),
        following=following,
    )


def _places(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the places where a vertical and a horizontal edge meet, row by row."""
    vertical = labels[:, 1:] != labels[:, :-1]
    horizontal = labels[1:] != labels[:-1]
    meet = (vertical[:-1] | vertical[1:]) & (horizontal[:, :-1] | horizontal[:, 1:])
    rows, columns = np.divmod(np.flatnonzero(meet), meet.shape[1])
    return rows, columns
