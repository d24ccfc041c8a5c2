"""Are the places that are predicted highest those that express the gene most?

A hotspot is one of the stated share of the places with the highest truth, and expresses the gene: where fewer places
do, these are all the hotspots, and as many predicted places are compared with them. Ties are broken at random; the
expectation of that is computed, not a draw.

Shapes: g genes, N places, B blocks, P shuffles.
"""

from __future__ import annotations

import math

import numpy as np

from lamella.metrics.genes.moved import Moved
from lamella.metrics.genes.pairs import Pairs


def hotspot_name(share: float) -> str:
    """`hot_1pct` of 0.01."""
    return f"hot_{100 * share:g}pct"


def precision_of(sums: np.ndarray) -> np.ndarray:
    """Share from (..., 2): hotspots found, and places called."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(sums[..., 1] > 0, sums[..., 0] / sums[..., 1], np.nan)


def _weights(pairs: Pairs, share: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(g, N) chance of each place to be a hotspot and to be called one, and the (g,) number of hotspots."""
    size = pairs.shape[1]
    number_g = np.minimum(math.ceil(share * size), (pairs.truth != 0).sum(axis=1))
    return pairs.y_sorted.top_weights(number_g), pairs.x_sorted.top_weights(number_g), number_g


def hotspots(pairs: Pairs, moved: Moved, share: float) -> tuple[np.ndarray, np.ndarray]:
    """(B, g, 2) sums of the precision, and (P, g) it with the truth of other places; NaN for a constant truth."""
    true_gN, called_gN, number_g = _weights(pairs, share)
    sums = pairs.blocks(true_gN * called_gN, called_gN)
    with np.errstate(invalid="ignore", divide="ignore"):
        shuffled = moved.cross(true_gN, called_gN) / number_g
    sums[:, pairs.y_constant] = np.nan
    shuffled[:, pairs.y_constant] = np.nan
    return sums, shuffled
