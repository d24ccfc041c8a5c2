"""Connected pieces of every class of a label image at once, by runs of equal pixels along the rows.

A label image of some hundred thousand runs has some hundred times fewer runs than pixels, so whatever is asked of the
pieces costs little more than reading the image once.

Letters: R runs, P pieces.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


@dataclass(frozen=True)
class Pieces:
    """Pieces of equal labels, joined by edges or corners.

    Attributes:
        labels_P: Label of each piece.
        area_P: Its pixels.
        start_R: Flat index of each run's first pixel.
        end_R: Of the pixel behind its last.
        piece_R: Number of the piece that a run belongs to.
    """

    labels_P: np.ndarray
    area_P: np.ndarray
    start_R: np.ndarray
    end_R: np.ndarray
    piece_R: np.ndarray

    def count_where(self, marked: np.ndarray) -> np.ndarray:
        """(P,) int64 how many of each piece's pixels are marked in a bool image of the same shape."""
        ends = np.stack([self.start_R, self.end_R], axis=1).ravel()
        # One more pixel, so that the end of the last run is a place, too. Every second sum is of what is between runs.
        marked_R = np.add.reduceat(np.append(marked.ravel(), False), ends, dtype=np.int32)[::2] if len(ends) else ends
        return np.bincount(self.piece_R, weights=marked_R, minlength=len(self.labels_P)).astype(np.int64)


def pieces_of(labels: np.ndarray, left_out: tuple[int, ...] = ()) -> Pieces:
    """Find the pieces of a (Y, X) uint8 label image; those of some labels are left out."""
    width = labels.shape[1]
    flat = labels.ravel()
    changes = np.ones(flat.size + 1, bool)
    np.not_equal(flat[1:], flat[:-1], out=changes[1:-1])
    changes[::width] = True  # a run ends with its row
    ends = np.flatnonzero(changes)
    start_R, end_R = ends[:-1], ends[1:]
    kept = ~np.isin(flat[start_R], left_out)
    start_R, end_R = start_R[kept], end_R[kept]
    label_R = flat[start_R]
    first, second = _neighbours(start_R, end_R, width)
    same = label_R[first] == label_R[second]
    count = len(start_R)
    graph = coo_array((np.ones(int(same.sum()), bool), (first[same], second[same])), shape=(count, count))
    pieces, piece_R = connected_components(graph, directed=False) if count else (0, np.empty(0, np.int64))
    labels_P = np.zeros(pieces, labels.dtype)
    labels_P[piece_R] = label_R
    area_P = np.bincount(piece_R, weights=end_R - start_R, minlength=pieces).astype(np.int64)
    return Pieces(labels_P, area_P, start_R, end_R, piece_R)


def _neighbours(start_R: np.ndarray, end_R: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of runs of which the second lies in the row below the first and touches it, corners counted."""
    row_R = start_R // width
    # Rows are moved a pixel apart: the last pixel of one is no neighbour of the next one's first.
    x0_R, x1_R = start_R + row_R, end_R + row_R
    low = np.searchsorted(x1_R, x0_R + width + 1, side="left")  # the first that ends at or behind this one's start
    high = np.searchsorted(x0_R, x1_R + width + 1, side="right")  # behind the last that starts at or before its end
    touching = np.maximum(high - low, 0)
    first = np.repeat(np.arange(len(start_R)), touching)
    offset = np.arange(len(first)) - np.repeat(np.cumsum(touching) - touching, touching)
    return first, np.repeat(low, touching) + offset
