"""How far the outlines of a prediction lie from the true ones: boundary F1 within a tolerance, and HD95.

An outline pixel is one with a neighbour (left, right, above, below) of another class. The image's edge and the edge of
what is not labelled are no outlines: nobody drew them.

- Boundary F1: harmonic mean of the share of predicted outline pixels within the tolerance of a true one, and the share
  of true ones within the tolerance of a predicted one (Csurka et al., "What is a good evaluation measure for semantic
  segmentation?", BMVC 2013).
- HD95: of the distances from each outline to the other, the 95th percentile; the larger of both directions.

A class in neither is NaN. Where one side has no outline and the other has, F1 is 0 and HD95 the image's diagonal, the
longest distance there is: leaving such images out would reward missing a class altogether. Where both fill all that is
labelled, there is nothing to draw and nothing wrong: F1 1 and HD95 0.

Letters: C classes, P outline pixels.
"""

from __future__ import annotations

import itertools

import numpy as np
from scipy.spatial import cKDTree

F1, HD95 = 0, 1
_PERCENT = 95


class Outlines:
    """Outline pixels of every class of one label image.

    Args:
        labels: (Y, X) uint8 channels; NOT_LABELLED where the model did not look.
        unknown: (Y, X) bool, where the truth is not labelled: the prediction has nothing to be compared with there.
        spacing_um: Height and width of a pixel.
        classes: C.
    """

    def __init__(self, labels: np.ndarray, unknown: np.ndarray, spacing_um: tuple[float, float], classes: int) -> None:
        if labels.shape != unknown.shape:
            raise ValueError(f"the labels are {labels.shape} and the truth {unknown.shape}")
        self.labels, self.unknown, self.spacing_um = labels, unknown, spacing_um
        self._edge = edge_pixels(labels, unknown).ravel()
        places = np.flatnonzero(self._edge)
        number = labels.ravel()[places]
        # Sorted by class at once: C scans of all places would take C times as long.
        order = np.argsort(number, kind="stable")
        bounds = np.searchsorted(number[order], np.arange(classes + 1))
        self._places = [places[order[start:end]] for start, end in itertools.pairwise(bounds)]

    def __len__(self) -> int:
        """C."""
        return len(self._places)

    def scores(self, called: Outlines, tolerance_um: float) -> np.ndarray:
        """(C, 2) float64 boundary F1 and HD95 in um of a prediction, these being the true outlines.

        Args:
            called: Outlines of the prediction, with the same unknown pixels.
            tolerance_um: Outlines this far apart are one.
        """
        return np.array([self._scores(called, number, tolerance_um) for number in range(len(self))])

    def _scores(self, called: Outlines, number: int, tolerance_um: float) -> tuple[float, float]:
        drawn = [len(each._places[number]) > 0 for each in (self, called)]
        if not all(drawn):
            there = [each._has(number) for each in (self, called)]
            if not any(there):
                return np.nan, np.nan
            if all(there) and not any(drawn):
                return 1.0, 0.0
            return 0.0, float(np.hypot(*np.multiply(self.labels.shape, self.spacing_um)))
        misses, strays = self._distances_um(number, called), called._distances_um(number, self)
        recall, precision = (float((each <= tolerance_um).mean()) for each in (misses, strays))
        f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
        return f1, float(max(np.percentile(misses, _PERCENT), np.percentile(strays, _PERCENT)))

    def _has(self, number: int) -> bool:
        """Whether any labelled pixel is of the class."""
        return len(self._places[number]) > 0 or bool(((self.labels == number) & ~self.unknown).any())

    def _distances_um(self, number: int, other: Outlines) -> np.ndarray:
        """(P,) from each outline pixel of a class to the other's nearest one."""
        places = self._places[number]
        found = np.zeros(len(places))
        # Most pixels of a good prediction lie on the true outline: they need no search.
        apart = ~(other._edge[places] & (other.labels.ravel()[places] == number))
        if apart.any():
            tree = cKDTree(other._um(other._places[number]), balanced_tree=False)  # twice as fast on lines of pixels
            found[apart] = tree.query(self._um(places[apart]), workers=-1)[0]
        return found

    def _um(self, places: np.ndarray) -> np.ndarray:
        return np.stack(np.divmod(places, self.labels.shape[1]), axis=1) * self.spacing_um


def edge_pixels(labels: np.ndarray, unknown: np.ndarray) -> np.ndarray:
    """(Y, X) bool: pixels with a neighbour of another class, both of them labelled."""
    edge = np.zeros(labels.shape, bool)
    known = ~unknown
    for before, after in ((np.s_[:-1], np.s_[1:]), (np.s_[:, :-1], np.s_[:, 1:])):
        differs = labels[before] != labels[after]
        differs &= known[before]
        differs &= known[after]
        edge[before] |= differs
        edge[after] |= differs
    return edge
