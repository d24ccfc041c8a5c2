"""Probes: small classifiers on frozen features, judged on groups (patients or slides) that they never saw.

Predictions of all folds are pooled: every row is predicted exactly once, by a probe that saw nothing of its group.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from lamella.config import Settings
from lamella.metrics.classes import balanced_accuracy, confusions

FoldMaker = Callable[[np.ndarray, np.ndarray, int], np.ndarray]
"""(groups (N,), labels (N,), folds) -> (N,) fold of each row; no group in two folds."""


class ProbeSettings(Settings):
    """How the probes are fitted."""

    folds: Annotated[int, Field(ge=2)] = 5
    """Folds over the groups; with fewer groups, one is left out at a time."""
    c_grid: tuple[Annotated[float, Field(gt=0)], ...] = (0.001, 0.01, 0.1, 1.0)
    """Inverse regularisation strengths to choose from, on inner folds of the training groups."""
    inner_folds: Annotated[int, Field(ge=2)] = 3
    """Inner folds for that choice."""
    knn_k: Annotated[int, Field(ge=1)] = 20
    """Neighbours that vote in the kNN probe."""
    max_iterations: Annotated[int, Field(ge=1)] = 500
    """Most steps of the linear probe's solver; a probe that needs more is named in the table."""
    control_draws: Annotated[int, Field(ge=1)] = 3
    """Exchanges of labels behind each negative control."""


@dataclass(frozen=True)
class Predictions:
    """(N,) predicted classes and what must be said about the fits."""

    labels: np.ndarray
    note: str = ""


def linear_probe(
    features: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    folds: np.ndarray,
    make_folds: FoldMaker,
    settings: ProbeSettings,
) -> Predictions:
    """Logistic regression on standardised features, classes weighted equally, C chosen inside each training set.

    Args:
        features: (N, D) float.
        labels: (N,) int.
        groups: (N,) group of each row; the inner folds keep groups apart too.
        folds: (N,) fold of each row; fold f is predicted by a probe fitted on the others.
        make_folds: Makes the inner folds.
        settings: The grid of C and the limits.
    """
    predicted = np.empty(len(labels), np.int64)
    stopped = 0
    for fold in np.unique(folds):
        test = folds == fold
        strength = _choose_c(features[~test], labels[~test], groups[~test], make_folds, settings)
        guess, converged = fit_predict(features[~test], labels[~test], features[test], strength, settings)
        predicted[test] = guess
        stopped += not converged
    note = f"{stopped} fit(s) stopped at {settings.max_iterations} steps" if stopped else ""
    return Predictions(predicted, note)


def knn_probe(features: np.ndarray, labels: np.ndarray, folds: np.ndarray, settings: ProbeSettings) -> Predictions:
    """Vote of the k nearest training rows by cosine on standardised features, nearer ones weighing more."""
    predicted = np.empty(len(labels), np.int64)
    for fold in np.unique(folds):
        test = folds == fold
        train, held_out = standardise(features[~test], features[test])
        k = min(settings.knn_k, len(train))
        voters = KNeighborsClassifier(n_neighbors=k, metric="cosine", weights="distance")
        predicted[test] = voters.fit(train, labels[~test]).predict(held_out)
    return Predictions(predicted)


def majority_probe(labels: np.ndarray, folds: np.ndarray) -> Predictions:
    """The most frequent class of the training folds, whatever the row looks like."""
    predicted = np.empty(len(labels), np.int64)
    for fold in np.unique(folds):
        test = folds == fold
        predicted[test] = np.bincount(labels[~test]).argmax()
    return Predictions(predicted)


def fit_predict(
    train: np.ndarray, labels: np.ndarray, test: np.ndarray, strength: float, settings: ProbeSettings
) -> tuple[np.ndarray, bool]:
    """Fit one linear probe with C = `strength` and predict `test`; also whether the solver converged."""
    if len(np.unique(labels)) == 1:  # nothing to separate: the one class is the only possible answer
        return np.full(len(test), labels[0]), True
    train, test = standardise(train, test)
    # tol 1e-3: predictions no longer change there, and the fit takes a fraction of the steps.
    probe = LogisticRegression(C=strength, class_weight="balanced", max_iter=settings.max_iterations, tol=1e-3)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        probe.fit(train, labels)
    converged = not any(issubclass(warning.category, ConvergenceWarning) for warning in caught)
    return probe.predict(test), converged


def standardise(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both with the mean and standard deviation of `train`; dimensions that are constant there become zero."""
    mean, std = train.mean(axis=0, dtype=np.float64), train.std(axis=0, dtype=np.float64)
    # A spread below float32 rounding of the values is rounding, not signal.
    constant = std <= 1e-6 * np.maximum(1.0, np.abs(mean))
    scale = np.where(constant, 0.0, 1 / np.where(constant, 1.0, std))
    return (train - mean) * scale, (test - mean) * scale


def _choose_c(
    features: np.ndarray, labels: np.ndarray, groups: np.ndarray, make_folds: FoldMaker, settings: ProbeSettings
) -> float:
    """The C with the best pooled balanced accuracy on inner folds; ties go to the strongest regularisation."""
    grid = sorted(settings.c_grid)
    if len(grid) == 1 or len(np.unique(groups)) < 2:
        return grid[len(grid) // 2]  # one training group: nothing to choose on
    folds = make_folds(groups, labels, settings.inner_folds)
    classes = int(labels.max()) + 1
    scores = []
    for strength in grid:
        predicted = np.empty_like(labels)
        for fold in np.unique(folds):
            test = folds == fold
            predicted[test], _ = fit_predict(features[~test], labels[~test], features[test], strength, settings)
        scores.append(float(balanced_accuracy(confusions(labels, predicted, classes).sum(axis=0))))
    return grid[int(np.argmax(np.round(scores, 6)))]
