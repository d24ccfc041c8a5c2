from __future__ import annotations

import numpy as np
import pytest

from lamella.data.splits import group_folds
from lamella.metrics.classes import balanced_accuracy, confusions
from lamella.metrics.controls import exchange_labels
from lamella.metrics.probes import ProbeSettings, knn_probe, linear_probe, standardise

SETTINGS = ProbeSettings(c_grid=(0.01, 1.0), folds=4, knn_k=5)


def tissue(seed: int = 0, slides: int = 8, per_slide: int = 30, shift: float = 3.0) -> tuple[np.ndarray, ...]:
    """Two classes apart by `shift` in dimension 0, a slide effect in the others."""
    rng = np.random.default_rng(seed)
    slide = np.repeat(np.arange(slides), per_slide)
    labels = np.tile([0, 1], slides * per_slide // 2)
    features = 0.5 * rng.normal(size=(len(slide), 6)) + 2 * rng.normal(size=(slides, 6))[slide]
    features[:, 0] = shift * labels + rng.normal(size=len(slide))
    return features.astype(np.float32), labels, slide


def score(labels: np.ndarray, predicted: np.ndarray) -> float:
    return float(balanced_accuracy(confusions(labels, predicted, 2).sum(axis=0)))


def both(features: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> list[float]:
    folds = group_folds(groups, labels, SETTINGS.folds)
    linear = linear_probe(features, labels, groups, folds, group_folds, SETTINGS)
    assert linear.note == ""
    return [score(labels, found.labels) for found in (linear, knn_probe(features, labels, folds, SETTINGS))]


def test_a_class_that_slides_share_is_found_on_unseen_slides() -> None:
    features, labels, slides = tissue(shift=6)
    linear, knn = both(features, labels, slides)
    assert linear > 0.95
    assert knn > 0.6  # the slide effect is in its way


def test_exchanged_labels_fall_to_chance_on_unseen_slides_but_not_where_slides_leak() -> None:
    features, labels, slides = tissue(shift=6)
    honest, leaking = [], []
    for seed in range(4):
        exchanged = exchange_labels(labels, slides, 2, seed)
        folds = group_folds(slides, exchanged, SETTINGS.folds)
        honest.append(score(exchanged, knn_probe(features, exchanged, folds, SETTINGS).labels))
        tile_folds = np.arange(len(labels)) // 2 % SETTINGS.folds
        leaking.append(score(exchanged, knn_probe(features, exchanged, tile_folds, SETTINGS).labels))
    assert np.mean(honest) == pytest.approx(0.5, abs=0.1)
    assert np.mean(leaking) > 0.8  # a tile-by-tile shuffle would hide this


def test_features_without_signal_are_at_chance() -> None:
    features, labels, slides = tissue(shift=0)
    linear, knn = both(features, labels, slides)
    assert linear == pytest.approx(0.5, abs=0.1)
    assert knn == pytest.approx(0.5, abs=0.1)


def test_no_row_is_predicted_by_a_probe_that_saw_its_fold() -> None:
    # Each fold's rows carry a feature that no other fold has and that names their class: only a leak could use it.
    labels, groups = np.tile([0, 1], 40), np.repeat(np.arange(4), 20)
    features = np.zeros((80, 4), np.float32)
    features[np.arange(80), groups] = 2 * labels - 1
    folds = groups
    linear = linear_probe(features, labels, groups, folds, group_folds, SETTINGS)
    assert score(labels, linear.labels) == 0.5


def test_a_solver_that_stops_early_is_named() -> None:
    features, labels, slides = tissue(shift=1)
    hasty = SETTINGS.model_copy(update={"max_iterations": 1, "c_grid": (1.0,)})
    folds = group_folds(slides, labels, 4)
    assert linear_probe(features, labels, slides, folds, group_folds, hasty).note == "4 fit(s) stopped at 1 steps"


def test_standardise_uses_the_training_rows_and_silences_constants() -> None:
    train, test = standardise(np.array([[0.0, 7.0], [2.0, 7.0]]), np.array([[3.0, 9.0]]))
    assert train.tolist() == [[-1.0, 0.0], [1.0, 0.0]]
    assert test.tolist() == [[2.0, 0.0]]
