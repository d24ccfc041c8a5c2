"""The 4-connected pieces of a band of labels, from the runs of equal labels in its rows.

Shapes: labels are (h + 1, W + 2) as in `corners`; R runs of labelled pixels, row by row.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from lamella.formats.label_values import NOT_LABELLED


@dataclass(frozen=True)
class Runs:
    """Labelled runs of a band.

    Attributes:
        starts: (R,) int64 flat number of the first pixel of each run.
        ends: (R,) int64 of the pixel behind its last.
        labels: (R,) uint8.
        stride: Pixels from a row to the next.
        last_row: Flat number of the first pixel of the last row.
    """

    starts: np.ndarray
    ends: np.ndarray
    labels: np.ndarray
    stride: int
    last_row: int

    @classmethod
    def of(cls, labels: np.ndarray) -> Runs:
        flat = labels.reshape(-1)
        changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
        values = flat[changes]
        labelled = values != NOT_LABELLED
        # The column without labels on either side ends every run with its row.
        ends = np.append(changes[1:], flat.size)
        return cls(changes[labelled], ends[labelled], values[labelled], labels.shape[1], flat.size - labels.shape[1])

    def at(self, pixels: np.ndarray) -> np.ndarray:
        """(K,) the run of each labelled pixel, given by its flat number."""
        return np.searchsorted(self.starts, pixels, "right") - 1

    def pieces(self, before: np.ndarray) -> tuple[np.ndarray, int]:
        """The piece of each run, and how many there are.

        Args:
            before: (R0,) for the runs of the first row, the piece they were found to belong to above it.
        """
        count = len(self.starts)
        first_of = np.unique(before, return_index=True)
        edges = [(np.arange(len(before)), first_of[1][np.searchsorted(first_of[0], before)])]
        for shift in (-self.stride, self.stride):
            # Of two runs that lie above each other, the later start lies over or under the other run.
            beside = self.starts + shift
            other = self.at(beside)
            touching = (other >= 0) & (self.ends[other] > beside) & (self.labels[other] == self.labels)
            edges.append((np.flatnonzero(touching), other[touching]))
        one, another = (np.concatenate(ends) for ends in zip(*edges, strict=True))
        graph = coo_array((np.ones(len(one), np.int8), (one, another)), shape=(count, count))
        pieces_count, pieces = connected_components(graph, directed=False)
        return pieces, int(pieces_count)
