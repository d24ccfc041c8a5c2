"""How well scores rank: area under the ROC curve and average precision, of weighted rows.

A bootstrap draw is a weighting of the rows, so all draws are computed at once from rows that are sorted once.

Shapes: N rows, S weightings, T distinct scores.
"""

from __future__ import annotations

import numpy as np


def auc(scores_N: np.ndarray, positive_N: np.ndarray, weights_SN: np.ndarray) -> np.ndarray:
    """The chance that a positive row scores higher than a negative one, ties counting half: (S,) float64.

    NaN for a weighting without positives or without negatives: there is nothing to rank.

    Raises:
        ValueError: A score is not a finite number.
    """
    positive_ST, negative_ST = _by_score(scores_N, positive_N, weights_SN)
    below_ST = negative_ST.cumsum(1) - negative_ST
    pairs = positive_ST.sum(1) * negative_ST.sum(1)
    won = (positive_ST * (below_ST + negative_ST / 2)).sum(1)
    return np.divide(won, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)


def average_precision(scores_N: np.ndarray, positive_N: np.ndarray, weights_SN: np.ndarray) -> np.ndarray:
    """Sum over the thresholds, from high to low, of precision times the recall gained there: (S,) float64.

    Rows of one score share a threshold, as in scikit-learn. NaN for a weighting without positives.

    Raises:
        ValueError: A score is not a finite number.
    """
    positive_ST, negative_ST = (each[:, ::-1] for each in _by_score(scores_N, positive_N, weights_SN))
    hits_ST, misses_ST = positive_ST.cumsum(1), negative_ST.cumsum(1)
    called_ST = hits_ST + misses_ST
    precision_ST = np.divide(hits_ST, called_ST, out=np.zeros_like(hits_ST), where=called_ST > 0)
    total = positive_ST.sum(1)
    return np.divide((precision_ST * positive_ST).sum(1), total, out=np.full(len(total), np.nan), where=total > 0)


def _by_score(scores_N: np.ndarray, positive_N: np.ndarray, weights_SN: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(S, T) weight of the positive and of the negative rows at each distinct score, rising."""
    scores_N = np.asarray(scores_N, np.float64)
    if not np.isfinite(scores_N).all():
        raise ValueError("scores must be finite numbers")
    order = np.argsort(scores_N, kind="stable")
    ranked = scores_N[order]
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
    weights_SN = np.asarray(weights_SN, np.float64)[:, order]
    positive_N = np.asarray(positive_N, bool)[order]
    whole_ST = np.add.reduceat(weights_SN, starts, axis=1)
    positive_ST = np.add.reduceat(weights_SN * positive_N, starts, axis=1)
    return positive_ST, whole_ST - positive_ST
