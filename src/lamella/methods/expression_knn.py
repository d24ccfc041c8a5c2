"""Retrieval: a place's expression is the mean of the training places that look most alike.

Shapes: N asked places, M remembered places, D features, G genes, K neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse

# Similarities held at once: 2,000 places against 5,000 are 40 MB.
_ROWS = 2_000


@dataclass(frozen=True)
class Memory:
    """Training places.

    Attributes:
        features_MD: float32, each of length 1.
        targets_MG: float32.
        slides_M: Number of the slide that each is of.
        neighbours: How many are averaged.
        scores: (neighbours, mean correlation over genes and left-out slides) of all that were tried.
    """

    features_MD: np.ndarray
    targets_MG: np.ndarray
    slides_M: np.ndarray
    neighbours: int
    scores: tuple[tuple[int, float], ...] = ()

    def predict(self, x_ND: np.ndarray) -> np.ndarray:
        """(N, G) float32, the mean of the nearest."""
        found = np.empty((len(x_ND), self.targets_MG.shape[1]), np.float32)
        for first in range(0, len(x_ND), _ROWS):
            near = _nearest(unit_length(x_ND[first : first + _ROWS]), self.features_MD, self.neighbours)
            share = np.full(near.size, 1 / self.neighbours, np.float32)
            starts = np.arange(0, near.size + 1, self.neighbours)
            chosen = sparse.csr_array((share, near.ravel(), starts), shape=(len(near), len(self.features_MD)))
            found[first : first + len(near)] = chosen @ self.targets_MG
        return found


def fit_memory(x_MD: np.ndarray, y_MG: np.ndarray, slides_M: np.ndarray, neighbours: Sequence[int]) -> Memory:
    """Remember training places, with the number of neighbours that predicts each slide best from the others.

    Args:
        x_MD: float, standardised in each slide.
        y_MG: Targets; their mean is what is predicted.
        slides_M: Number of the slide of each; with several numbers to choose from at least two slides.
        neighbours: To choose from; those above the number of places of a training without one slide are left out.

    Raises:
        ValueError: There is nothing to choose by.
    """
    features, targets = unit_length(x_MD), y_MG.astype(np.float32)
    numbers = np.unique(slides_M)
    if len(neighbours) == 1:
        return Memory(features, targets, slides_M, min(neighbours[0], len(features)))
    if len(numbers) < 2:
        raise ValueError("the number of neighbours is chosen by leaving slides out: at least two are needed")
    least = min(int((slides_M != number).sum()) for number in numbers)
    tried = sorted({min(count, least) for count in neighbours})
    found = np.zeros((len(numbers), len(tried)))
    for row, number in enumerate(numbers):
        left = slides_M == number
        found[row] = _left_out(features, targets, left, tried)
    means = [float(np.nanmean(column)) if np.isfinite(column).any() else np.nan for column in found.T]
    if not np.isfinite(means).any():
        raise ValueError("no gene varies on any slide: no number of neighbours can be chosen")
    best = tried[int(np.nanargmax(means))]
    return Memory(features, targets, slides_M, best, tuple(zip(tried, means, strict=True)))


def unit_length(x_ND: np.ndarray) -> np.ndarray:
    """float32 rows of length 1; a row of zeros stays one."""
    x = x_ND.astype(np.float32)
    length = np.linalg.norm(x, axis=1, keepdims=True)
    return x / np.where(length > 0, length, 1)


def _left_out(features: np.ndarray, targets: np.ndarray, left: np.ndarray, tried: Sequence[int]) -> np.ndarray:
    """Mean correlation over genes on one slide, from the others, for each number of neighbours."""
    near = np.concatenate(
        [
            _nearest(part, features[~left], tried[-1])
            for part in np.array_split(features[left], max(1, int(left.sum()) // _ROWS))
        ]
    )
    known, truth = targets[~left], targets[left]
    total, done, found = np.zeros_like(truth), 0, []
    for count in tried:
        for column in range(done, count):
            total += known[near[:, column]]
        done = count
        found.append(_mean_correlation(total / count, truth))
    return np.array(found)


def _nearest(asked_ND: np.ndarray, known_MD: np.ndarray, count: int) -> np.ndarray:
    """(N, K) rows of the most similar, nearest first."""
    similar = torch.from_numpy(asked_ND @ known_MD.T)
    return similar.topk(min(count, similar.shape[1]), dim=1).indices.numpy()  # twice as fast as numpy's argpartition


def _mean_correlation(predicted_NG: np.ndarray, truth_NG: np.ndarray) -> float:
    # What varies by rounding alone does not vary.
    varies = [np.ptp(each, axis=0) > 1e-6 * np.abs(each).max(0) for each in (predicted_NG, truth_NG)]
    p, t = predicted_NG - predicted_NG.mean(0), truth_NG - truth_NG.mean(0)
    length = np.sqrt((p * p).sum(0) * (t * t).sum(0))
    defined = varies[0] & varies[1] & (length > 0)
    return float(((p * t).sum(0)[defined] / length[defined]).mean()) if defined.any() else float("nan")
