"""Is the prediction as patchy as the truth? Moran's I of both, over pairs of neighbours.

I = (places / pairs) x sum over pairs z_i z_j / sum z_i^2, with z the difference from the mean (Moran, Biometrika 37,
1950; every pair counts once, all alike). Neighbours of a bin are the four that share a side; of a spot, those within
1.3 times the usual distance to the nearest.

The noise of single counts lowers I, and expected counts have none of it: compared as they are, a perfect prediction
would lie far above the truth at 2 um. Of counts, the I of the prediction is therefore the one that Poisson counts drawn
from it would have: their noise adds the sum of the expected counts to the sum of squares, and nothing to the products
of neighbours. Where the truth varies more than a Poisson, the prediction still lies above it. Both are taken of counts,
not of their logarithms, as that holds of counts alone. Values on other scales are compared as they are.

Genes of many counts have a high I in truth and prediction alike, so the agreement over genes (`measures.AGREEMENT`) is
to be read beside that of predictors that know nothing of the gene.

Shapes: g genes, N places, E pairs of neighbours, B blocks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import spatial

from lamella.metrics.genes.arrangement import Arrangement
from lamella.metrics.genes.judged import JudgedSlide
from lamella.metrics.genes.pairs import Pairs

MORAN_TRUE, MORAN_PREDICTED, MORAN_EXCESS = "moran_truth", "moran_predicted", "moran_excess"
# Between the side (1) and the diagonal (1.41) of a square lattice, with room for spots that lie a little off it.
_REACH = 1.3


@dataclass(frozen=True)
class Neighbours:
    """Pairs of neighbouring places, as positions in an arrangement's order.

    Attributes:
        one, other: (E,), sorted by `one`.
        starts: (B,) first pair of each block; `lengths`: (B,) how many.
    """

    one: np.ndarray
    other: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray

    @classmethod
    def of(cls, slide: JudgedSlide, arrangement: Arrangement) -> Neighbours:
        """The pairs of a slide; each belongs to the block of its first place."""
        one, other = _of_spots(slide.places_um) if slide.rc is None else _of_bins(slide.rc)
        position = np.empty(len(arrangement.order), np.int64)
        position[arrangement.order] = np.arange(len(position))
        one, other = position[one], position[other]
        order = np.argsort(one, kind="stable")
        one, other = one[order], other[order]
        starts = np.searchsorted(one, arrangement.starts)
        return cls(one, other, starts, np.diff(np.r_[starts, len(one)]))

    def block_sums(self, values_gE: np.ndarray) -> np.ndarray:
        """(B, g) sums over the pairs of each block, also of blocks without any."""
        padded = np.concatenate([values_gE, np.zeros((len(values_gE), 1))], axis=1)
        sums = np.add.reduceat(padded, self.starts, axis=1).T
        sums[self.lengths == 0] = 0
        return sums


def _of_bins(rc_N2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    low = rc_N2.min(axis=0)
    rows, cols = (rc_N2 - low).astype(np.int64).T
    at = np.full((int(rows.max()) + 2, int(cols.max()) + 2), -1, np.int64)  # a rim without neighbours
    at[rows, cols] = np.arange(len(rows))
    pairs = []
    for down, right in ((1, 0), (0, 1)):
        other = at[rows + down, cols + right]
        pairs.append((np.flatnonzero(other >= 0), other[other >= 0]))
    return np.concatenate([pair[0] for pair in pairs]), np.concatenate([pair[1] for pair in pairs])


def _of_spots(places_N2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    empty = np.zeros(0, np.int64)
    if len(places_N2) < 2:
        return empty, empty
    tree = spatial.cKDTree(places_N2)
    pairs = tree.query_pairs(_REACH * spacing_um(places_N2), output_type="ndarray")
    return (pairs[:, 0], pairs[:, 1]) if len(pairs) else (empty, empty)


def spacing_um(places_N2: np.ndarray) -> float:
    """The usual distance of a place to its nearest neighbour."""
    distances, _ = spatial.cKDTree(places_N2).query(places_N2, k=2)
    return float(np.median(distances[:, 1]))


def moran_of(sums: np.ndarray) -> np.ndarray:
    """I from (..., 4) sums: places, pairs, squares, products of neighbours."""
    places, pairs, squares, products = np.moveaxis(sums, -1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where((pairs > 0) & (squares > 0), places / pairs * products / squares, np.nan)


def excess_of(sums: np.ndarray) -> np.ndarray:
    """I of the prediction less that of the truth, from (..., 8) sums: those of the truth, then the prediction's."""
    return moran_of(sums[..., 4:]) - moran_of(sums[..., :4])


def moran_sums(pairs: Pairs, neighbours: Neighbours) -> dict[str, np.ndarray]:
    """(B, g, 4) sums of both I, and (B, g, 8) of their difference; NaN for genes that do not vary.

    A constant prediction of counts has one: counts drawn from it have I = 0.
    """
    counts = pairs.scale == "counts"
    x, y = (pairs.predicted, pairs.truth) if counts else (pairs.x, pairs.y)
    true = _sums(pairs, neighbours, y, np.zeros_like(y))
    predicted = _sums(pairs, neighbours, x, x if counts else np.zeros_like(x))
    true[:, pairs.y_constant] = np.nan
    predicted[:, pairs.y_constant if counts else pairs.y_constant | pairs.x_constant] = np.nan
    both = np.concatenate([true, predicted], axis=-1)
    return {MORAN_TRUE: true, MORAN_PREDICTED: predicted, MORAN_EXCESS: both}


def _sums(pairs: Pairs, neighbours: Neighbours, values_gN: np.ndarray, noise_gN: np.ndarray) -> np.ndarray:
    """(B, g, 4) of values with noise of this variance at each place."""
    z = values_gN - values_gN.mean(axis=1, keepdims=True)
    products = neighbours.block_sums(z[:, neighbours.one] * z[:, neighbours.other])
    edges = np.broadcast_to(neighbours.lengths[:, None].astype(np.float64), products.shape)
    return pairs.counted(np.stack([edges, pairs.blocks(z * z + noise_gN)[..., 0], products], axis=-1))


def excess_shuffled(sums: dict[str, np.ndarray], shuffles: int) -> np.ndarray:
    """(P, g) difference to a truth whose single places are shuffled: its expected I is -1 / (N - 1), whatever the gene.

    A closed form, the same for all shuffles. Exchanged blocks would keep the truth's I, and say nothing.
    """
    own = sums[MORAN_PREDICTED].sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        excess_g = moran_of(own) + 1 / (own[:, 0] - 1)
    return np.broadcast_to(excess_g, (shuffles, len(excess_g))).copy()
