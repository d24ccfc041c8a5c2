"""Does the prediction tell places that express a gene from those that do not? AUROC and AUPRC of non-zero truth.

Ties of the prediction share a threshold, as in scikit-learn. For the intervals both are taken as their first-order
expansion in the weights of the places (the infinitesimal jackknife): a resample then costs a sum, not a sort.

Shapes: g genes, N places, B blocks, P shuffles.
"""

from __future__ import annotations

import numpy as np

from lamella.metrics.genes.moved import Moved
from lamella.metrics.genes.pairs import Pairs, Sorted

AUROC, AUPRC = "auroc", "auprc"
# Positives above one in this many places: see `_precision_sums`.
_DENSE = 8


def auroc_of(sums: np.ndarray) -> np.ndarray:
    """Area from (..., 4) sums: of the positives their shares and their number, the same of the negatives.

    A place's share is of the places of the other kind that lie on the right side of it, less half the area.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.clip(sums[..., 0] / sums[..., 1] + sums[..., 2] / sums[..., 3], 0, 1)


def auprc_of(sums: np.ndarray) -> np.ndarray:
    """Average precision from (..., 2): the number of places, and the sum of what each adds to it."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.clip(sums[..., 1] / sums[..., 0], 0, 1)


def nonzero_sums(pairs: Pairs) -> dict[str, np.ndarray]:
    """AUROC's (B, g, 4) and AUPRC's (B, g, 2) sums; NaN where all places or none express the gene."""
    ranked = pairs.x_sorted
    positive_gN = np.take_along_axis(pairs.positive, ranked.order, axis=1)
    undefined_g = undefined(pairs)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = {
            AUROC: pairs.blocks(*_auroc_parts(pairs, ranked, positive_gN)),
            AUPRC: pairs.counted(pairs.blocks(_auprc_parts(ranked, positive_gN))),
        }
    for sums in found.values():
        sums[:, undefined_g] = np.nan
    return found


def undefined(pairs: Pairs) -> np.ndarray:
    """(g,) genes that all places express, or none, or with negative values, where zero means nothing."""
    share_g = pairs.positive.mean(axis=1)
    return (share_g == 0) | (share_g == 1) | (pairs.truth < 0).any(axis=1)


def _auroc_parts(pairs: Pairs, ranked: Sorted, positive_gN: np.ndarray) -> tuple[np.ndarray, ...]:
    """Per place, what `auroc_of` sums."""
    before, through = _cumulated(positive_gN.astype(np.float64), ranked)
    ties = through - before
    positives_g1 = positive_gN.sum(axis=1, keepdims=True).astype(np.float64)
    size = positive_gN.shape[1]
    negatives_g1 = size - positives_g1
    # Of a positive: negatives below it. Of a negative: positives above it. Ties count half.
    lower_gN = (ranked.first - before + ((ranked.last - ranked.first + 1) - ties) / 2) / negatives_g1
    higher_gN = (positives_g1 - through + ties / 2) / positives_g1
    area_g1 = (lower_gN * positive_gN).sum(axis=1, keepdims=True) / positives_g1
    side_gN = ranked.at_places(np.where(positive_gN, lower_gN, higher_gN) - area_g1 / 2)
    is_positive = pairs.positive.astype(np.float64)
    return side_gN * is_positive, is_positive, side_gN * (1 - is_positive), 1 - is_positive


def _auprc_parts(ranked: Sorted, positive_gN: np.ndarray) -> np.ndarray:
    """Per place, average precision + N x its derivative by the weight of the place."""
    size = positive_gN.shape[1]
    positive = positive_gN.astype(np.float64)
    total_g1 = positive.sum(axis=1, keepdims=True)
    before, _ = _cumulated(positive, ranked)
    called = size - ranked.first  # places at least as high
    precision = (total_g1 - before) / called
    mean_g1 = (positive * precision).sum(axis=1, keepdims=True) / total_g1
    # A place changes the precision at every positive that is not above it.
    _, lost = _cumulated(positive * precision / called, ranked)
    _, gained = _cumulated(positive / called, ranked)
    slope = (positive * (precision - mean_g1) + positive * gained - lost) / total_g1
    return ranked.at_places(mean_g1 + size * slope)


def _cumulated(values_gN: np.ndarray, ranked: Sorted) -> tuple[np.ndarray, np.ndarray]:
    """Sums over the positions below those of the same score, and through them."""
    sums = np.zeros((values_gN.shape[0], values_gN.shape[1] + 1))
    np.cumsum(values_gN, axis=1, out=sums[:, 1:])
    return np.take_along_axis(sums, ranked.first, axis=1), np.take_along_axis(sums, ranked.last + 1, axis=1)


def nonzero_shuffled(pairs: Pairs, moved: Moved) -> dict[str, np.ndarray]:
    """(P, g) AUROC and AUPRC with the truth of other places."""
    genes, size = pairs.shape
    positives_g = pairs.positive.sum(axis=1).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        ranks = moved.cross(pairs.positive.astype(np.float64), pairs.x_sorted.ranks)
        area = (ranks - positives_g * (positives_g + 1) / 2) / (positives_g * (size - positives_g))
        called = pairs.x_sorted.at_places(size - pairs.x_sorted.first).astype(np.int64)
        precision = np.stack([_precision_sums(moved, each, genes, size) for each in moved.landed(called)]) / positives_g
    bad = undefined(pairs)
    area[:, bad] = precision[:, bad] = np.nan
    return {AUROC: area, AUPRC: precision}


def _precision_sums(moved: Moved, called_M: np.ndarray, genes: int, size: int) -> np.ndarray:
    """(g,) sum of the precision at each positive, from the number of places that are at least as high."""
    rows = moved.genes * (size + 1)
    if len(called_M) * _DENSE > genes * size:  # counting all thresholds is cheaper than sorting the positives
        hits = np.bincount(rows + called_M, minlength=genes * (size + 1)).reshape(genes, size + 1)[:, 1:]
        return np.asarray((hits * hits.cumsum(axis=1) / np.arange(1, size + 1)).sum(axis=1))
    key_M = np.sort(rows + called_M)
    first_g = np.searchsorted(moved.genes, np.arange(genes))
    hits_M = np.searchsorted(key_M, key_M, side="right") - first_g[moved.genes]
    return moved.per_gene(hits_M / (key_M - rows))
