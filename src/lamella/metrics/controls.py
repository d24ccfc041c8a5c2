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


def exchange_labels(labels: np.ndarray, slides: np.ndarray, classes: int, seed: int) -> np.ndarray:
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
    names, position = np.unique(slides, return_inverse=True)
    first = np.array([labels[position == number][0] for number in range(len(names))])
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
