"""Overlap of predicted and true masks, class by class.

Dice = 2 |A and B| / (|A| + |B|). Where a class is neither in the truth nor in the prediction of an image, its Dice is
undefined: such images are left out of the class's mean, never counted as 1.

Letters: N images, C classes (background left out), S weightings.
"""

from __future__ import annotations

import numpy as np

from lamella.formats.label_values import NOT_LABELLED
from lamella.metrics.resamples import WeightedStatistic


def overlaps(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """(C, 3) float64 counts of one image: in both, in the truth, in the prediction; classes are 1..C.

    Args:
        truth: Integers of any shape; 0 is background, NOT_LABELLED is left out whatever is predicted there.
        predicted: The same shape.
        classes: C.

    Raises:
        ValueError: The shapes differ.
    """
    if truth.shape != predicted.shape:
        raise ValueError(f"the truth is {truth.shape} and the prediction {predicted.shape}")
    known = truth != NOT_LABELLED
    truth, predicted = truth[known].astype(np.int64), predicted[known].astype(np.int64)
    both = np.bincount(truth[truth == predicted], minlength=classes + 1)
    own, called = (np.bincount(each, minlength=classes + 1) for each in (truth, predicted))
    return np.stack([each[1 : classes + 1] for each in (both, own, called)], axis=1).astype(np.float64)


def dice(counts: np.ndarray) -> np.ndarray:
    """(..., 3) counts to (...) Dice; NaN where both are empty."""
    both, size = 2 * counts[..., 0], counts[..., 1] + counts[..., 2]
    return np.divide(both, size, out=np.full(both.shape, np.nan), where=size > 0)


def pooled_dice(counts_NC3: np.ndarray, column: int) -> WeightedStatistic:
    """Dice of one class over all pixels of all images, as a function of the images' weights."""
    return lambda weights_SN: dice(weights_SN @ counts_NC3[:, column])


def mean_dice(counts_NC3: np.ndarray, column: int) -> WeightedStatistic:
    """Mean Dice of one class over the images in which it is defined, as a function of the images' weights."""
    each_N = dice(counts_NC3[:, column])
    defined_N = np.isfinite(each_N)
    value_N = np.where(defined_N, each_N, 0)

    def of(weights_SN: np.ndarray) -> np.ndarray:
        count = weights_SN @ defined_N
        return np.divide(weights_SN @ value_N, count, out=np.full(len(count), np.nan), where=count > 0)

    return of
