"""Labels exchanged within each part of a split: train among train, validation among validation, test among test.

Exchanged over all rows, the judged ones would get the class balance of the training part, and a probe that only knows
what is frequent would look better than the majority rate of the table.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lamella.metrics.controls import exchange_labels, exchange_rows
from lamella.metrics.image_study import ImageStudy


def exchanged_classes(study: ImageStudy, draw: int) -> np.ndarray:
    """(N,) classes, exchanged between groups within each part; another draw, another exchange."""
    classes, seed = len(study.class_names), study.seed + 1 + draw
    return _in_blocks(
        study,
        study.labels,
        lambda rows, number: exchange_labels(study.labels[rows], study.groups[rows], classes, (seed, number)),
    )


def exchanged_marks(study: ImageStudy, marks: np.ndarray, draw: int) -> np.ndarray:
    """(N, C) bool, exchanged between groups within each part, for items of several labels."""
    seed = study.seed + 1 + draw
    return _in_blocks(study, marks, lambda rows, number: exchange_rows(marks[rows], study.groups[rows], (seed, number)))


def _in_blocks(study: ImageStudy, labels: np.ndarray, exchange: Callable[[np.ndarray, int], np.ndarray]) -> np.ndarray:
    exchanged = labels.copy()
    for number, rows in enumerate(_blocks(study)):
        exchanged[rows] = exchange(rows, number)
    return exchanged


def _blocks(study: ImageStudy) -> list[np.ndarray]:
    """Rows that exchange labels among each other.

    All folds together are one block: each of their rows is judged once and learned from otherwise. One group has no
    other to exchange with: where fitting or judging has no second one, all rows are one block.
    """
    judged, chosen = (np.zeros(len(study.items), bool) for _ in range(2))
    judged[study.test_rows] = True
    for part in study.parts:
        chosen[part.val] = True
    blocks = [np.flatnonzero(judged), np.flatnonzero(chosen & ~judged), np.flatnonzero(~chosen & ~judged)]
    blocks = [rows for rows in blocks if len(rows)]
    if any(len(np.unique(study.groups[rows])) < 2 for rows in blocks):
        return [np.arange(len(study.items))]
    return blocks
