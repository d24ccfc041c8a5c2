"""Truth that is moved to other places: what a measure says of labels that mean nothing.

At 2 um nearly all entries are zero. A sum of products with a moved truth needs only the others, so twenty shuffles cost
less than the measure itself.

Shapes: g genes, N places, P shuffles, M entries that are not at their gene's rest.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lamella.metrics.genes.pairs import Pairs


class Moved:
    """Shuffles of the truth of some genes.

    Args:
        pairs: The genes.
        shuffles_PN: Where the truth of each place goes, as of `Arrangement.shuffles`.
    """

    def __init__(self, pairs: Pairs, shuffles_PN: np.ndarray) -> None:
        genes, count = pairs.shape
        at_rest = pairs.truth == 0
        # Where most places express a gene, rest is still zero: only the speed suffers.
        self.genes, place_M = np.nonzero(~at_rest)
        self._entry_M = self.genes * count + place_M
        self._to_PM = (shuffles_PN[:, place_M] + (self.genes * count)[None]).astype(np.int32)
        self._rest_g, self._has_rest = at_rest.argmax(axis=1), at_rest.any(axis=1)
        self._starts = np.searchsorted(self.genes, np.arange(genes))
        self._empty = np.bincount(self.genes, minlength=genes) == 0

    def cross(self, truth_gN: np.ndarray, predicted_gN: np.ndarray) -> np.ndarray:
        """(P, g) sum over the places of moved truth times prediction.

        `truth_gN` has one value, its rest, wherever the gene is not expressed: nothing for counts, the shared rank for
        ranks.
        """
        rest_g = np.where(self._has_rest, truth_gN[np.arange(len(truth_gN)), self._rest_g], 0.0)
        weight_M = truth_gN.ravel()[self._entry_M] - rest_g[self.genes]
        found = np.stack([self.per_gene(weight_M * there_M) for there_M in self.landed(predicted_gN)])
        return found + rest_g * predicted_gN.sum(axis=1)

    def landed(self, values_gN: np.ndarray) -> Iterator[np.ndarray]:
        """For each shuffle, (M,) the value where each expressing entry lands."""
        flat = np.ascontiguousarray(values_gN).ravel()
        for to_M in self._to_PM:
            yield flat[to_M]

    def per_gene(self, values_M: np.ndarray) -> np.ndarray:
        """(g,) sums of the entries of each gene."""
        sums = np.add.reduceat(np.r_[values_M, 0.0], self._starts)
        sums[self._empty] = 0
        return np.asarray(sums)
