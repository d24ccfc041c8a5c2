from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import d2_tweedie_score
from tests.metrics.genes.judged_slides import bins, prepared, shuffled_slides

from lamella.metrics.genes.deviance import (
    NB,
    POISSON,
    deviance_shuffled,
    deviance_sums,
    explained_of,
    moment_theta,
    nb_deviance,
)


def nb_explained(counts, mu):
    """Twice the likelihood that is missing to the saturated model, by scipy's negative binomial."""
    variance, mean = counts.var(), counts.mean()
    theta = mean**2 / (variance - mean)

    def likelihood(means):
        return stats.nbinom.logpmf(counts, theta, theta / (theta + means)).sum()

    saturated = stats.nbinom.logpmf(counts, theta, theta / (theta + np.maximum(counts, 1e-12))).sum()
    return 1 - (saturated - likelihood(mu)) / (saturated - likelihood(np.full(len(counts), mean)))


def poisson_explained(slide):
    return [
        d2_tweedie_score(y.astype(float), x.astype(float), power=1)
        for x, y in zip(slide.predicted.T, slide.truth.T, strict=True)
    ]


def test_poisson_equals_scikit_learn():
    slide = bins()
    pairs, _, _ = prepared(slide)
    assert explained_of(deviance_sums(pairs)[POISSON].sum(axis=0)) == pytest.approx(poisson_explained(slide), abs=1e-9)


def test_nb_equals_the_likelihood_ratio():
    slide = bins()
    pairs, _, _ = prepared(slide)
    expected = [
        nb_explained(y.astype(float), x.astype(float)) for x, y in zip(slide.predicted.T, slide.truth.T, strict=True)
    ]
    assert explained_of(deviance_sums(pairs)[NB].sum(axis=0)) == pytest.approx(expected, abs=1e-6)


def test_shuffled_equals_the_measure_of_moved_truth():
    slide = bins()
    pairs, _, moved = prepared(slide)
    found = deviance_shuffled(pairs, moved, deviance_sums(pairs))
    others = shuffled_slides(slide)
    assert found[POISSON] == pytest.approx(np.array([poisson_explained(each) for each in others]), abs=1e-9)
    for number, other in enumerate(others):
        again, _, _ = prepared(other)
        assert found[NB][number] == pytest.approx(explained_of(deviance_sums(again)[NB].sum(axis=0)), abs=1e-9)


def test_the_own_mean_explains_nothing_and_the_truth_everything():
    slide = bins()
    for predicted, explained in ((np.broadcast_to(slide.truth.mean(axis=0), slide.truth.shape), 0), (slide.truth, 1)):
        pairs, _, _ = prepared(slide.with_predicted(np.asarray(predicted, np.float32)))
        for sums in deviance_sums(pairs).values():
            assert explained_of(sums.sum(axis=0)) == pytest.approx(np.full(6, explained), abs=1e-4)


def test_theta_by_moments_is_that_of_the_draws():
    rng = np.random.default_rng(0)
    theta, mean = 2.0, 3.0
    counts = rng.negative_binomial(theta, theta / (theta + mean), (1, 200_000)).astype(float)
    assert moment_theta(counts) == pytest.approx([theta], rel=0.05)
    assert moment_theta(np.tile([1.0, 2.0], (1, 50))) == [1e6]  # varies less than a Poisson


def test_a_large_theta_is_a_poisson():
    counts, mu = np.array([0.0, 1, 5, 1e5]), np.array([0.3, 2.0, 5.0, 9e4])
    poisson = 2 * (counts * np.log(np.maximum(counts, 1) / mu) - counts + mu)
    assert nb_deviance(counts, mu, np.array(1e12)) == pytest.approx(poisson, rel=1e-3)


def test_zero_expected_where_something_was_counted_costs_and_stays_finite():
    slide = bins()
    pairs, _, _ = prepared(slide.with_predicted(np.zeros_like(slide.predicted)))
    for sums in deviance_sums(pairs).values():
        explained = explained_of(sums.sum(axis=0))
        assert np.isfinite(explained).all()
        assert (explained < -1).all()


def test_a_gene_without_counts_has_none():
    slide = bins()
    truth = slide.truth.copy()
    truth[:, 2] = 0
    pairs, _, _ = prepared(replace(slide, truth=truth))
    for sums in deviance_sums(pairs).values():
        assert np.array_equal(np.isnan(explained_of(sums.sum(axis=0))), [0, 0, 1, 0, 0, 0])
