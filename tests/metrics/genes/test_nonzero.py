from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score
from tests.metrics.genes.judged_slides import bins, prepared, shuffled_slides, spots

from lamella.metrics.genes.judged import JudgedSlide
from lamella.metrics.genes.nonzero import AUPRC, AUROC, auprc_of, auroc_of, nonzero_shuffled, nonzero_sums

OF = {AUROC: auroc_of, AUPRC: auprc_of}
SKLEARN = {AUROC: roc_auc_score, AUPRC: average_precision_score}


def tied(slide):
    """Predictions of a few values only, as of a model that saw a few kinds of tissue."""
    return replace(slide, predicted=np.round(slide.predicted, 1))


def plain(slide, name, **more):
    return [SKLEARN[name](y > 0, x, **more) for x, y in zip(slide.predicted.T, slide.truth.T, strict=True)]


@pytest.mark.parametrize("name", [AUROC, AUPRC])
@pytest.mark.parametrize("slide", [bins(), tied(bins()), spots()], ids=["bins", "ties", "spots"])
def test_equals_scikit_learn(slide, name):
    pairs, _, _ = prepared(slide)
    assert OF[name](nonzero_sums(pairs)[name].sum(axis=0)) == pytest.approx(plain(slide, name), abs=1e-9)


@pytest.mark.parametrize("name", [AUROC, AUPRC])
@pytest.mark.parametrize("slide", [bins(), tied(bins(level=0.02)), spots()], ids=["dense", "sparse", "spots"])
def test_shuffled_equals_the_measure_of_moved_truth(slide, name):
    pairs, _, moved = prepared(slide)
    expected = np.array([plain(each, name) for each in shuffled_slides(slide)])
    assert nonzero_shuffled(pairs, moved)[name] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name", [AUROC, AUPRC])
@pytest.mark.parametrize("slide", [bins(), tied(bins())], ids=["bins", "ties"])
def test_resamples_follow_the_weighted_measure_to_first_order(slide, name):
    """Small weights on a block move it as scikit-learn's weighted measure moves."""
    pairs, arrangement, _ = prepared(slide)
    sums = nonzero_sums(pairs)[name]
    step = 1e-4
    for block in (0, 7, 15):
        weights = np.ones(len(arrangement.starts))
        weights[block] += step
        places = np.empty(len(slide.truth))
        places[arrangement.order] = np.repeat(weights, arrangement.sizes)
        slope = (OF[name](np.tensordot(weights, sums, axes=1)) - OF[name](sums.sum(axis=0))) / step
        exact = (np.array(plain(slide, name, sample_weight=places)) - plain(slide, name)) / step
        assert slope == pytest.approx(exact, abs=2e-5)


def test_a_constant_prediction_has_chance_level():
    slide = bins()
    pairs, _, _ = prepared(replace(slide, predicted=np.ones_like(slide.predicted)))
    sums = nonzero_sums(pairs)
    assert auroc_of(sums[AUROC].sum(axis=0)) == pytest.approx(np.full(6, 0.5))
    assert auprc_of(sums[AUPRC].sum(axis=0)) == pytest.approx((slide.truth > 0).mean(axis=0))


def test_undefined_where_all_places_or_none_express_and_where_zero_means_nothing():
    slide = bins()
    truth = slide.truth.copy()
    truth[:, 0], truth[:, 1] = 0, truth[:, 1] + 1
    truth[0, 2] = -1
    pairs, _, moved = prepared(replace(slide, truth=truth, scale="log"))
    for name in (AUROC, AUPRC):
        assert np.array_equal(np.isnan(OF[name](nonzero_sums(pairs)[name].sum(axis=0))), [1, 1, 1, 0, 0, 0])
        assert np.array_equal(np.isnan(nonzero_shuffled(pairs, moved)[name][0]), [1, 1, 1, 0, 0, 0])


@settings(max_examples=15)
@given(st.integers(0, 2**32 - 1), st.integers(3, 25), st.integers(1, 4))
def test_few_places_with_many_ties_equal_scikit_learn(seed, places, levels):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, (places, 3)).astype(np.float32)
    truth[:2] = [[0], [1]]
    slide = JudgedSlide(
        "few",
        "A",
        ("a", "b", "c"),
        truth,
        rng.integers(0, levels, truth.shape).astype(np.float32),
        "counts",
        truth.sum(axis=1),
        truth.sum(axis=1),
        None,
        55.0,
        rng.uniform(0, 1000, (places, 2)).astype(np.float32),
    )
    pairs, _, moved = prepared(slide)
    for name, sums in nonzero_sums(pairs).items():
        assert OF[name](sums.sum(axis=0)) == pytest.approx(plain(slide, name), abs=1e-9)
        expected = np.array([plain(each, name) for each in shuffled_slides(slide)])
        assert nonzero_shuffled(pairs, moved)[name] == pytest.approx(expected, abs=1e-9)
