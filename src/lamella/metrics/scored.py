"""Probes that score every class: linear and kNN, fitted on the rows of a part and judged on its test rows.

Letters: N rows, C classes, D width of a feature.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from lamella.metrics.image_study import ImageProbeSettings, ImageStudy, Part
from lamella.metrics.probes import standardise
from lamella.metrics.ranking import auc


@dataclass(frozen=True)
class Scored:
    """(N, C) scores of the judged rows, part after part, and what must be said about the fits."""

    scores: np.ndarray
    note: str = ""


def linear_scores(
    features: np.ndarray, labels: np.ndarray, study: ImageStudy, parts: Sequence[Part] | None = None
) -> Scored:
    """Class probabilities of a logistic regression on standardised features, C chosen without the test rows.

    Args:
        features: (N, D).
        labels: (N,) int, 0..C-1.
        study: Groups, inner folds and the grid of C.
        parts: Other parts than the study's.
    """
    classes, found, notes = len(study.class_names), [], []
    for part in parts or study.parts:
        strength = choose_strength(features, labels, study, part)
        fit = LinearFits(features[part.train], labels[part.train], classes, study.probes)
        found.append(fit.scores(strength, features[part.test]))
        notes += fit.notes
    return Scored(np.concatenate(found), "; ".join(dict.fromkeys(notes)))


def knn_scores(
    features: np.ndarray, labels: np.ndarray, study: ImageStudy, parts: Sequence[Part] | None = None
) -> Scored:
    """Shares of the k nearest training rows' votes by cosine on standardised features, nearer ones weighing more."""
    found = []
    for part in parts or study.parts:
        train, test = standardise(features[part.train], features[part.test])
        k = min(study.probes.knn_k, len(train))
        voters = KNeighborsClassifier(n_neighbors=k, metric="cosine", weights="distance")
        voters.fit(train, labels[part.train])
        found.append(all_classes(voters.predict_proba(test), voters.classes_, len(study.class_names)))
    return Scored(np.concatenate(found))


def choose_strength(features: np.ndarray, labels: np.ndarray, study: ImageStudy, part: Part) -> float:
    """The C with the best macro AUC on the validation rows, else on inner folds; ties go to the strongest.

    With one training group and no validation rows there is nothing to choose on: the middle of the grid.
    """
    grid, classes = sorted(study.probes.c_grid), len(study.class_names)
    if len(grid) == 1:
        return grid[0]
    if len(np.unique(labels[part.val])) > 1:
        fits = LinearFits(features[part.train], labels[part.train], classes, study.probes)
        found = [macro_auc(fits.scores(strength, features[part.val]), labels[part.val]) for strength in grid]
        return grid[int(np.argmax(np.round(found, 6)))]
    train = part.train
    if len(np.unique(study.groups[train])) < 2:
        return grid[len(grid) // 2]
    folds = study.make_folds(study.groups[train], labels[train], study.probes.inner_folds)
    held = np.zeros((len(grid), len(train), classes))
    for fold in np.unique(folds):
        fits = LinearFits(features[train[folds != fold]], labels[train[folds != fold]], classes, study.probes)
        for number, strength in enumerate(grid):
            held[number, folds == fold] = fits.scores(strength, features[train[folds == fold]])
    found = [macro_auc(scores, labels[train]) for scores in held]
    return grid[int(np.argmax(np.round(found, 6)))]


class LinearFits:
    """Logistic regressions of one training set, for one C after another; each starts where the last one stopped.

    Args:
        train: (N, D) features.
        labels: (N,) int, 0..classes-1.
        classes: Columns of the scores; a class that is not in `labels` scores 0.
        settings: The most steps.
        standardised: The features are standardised already, by more rows than the training ones.
        balanced: Weigh the classes alike; otherwise probabilities follow how frequent they are.
    """

    def __init__(
        self,
        train: np.ndarray,
        labels: np.ndarray,
        classes: int,
        settings: ImageProbeSettings,
        *,
        standardised: bool = False,
        balanced: bool = True,
    ) -> None:
        self._like = None if standardised else train
        self._train = self._scaled(train)
        self._labels, self._classes = labels, classes
        self._only = labels[0] if len(np.unique(labels)) == 1 else None
        # tol 1e-3: predictions no longer change there, and the fit takes a fraction of the steps.
        self._probe = LogisticRegression(
            class_weight="balanced" if balanced else None, max_iter=settings.max_iterations, tol=1e-3, warm_start=True
        )
        self._limit = settings.max_iterations
        self.notes: list[str] = []

    def scores(self, strength: float, test: np.ndarray) -> np.ndarray:
        """(M, C) probabilities of `test` by the fit with C = `strength`."""
        if self._only is not None:  # nothing to separate: the one class is the only possible answer
            return np.eye(self._classes)[np.full(len(test), self._only)]
        if not len(test):
            return np.zeros((0, self._classes))
        self._probe.set_params(C=strength)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            self._probe.fit(self._train, self._labels)
        if any(issubclass(warning.category, ConvergenceWarning) for warning in caught):
            self.notes.append(f"a fit stopped at {self._limit} steps")
        return all_classes(self._probe.predict_proba(self._scaled(test)), self._probe.classes_, self._classes)

    def _scaled(self, features: np.ndarray) -> np.ndarray:
        return features if self._like is None else standardise(self._like, features)[1]


def all_classes(proba: np.ndarray, known: np.ndarray, classes: int) -> np.ndarray:
    """Probabilities of the known classes in a table of all; the others get 0."""
    scores = np.zeros((len(proba), classes))
    scores[:, known] = proba
    return scores


def macro_auc(scores_NC: np.ndarray, labels_N: np.ndarray, weights_SN: np.ndarray | None = None) -> np.ndarray | float:
    """AUC of two classes, else the mean over the classes of each against the rest.

    Classes without positives or negatives are left out of the mean; NaN if no class is left. Who shows the number must
    name the classes that never occur.

    Args:
        scores_NC: Score of each class.
        labels_N: True class.
        weights_SN: Weightings of the rows; without them a single number is returned.
    """
    weights = np.ones((1, len(labels_N))) if weights_SN is None else weights_SN
    columns = [1] if scores_NC.shape[1] == 2 else range(scores_NC.shape[1])
    each_CS = np.array([auc(scores_NC[:, column], labels_N == column, weights) for column in columns])
    defined = np.isfinite(each_CS)
    count = defined.sum(0)
    total = np.where(defined, each_CS, 0).sum(0)
    mean_S = np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)
    return float(mean_S[0]) if weights_SN is None else mean_S
