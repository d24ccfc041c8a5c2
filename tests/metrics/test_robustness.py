from __future__ import annotations

import numpy as np
import pytest

from lamella.data.splits import group_folds
from lamella.metrics.robustness import (
    DropDesign,
    RobustnessSettings,
    accuracy_drop,
    cell_accuracy,
    cell_sums,
    confounded_hits,
    neighbour_counts,
    robustness_index,
)


def study(slides_per_site: int = 3, per_class: int = 20, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Labels, sites and slides: two classes on every slide, two sites."""
    slides = np.repeat(np.arange(2 * slides_per_site), 2 * per_class)
    labels = np.tile(np.repeat([0, 1], per_class), 2 * slides_per_site)
    return labels, slides % 2, slides


def spread(values: np.ndarray, noise: float = 0.1, seed: int = 0) -> np.ndarray:
    """Features (N, 4): +-1 by value in two dimensions, noise in all."""
    rng = np.random.default_rng(seed)
    features = noise * rng.normal(size=(len(values), 4))
    features[:, :2] += (2.0 * values - 1)[:, None]
    return features


def index_of(features: np.ndarray) -> float:
    labels, sites, slides = study()
    return float(robustness_index(neighbour_counts(features, labels, sites, slides, 10).sum(axis=0)))


def test_features_of_tissue_alone_have_index_one_and_of_the_site_alone_zero() -> None:
    labels, sites, _ = study()
    assert index_of(spread(labels)) == 1
    assert index_of(spread(sites)) == 0


def test_noise_gets_what_the_design_gives_by_chance() -> None:
    # Of 5 other slides 2 share the site: telling neighbours are 3 x half (same class) to 2 x half (other class).
    noise = np.random.default_rng(1).normal(size=(240, 16))
    assert index_of(noise) == pytest.approx(3 / 5, abs=0.06)


def test_neighbours_of_the_same_group_do_not_count() -> None:
    labels, sites, slides = study()
    features = spread(labels) + 100 * np.random.default_rng(0).normal(size=(6, 4))[slides]
    counts = neighbour_counts(features, labels, sites, np.zeros_like(slides), 10)
    assert counts.sum() == 0
    assert np.isnan(robustness_index(counts.sum(axis=0)))


@pytest.mark.parametrize("rotation", range(3))
def test_training_sets_keep_their_size_while_class_and_site_go_together(rotation: int) -> None:
    design = DropDesign(classes=2, sites=2)
    for strength in (0.0, 0.5, 1.0):
        rows = design.cell_rows(40, strength, rotation)
        assert rows.sum(axis=1).tolist() == [40, 40]
        assert rows.sum(axis=0).tolist() == [40, 40]
    assert np.sort(design.cell_rows(40, 1.0, rotation).ravel()).tolist() == [0, 0, 40, 40]


def drop_of(features: np.ndarray, settings: RobustnessSettings) -> tuple[float, float]:
    labels, sites, slides = study()
    folds = group_folds(slides, labels * 2 + sites, 3)
    hits = confounded_hits(features, labels, sites, folds, settings, seed=0)
    sums = cell_sums(hits, labels, sites).sum(axis=0)
    return float(cell_accuracy(sums)[0]), float(accuracy_drop(sums))


def test_a_probe_on_tissue_loses_nothing_and_one_on_tissue_and_site_loses_much() -> None:
    labels, sites, _ = study()
    settings = RobustnessSettings(correlations=(0.5, 1.0), repeats=2)
    accuracy, drop = drop_of(spread(labels), settings)
    assert accuracy > 0.98
    assert drop == pytest.approx(0, abs=0.02)
    mixed = np.concatenate([spread(labels, noise=1.0), 2 * spread(sites, seed=1)], axis=1)
    accuracy, drop = drop_of(mixed, settings)
    assert accuracy > 0.8
    assert drop > 0.15


def test_the_drop_is_the_accuracy_at_zero_minus_the_mean_of_the_others() -> None:
    labels, sites = np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1])
    hits = np.array([[1, 1, 0], [1, 0, 0], [1, 1, 1], [1, 0, 0]], float)
    sums = cell_sums(hits, labels, sites).sum(axis=0)
    assert cell_accuracy(sums).tolist() == [1, 0.5, 0.25]
    assert accuracy_drop(sums) == pytest.approx(1 - (0.5 + 0.25) / 2)


def test_too_few_tiles_in_a_cell_are_refused_with_the_number() -> None:
    labels, sites, slides = study(per_class=2)
    folds = group_folds(slides, labels, 3)
    with pytest.raises(ValueError, match="only 4 tiles"):
        confounded_hits(spread(labels), labels, sites, folds, RobustnessSettings(), seed=0)
