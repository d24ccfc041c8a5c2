"""Ridge and retrieval on places: expected counts, not logarithms; one training slide is enough."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from scipy import stats

from lamella.errors import LamellaError
from lamella.verbs.expression_stages.evaluation_baselines import Learned, fit_neighbours, fit_ridge_baseline
from lamella.verbs.expression_stages.evaluation_features import PlaceFeatures
from lamella.verbs.expression_stages.evaluation_settings import BaselineSettings

SETTINGS = BaselineSettings(alphas=(1e-3, 0.1, 10), neighbours=(3, 10, 30), retrieval_places=200)
RATES = np.array([0.3, 4.0, 30.0])


class GivenFeatures(PlaceFeatures):
    """Features that are given, in parts of 17 places."""

    def __init__(self, x_ND: np.ndarray, seen: np.ndarray | None = None) -> None:
        self._x, self.width = x_ND.astype(np.float32), x_ND.shape[1]
        self._seen = np.ones(len(x_ND), bool) if seen is None else seen

    def __len__(self) -> int:
        return len(self._x)

    def parts(self) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
        for first in range(0, len(self), 17):
            rows = slice(first, first + 17)
            yield rows, self._x[rows], self._seen[rows]

    def of(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self._x[numbers], self._seen[numbers]


def slide(seed: int, places: int = 120, flat: bool = False) -> Learned:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(places, 4))
    rate = np.exp(0.0 * x[:, :1] if flat else 0.6 * x[:, :1]) * RATES
    truth = rate if flat else rng.poisson(rate)
    return Learned(GivenFeatures(x), truth.astype(np.float32), rng.uniform(0, 100, (places, 2)).astype(np.float32))


def test_a_ridge_on_counts_expects_the_mean_of_the_training_places() -> None:
    """Mistake of the source: raw outputs scored."""
    slides = [slide(0), slide(1)]
    fitted = fit_ridge_baseline(slides, SETTINGS, counts=True, seed=0)
    truth = np.concatenate([each.truth_NG for each in slides])
    predicted = np.concatenate([fitted.predict(each.features) for each in slides])
    np.testing.assert_allclose(predicted.mean(0), truth.mean(0), rtol=0.02)
    assert (predicted > 0).all(), "no place is called impossible"
    other = slide(2)
    found = fitted.predict(other.features)
    assert all(stats.spearmanr(found[:, gene], other.truth_NG[:, gene]).statistic > 0.3 for gene in range(3))


def test_a_ridge_on_values_gives_values() -> None:
    slides = [slide(0), slide(1)]
    minus = [Learned(each.features, -np.log1p(each.truth_NG), each.um) for each in slides]
    predicted = fit_ridge_baseline(minus, SETTINGS, counts=False, seed=0).predict(minus[0].features)
    np.testing.assert_allclose(predicted.mean(0), minus[0].truth_NG.mean(0), rtol=0.1)
    assert (predicted[:, 1:] < 0).all()


def test_one_training_slide_is_left_out_strip_by_strip() -> None:
    (one,) = [slide(0)]
    ridge = fit_ridge_baseline([one], SETTINGS, counts=True, seed=0)
    retrieval = fit_neighbours([one], SETTINGS, seed=0)
    assert "4 strips of the only training slide" in ridge.said
    assert "4 strips of the only training slide" in retrieval.said
    assert len(np.unique(retrieval.memory.slides_M)) == 4


def test_retrieval_draws_the_same_number_of_places_of_each_slide() -> None:
    slides = [slide(0, places=400), slide(1, places=120)]
    memory = fit_neighbours(slides, SETTINGS, seed=0).memory
    assert list(np.bincount(memory.slides_M)) == [100, 100]
    again = fit_neighbours(slides, SETTINGS, seed=0).memory
    np.testing.assert_array_equal(memory.features_MD, again.features_MD)


def test_places_without_features_teach_nothing() -> None:
    whole = slide(0)
    seen = np.ones(120, bool)
    seen[:40] = False
    wrong = whole.truth_NG.copy()
    wrong[:40] = 1e6
    partly = Learned(GivenFeatures(whole.features._x, seen), wrong, whole.um)  # type: ignore[attr-defined]
    right = Learned(GivenFeatures(whole.features._x[40:]), whole.truth_NG[40:], whole.um[40:])  # type: ignore[attr-defined]
    one, other = (
        fit_ridge_baseline([each, slide(1)], SETTINGS, counts=True, seed=0).ridge.weights_DG for each in (partly, right)
    )
    np.testing.assert_allclose(one, other, rtol=1e-6)


def test_the_end_of_what_was_tried_is_said() -> None:
    noise = [Learned(slide(seed).features, slide(seed + 10).truth_NG, slide(seed).um) for seed in (0, 1)]
    said = fit_ridge_baseline(noise, SETTINGS, counts=True, seed=0).said
    assert ("end of what was tried" in said) == any(f"alpha {end:g} " in said for end in (1e-3, 10))


def test_genes_that_do_not_vary_are_an_error() -> None:
    flat = [slide(0, flat=True), slide(1, flat=True)]
    with pytest.raises(LamellaError, match="no gene varies"):
        fit_ridge_baseline(flat, SETTINGS, counts=True, seed=0)
    with pytest.raises(LamellaError, match="no gene varies"):
        fit_neighbours(flat, SETTINGS, seed=0)
