"""Confusion of true and predicted classes, pixel by pixel, and what follows from it: Dice and IoU of every class.

A class that is in the truth or in the prediction counts, with 0 where it was missed. One that is in neither is NaN and
left out of means, and how many classes are left is stated. Pixels whose truth is NOT_LABELLED are in no count. A pixel
with a true class that the model did not look at is a miss: it has a column of its own.

Dice = 2 |A and B| / (|A| + |B|); IoU = |A and B| / |A or B|.

Letters: C classes; matrices are (..., C, C + 1) int64: rows are the truth, columns the prediction, the last column is
"not looked at".
"""

from __future__ import annotations

import numpy as np

from lamella.formats.label_values import NOT_LABELLED

# Pixels at a time: pairs and their counts stay in the second-level cache.
_BLOCK_PX = 2**17
_VALUES = 256


def confusion_of(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """(C, C + 1) int64 pixels of each true class (row) that were given each class (column).

    Args:
        truth: Channels 0..C-1 or NOT_LABELLED, integers of any shape.
        predicted: The same shape; NOT_LABELLED where the model did not look.
        classes: C.

    Raises:
        ValueError: The shapes differ, or a value is no channel.
    """
    if truth.shape != predicted.shape:
        raise ValueError(f"the truth is {truth.shape} and the prediction {predicted.shape}")
    truth, predicted = _as_bytes(truth, "truth"), _as_bytes(predicted, "prediction")
    counts = np.zeros(_VALUES * _VALUES, np.int64)
    for start in range(0, truth.size, _BLOCK_PX):
        pairs = truth[start : start + _BLOCK_PX].astype(np.uint16)
        pairs <<= 8
        pairs |= predicted[start : start + _BLOCK_PX]
        counts += np.bincount(pairs, minlength=_VALUES * _VALUES)
    square = counts.reshape(_VALUES, _VALUES)
    for name, seen in (("truth", square.sum(1)), ("prediction", square.sum(0))):
        strange = [value for value in np.flatnonzero(seen).tolist() if classes <= value != NOT_LABELLED]
        if strange:
            raise ValueError(f"the {name} holds {strange[:5]}; there are {classes} classes, from 0")
    columns = [*range(classes), NOT_LABELLED]
    return square[:classes, columns]


def class_counts(matrix: np.ndarray) -> np.ndarray:
    """(..., C, 3) pixels of each class: in both, in the truth, in the prediction."""
    inner = matrix[..., :-1]
    both = np.diagonal(inner, axis1=-2, axis2=-1)
    return np.stack([both, matrix.sum(-1), inner.sum(-2)], axis=-1)


def dice_per_class(matrix: np.ndarray) -> np.ndarray:
    """(..., C) Dice; NaN where a class is neither in the truth nor in the prediction."""
    both, own, called = np.moveaxis(class_counts(matrix), -1, 0)
    return _ratio(2 * both, own + called)


def iou_per_class(matrix: np.ndarray) -> np.ndarray:
    """(..., C) intersection over union; NaN as of `dice_per_class`."""
    both, own, called = np.moveaxis(class_counts(matrix), -1, 0)
    return _ratio(both, own + called - both)


def precision_per_class(matrix: np.ndarray) -> np.ndarray:
    """(..., C) share of what was called a class that is one: 0 of a class that was never called; NaN as of Dice."""
    both, own, called = np.moveaxis(class_counts(matrix), -1, 0)
    return np.where((called == 0) & (own > 0), 0.0, _ratio(both, called))


def recall_per_class(matrix: np.ndarray) -> np.ndarray:
    """(..., C) share of a class that was called so; 0 of a class that is not there and was called, NaN as of Dice.

    A false alarm counts against the recall's mean too: else calling what is not there would be left out of it.
    """
    both, own, called = np.moveaxis(class_counts(matrix), -1, 0)
    return np.where((own == 0) & (called > 0), 0.0, _ratio(both, own))


def mean_of_present(values: np.ndarray, background: int | None = None) -> np.ndarray:
    """(...) mean over the classes that are not NaN; NaN where none is. The background is no tissue and left out."""
    values = without(values, background)
    defined = np.isfinite(values)
    return _ratio(np.where(defined, values, 0).sum(-1), defined.sum(-1))


def present(values: np.ndarray, background: int | None = None) -> np.ndarray:
    """(...) how many classes that mean is over: n_present."""
    return np.isfinite(without(values, background)).sum(-1)


def without(values: np.ndarray, background: int | None) -> np.ndarray:
    """(..., C - 1) the same without the background's column."""
    return values if background is None else np.delete(values, background, axis=-1)


def any_tissue_dice(matrix: np.ndarray, background: int) -> np.ndarray:
    """(...) Dice of any class at all against the background; who calls all tissue tumour has a perfect one."""
    kept = [channel for channel in range(matrix.shape[-2]) if channel != background]
    both = matrix[..., kept, :][..., kept].sum((-2, -1))
    own, called = matrix[..., kept, :].sum((-2, -1)), matrix[..., kept].sum((-2, -1))
    return _ratio(2 * both, own + called)


def _as_bytes(values: np.ndarray, name: str) -> np.ndarray:
    """(N,) uint8; nothing wraps round."""
    if values.dtype != np.uint8:
        if values.dtype.kind not in "iub" or (values.size and (values.min() < 0 or values.max() >= _VALUES)):
            raise ValueError(f"the {name} must hold whole numbers from 0 to {_VALUES - 1}")
        values = values.astype(np.uint8)
    return values.ravel()


def _ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    top, bottom = np.broadcast_arrays(np.asarray(top, np.float64), np.asarray(bottom, np.float64))
    return np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom > 0)
