"""Few labels: which training rows get one. Draws hold every class, and spread over as many groups as there are.

Several images of one patient are not several independent labels, so a class takes one row of each of its groups before
it takes a second of any.
"""

from __future__ import annotations

import numpy as np


def shot_rows(
    rows: np.ndarray, labels: np.ndarray, groups: np.ndarray, shots: int, rng: np.random.Generator
) -> np.ndarray:
    """Sorted row numbers: `shots` of every class among `rows`.

    Args:
        rows: Row numbers to draw from.
        labels: (N,) int class of every row of the study.
        groups: (N,) group of every row.
        shots: Rows of each class.
        rng: Where chance comes from.

    Raises:
        ValueError: A class has fewer rows.
    """
    drawn = []
    for label in np.unique(labels[rows]):
        own = rows[labels[rows] == label]
        if len(own) < shots:
            raise ValueError(f"class {label} has {len(own)} rows, {shots} are asked for")
        drawn.append(_over_groups(own, groups, rng)[:shots])
    return np.sort(np.concatenate(drawn))


def share_rows(
    rows: np.ndarray, labels: np.ndarray, groups: np.ndarray, share: float, rng: np.random.Generator
) -> np.ndarray:
    """Sorted row numbers: this share of every class among `rows`, at least one of each; all of them for 1."""
    if share >= 1:
        return np.sort(rows)
    drawn = []
    for label in np.unique(labels[rows]):
        own = rows[labels[rows] == label]
        drawn.append(_over_groups(own, groups, rng)[: max(1, round(share * len(own)))])
    return np.sort(np.concatenate(drawn))


def _over_groups(rows: np.ndarray, groups: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The rows by chance: one of each group, then a second of each that has one, and so on."""
    mixed = rng.permutation(rows)
    _, position = np.unique(groups[mixed], return_inverse=True)
    order = np.argsort(position, kind="stable")
    ordered = position[order]
    first = np.r_[0, np.flatnonzero(ordered[1:] != ordered[:-1]) + 1]
    turn = np.empty(len(mixed), np.int64)
    turn[order] = np.arange(len(mixed)) - np.repeat(first, np.diff(np.r_[first, len(mixed)]))
    return mixed[np.argsort(turn, kind="stable")]
