"""Correlations of truth and prediction over places: Pearson, and Spearman as Pearson of the ranks.

Shapes: g genes, N places, B blocks, P shuffles.
"""

from __future__ import annotations

import numpy as np

from lamella.metrics.genes.moved import Moved
from lamella.metrics.genes.pairs import Pairs

PEARSON, SPEARMAN = "pearson", "spearman"


def pearson_of(sums: np.ndarray) -> np.ndarray:
    """Correlation from (..., 6) sums: number, x, y, xx, yy, xy. NaN where one of them does not vary."""
    n, x, y, xx, yy, xy = np.moveaxis(sums, -1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        variance = np.maximum(xx - x * x / n, 0) * np.maximum(yy - y * y / n, 0)
        found = np.where(variance > 0, (xy - x * y / n) / np.sqrt(variance), np.nan)
    return np.clip(found, -1, 1)


def pearson_sums(pairs: Pairs) -> np.ndarray:
    """(B, g, 6) sums of Pearson's correlation; NaN for genes that do not vary."""
    return _sums(pairs, pairs.x, pairs.y)


def spearman_sums(pairs: Pairs) -> np.ndarray:
    """(B, g, 6) sums of Spearman's; a resample of blocks keeps the ranks of the whole slide."""
    return _sums(pairs, pairs.x_sorted.ranks, pairs.y_sorted.ranks)


def pearson_shuffled(pairs: Pairs, moved: Moved) -> np.ndarray:
    """(P, g) Pearson's correlation with the truth of other places."""
    return _shuffled(pairs, pairs.x, pairs.y, moved)


def spearman_shuffled(pairs: Pairs, moved: Moved) -> np.ndarray:
    """(P, g) Spearman's correlation with the truth of other places."""
    return _shuffled(pairs, pairs.x_sorted.ranks, pairs.y_sorted.ranks, moved)


def _sums(pairs: Pairs, x_gN: np.ndarray, y_gN: np.ndarray) -> np.ndarray:
    x, y = _centred(x_gN), _centred(y_gN)
    sums = pairs.counted(pairs.blocks(x, y, x * x, y * y, x * y))
    # Rounding leaves a trace of variance in a constant; a resample of blocks must not make a number of it.
    sums[:, pairs.x_constant | pairs.y_constant] = np.nan
    return sums


def _shuffled(pairs: Pairs, x_gN: np.ndarray, y_gN: np.ndarray, moved: Moved) -> np.ndarray:
    x, y = _centred(x_gN), _centred(y_gN)
    with np.errstate(invalid="ignore", divide="ignore"):
        scale = np.sqrt((x * x).sum(axis=1) * (y * y).sum(axis=1))
        scale[pairs.x_constant | pairs.y_constant] = np.nan
        # x has mean zero, so any constant may be taken off y: what the places without the gene have.
        return np.clip(moved.cross(y_gN, x) / scale, -1, 1)


def _centred(values_gN: np.ndarray) -> np.ndarray:
    return values_gN - values_gN.mean(axis=1, keepdims=True)
