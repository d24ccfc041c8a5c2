"""The ridge against scikit-learn's, and its choice of a penalty against leaving slides out in the plain way."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.linear_model import Ridge as Reference

from lamella.methods.expression_ridge import Moments, fit_ridge, left_correlation, sum_of

ALPHAS = (1e-3, 0.1, 1.0, 10.0)


def slides(count: int = 3, places: int = 60, features: int = 8, genes: int = 5) -> list[tuple[np.ndarray, np.ndarray]]:
    """Slides of which few places tell little: the best penalty lies inside the range."""
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(features, genes))
    made = []
    for number in range(count):
        x = rng.normal(size=(places, features)) + 3
        made.append((x, x @ weights + 8 * rng.normal(size=(places, genes)) + number))
    return made


@pytest.mark.parametrize("alpha", ALPHAS)
def test_weights_are_those_of_scikit_learn(alpha: float) -> None:
    data = slides()
    ridge = fit_ridge([Moments.of([pair]) for pair in data], [alpha])
    x, y = np.concatenate([x for x, _ in data]), np.concatenate([y for _, y in data])
    reference = Reference(alpha=alpha * len(x)).fit(x, y)
    np.testing.assert_allclose(ridge.weights_DG, reference.coef_.T, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(ridge.offset_G, reference.intercept_, rtol=1e-8)
    np.testing.assert_allclose(ridge.predict(x.astype(np.float32)), reference.predict(x), rtol=1e-4, atol=1e-4)


def test_the_penalty_is_the_one_that_predicts_left_out_slides_best() -> None:
    data = slides()
    ridge = fit_ridge([Moments.of([pair]) for pair in data], ALPHAS)
    means = []
    for alpha in ALPHAS:
        found = []
        for left, (x, y) in enumerate(data):
            others = [pair for at, pair in enumerate(data) if at != left]
            xs, ys = np.concatenate([x for x, _ in others]), np.concatenate([y for _, y in others])
            predicted = Reference(alpha=alpha * len(xs)).fit(xs, ys).predict(x)
            found += [stats.pearsonr(predicted[:, gene], y[:, gene]).statistic for gene in range(y.shape[1])]
        means.append(np.mean(found))
    np.testing.assert_allclose([score for _, score in ridge.scores], means, rtol=1e-6)
    assert ridge.alpha == ALPHAS[int(np.argmax(means))]


def test_pieces_of_a_slide_add_up() -> None:
    ((x, y),) = slides(1)
    whole, parts = Moments.of([(x, y)]), Moments.of([(x[:13], y[:13]), (x[13:], y[13:])])
    assert parts.count == whole.count
    np.testing.assert_allclose(parts.xx_DD, whole.xx_DD)
    np.testing.assert_allclose(parts.xy_DG, whole.xy_DG)


def test_a_constant_gene_has_no_correlation_and_no_say() -> None:
    data = [(x, np.concatenate([y, np.full((len(y), 1), 0.3)], axis=1)) for x, y in slides()]
    moments = [Moments.of([pair]) for pair in data]
    ridge = fit_ridge(moments, ALPHAS)
    assert np.isnan(left_correlation(moments[0], ridge)[-1])
    alone = fit_ridge([Moments.of([pair]) for pair in slides()], ALPHAS)
    np.testing.assert_allclose([score for _, score in ridge.scores], [score for _, score in alone.scores])


def test_nothing_to_choose_by_is_refused() -> None:
    (pair,) = slides(1)
    with pytest.raises(ValueError, match="at least two"):
        fit_ridge([Moments.of([pair])], ALPHAS)
    still = [Moments.of([(x, np.ones_like(y))]) for x, y in slides()]
    with pytest.raises(ValueError, match="no gene varies"):
        fit_ridge(still, ALPHAS)


def test_values_that_are_not_finite_are_refused() -> None:
    ((x, y),) = slides(1)
    with pytest.raises(ValueError, match="finite"):
        Moments.of([(np.where(x > 4, np.nan, x), y)])
    with pytest.raises(ValueError, match="places"):
        Moments.of([])


def test_the_sum_of_slides_is_the_slide_of_all() -> None:
    data = slides()
    total = sum_of([Moments.of([pair]) for pair in data])
    np.testing.assert_allclose(total.mean_D, np.concatenate([x for x, _ in data]).mean(0))
