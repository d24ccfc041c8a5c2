"""Measures of class predictions, all from a confusion matrix (..., C, C) of truth x prediction counts.

They work on any number of leading axes, so that a bootstrap passes all its draws at once.
"""

from __future__ import annotations

import numpy as np


def confusions(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """One-hot (N, C, C) float32 counts, one matrix per row; sum them over rows or groups.

    Args:
        truth: (N,) int, 0..classes-1.
        predicted: (N,) int, 0..classes-1.
        classes: C.
    """
    counts = np.zeros((len(truth), classes, classes), np.float32)
    counts[np.arange(len(truth)), truth, predicted] = 1
    return counts


def accuracy(confusion: np.ndarray) -> np.ndarray:
    """Share of rows that are right; NaN without rows."""
    return _ratio(np.trace(confusion, axis1=-2, axis2=-1), confusion.sum(axis=(-2, -1)))


def balanced_accuracy(confusion: np.ndarray) -> np.ndarray:
    """Mean recall of the classes that occur in the truth."""
    hits, rows = np.diagonal(confusion, axis1=-2, axis2=-1), confusion.sum(axis=-1)
    recall = np.divide(hits, rows, out=np.zeros_like(hits, dtype=np.float64), where=rows > 0)
    return _ratio(recall.sum(axis=-1), (rows > 0).sum(axis=-1))


def macro_f1(confusion: np.ndarray) -> np.ndarray:
    """Mean F1 of the classes that occur in the truth or in the predictions."""
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    either = confusion.sum(axis=-1) + confusion.sum(axis=-2)
    f1 = np.divide(2 * hits, either, out=np.zeros_like(hits, dtype=np.float64), where=either > 0)
    return _ratio(f1.sum(axis=-1), (either > 0).sum(axis=-1))


def majority_rate(confusion: np.ndarray) -> np.ndarray:
    """Share of the most frequent true class: the accuracy of always saying the same."""
    rows = confusion.sum(axis=-1)
    return _ratio(rows.max(axis=-1), rows.sum(axis=-1))


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
