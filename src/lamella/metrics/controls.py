"""Negative controls: labels that mean nothing any more, made so that a leaking probe would still look good.

Labels shuffled tile by tile are too easy a control: neighbouring tiles of one slide look alike and share their class,
and a shuffle destroys that, so even a probe whose test slides leaked into training falls to chance. Labels are
therefore exchanged in whole slides. Within a slide all tiles of a class stay together; only the meaning that
the slides share is gone. An honest probe across slides falls to chance, a leaking one does not.
"""

from __future__ import annotations

import numpy as np

# Candidates drawn per control. With few slides a random exchange is often the identity, or nearly: the candidate whose
# agreement with the truth is nearest to chance is taken.
_CANDIDATES = 200


def exchange_labels(labels: np.ndarray, slides: np.ndarray, classes: int, seed: int | tuple[int, int]) -> np.ndarray:
    """Exchange labels in whole slides.

    Slides that each have one label swap it among themselves. Where labels vary within slides, each slide renames its
    classes by a cyclic shift (all shifts equally often).

    Args:
        labels: (N,) int, 0..classes-1.
        slides: (N,) the slide of each row.
        classes: C.
        seed: Another seed, another exchange.

    Returns:
        (N,) int labels, the one of the candidates that agrees with the truth nearest to chance.
    """
    rng = np.random.default_rng(seed)
    names, at_first, position = np.unique(slides, return_index=True, return_inverse=True)
    first = labels[at_first]
    whole = bool(np.array_equal(first[position], labels))
    chance = 1 / len(np.unique(labels))
    best, best_gap = labels, np.inf
    for _ in range(_CANDIDATES):
        if whole:
            candidate = first[rng.permutation(len(names))][position]
        else:
            shifts = rng.permutation(np.arange(len(names)) % classes)
            candidate = (labels + shifts[position]) % classes
        gap = abs(_agreement(labels, candidate) - chance)
        if gap < best_gap:
            best, best_gap = candidate, gap
    return best


def _agreement(truth: np.ndarray, other: np.ndarray) -> float:
    """Mean over the true classes of the share that kept its label."""
    return float(np.mean([(other[truth == label] == label).mean() for label in np.unique(truth)]))


def exchange_rows(marks: np.ndarray, groups: np.ndarray, seed: int | tuple[int, int]) -> np.ndarray:
    """Exchange the labels of whole groups, for items of several labels.

    Each group takes the rows of another one (a cyclic shift of the groups by chance), repeated or cut to its own
    length, so that labels that belong together stay together.

    Args:
        marks: (N, C) bool.
        groups: (N,) group of each row.
        seed: Another seed, another exchange.
    """
    rng = np.random.default_rng(seed)
    names, position = np.unique(groups, return_inverse=True)
    order = np.argsort(position, kind="stable")
    bounds = np.r_[0, np.cumsum(np.bincount(position))]
    mixed = rng.permutation(len(names))
    exchanged = np.empty_like(marks)
    for own, other in zip(mixed, np.roll(mixed, 1), strict=True):
        mine, theirs = (order[bounds[group] : bounds[group + 1]] for group in (own, other))
        exchanged[mine] = marks[np.resize(theirs, len(mine))]
    return exchanged
