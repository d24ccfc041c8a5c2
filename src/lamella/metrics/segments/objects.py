"""Whether small objects are found: recall of connected pieces of each class, by their size.

Pooled Dice is decided by large objects; a model that misses every small gland may still have a good one.

Letters: C classes, K sizes.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from lamella.formats.label_values import NOT_LABELLED
from lamella.metrics.segments.pieces import pieces_of

FOUND, ALL = 0, 1
# Of an object's pixels, those that must have its class for it to be found.
FOUND_SHARE = 0.5


class TrueObjects:
    """The objects of one image's truth.

    An object is a connected piece (corners connect) of a class; one that the image's edge cuts counts with what is seen
    of it.

    Args:
        truth: (Y, X) uint8 channels or NOT_LABELLED.
        classes: C.
        px_um2: Area of a pixel.
        sizes_um2: Upper ends of all sizes but the last, which is open: K - 1 rising numbers. A size is low <= area <
            high.
        background: Channel whose pieces are no objects; None where there is none.
    """

    def __init__(
        self, truth: np.ndarray, classes: int, px_um2: float, sizes_um2: Sequence[float], background: int | None
    ) -> None:
        nothing = (NOT_LABELLED,) if background is None else (NOT_LABELLED, background)
        self._truth, self._pieces = truth, pieces_of(truth, nothing)
        self._size_P = np.searchsorted(np.asarray(sizes_um2, np.float64), self._pieces.area_P * px_um2, side="right")
        self._shape = (classes, len(sizes_um2) + 1, 2)

    def found(self, predicted: np.ndarray) -> np.ndarray:
        """(C, K, 2) int64 objects found, and all, of each class and size.

        One is found where at least half of its pixels were given its class.

        Args:
            predicted: (Y, X) uint8 channels.
        """
        hits_P = self._pieces.count_where(predicted == self._truth)
        counts = np.zeros(self._shape, np.int64)
        class_P = self._pieces.labels_P.astype(np.int64)
        np.add.at(counts, (class_P, self._size_P, ALL), 1)
        np.add.at(counts, (class_P, self._size_P, FOUND), hits_P >= FOUND_SHARE * self._pieces.area_P)
        return counts


def size_names(sizes_um2: Sequence[float]) -> tuple[str, ...]:
    """`below 500 µm²`, `500 to 2000 µm²`, `2000 µm² and more`."""
    ends = [f"{size:g}" for size in sizes_um2]
    if not ends:
        return ("of any size",)
    between = [f"{low} to {high} µm²" for low, high in itertools.pairwise(ends)]
    return (f"below {ends[0]} µm²", *between, f"{ends[-1]} µm² and more")
