from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from tests.metrics.genes.judged_slides import bins, prepared, shuffled_slides, spots

from lamella.metrics.genes.correlation import (
    pearson_of,
    pearson_shuffled,
    pearson_sums,
    spearman_shuffled,
    spearman_sums,
)


def pearson(slide):
    scale = np.log1p if slide.scale == "counts" else (lambda values: values)
    pairs = zip(scale(slide.predicted).T, scale(slide.truth).T, strict=True)
    return [stats.pearsonr(x.astype(float), y.astype(float)).statistic for x, y in pairs]


def spearman(slide):
    return [stats.spearmanr(x, y).statistic for x, y in zip(slide.predicted.T, slide.truth.T, strict=True)]


@pytest.mark.parametrize("slide", [bins(), spots()], ids=["bins", "spots"])
def test_both_equal_scipy(slide):
    pairs, _, _ = prepared(slide)
    assert pearson_of(pearson_sums(pairs).sum(axis=0)) == pytest.approx(pearson(slide), abs=1e-6)
    assert pearson_of(spearman_sums(pairs).sum(axis=0)) == pytest.approx(spearman(slide), abs=1e-9)


@pytest.mark.parametrize("slide", [bins(), spots()], ids=["bins", "spots"])
def test_shuffled_equals_the_measure_of_moved_truth(slide):
    pairs, _, moved = prepared(slide)
    others = shuffled_slides(slide)
    assert pearson_shuffled(pairs, moved) == pytest.approx(np.array([pearson(each) for each in others]), abs=1e-6)
    assert spearman_shuffled(pairs, moved) == pytest.approx(np.array([spearman(each) for each in others]), abs=1e-9)


def test_a_resample_of_blocks_is_a_weighted_sum():
    slide = bins()
    pairs, arrangement, _ = prepared(slide)
    weights = np.arange(len(arrangement.starts)) % 3
    places = np.repeat(arrangement.order, np.repeat(weights, arrangement.sizes))
    again = replace(
        slide,
        truth=slide.truth[places],
        predicted=slide.predicted[places],
        total=slide.total[places],
        darkness=slide.darkness[places],
        rc=slide.rc[places],
        places_um=slide.places_um[places],
    )
    assert pearson_of(np.tensordot(weights, pearson_sums(pairs), axes=1)) == pytest.approx(pearson(again), abs=1e-6)


def test_constants_have_no_correlation():
    slide = bins()
    truth, predicted = slide.truth.copy(), slide.predicted.copy()
    truth[:, 0], predicted[:, 1], truth[:, 2] = 0, 0.1, 3
    pairs, _, moved = prepared(replace(slide, truth=truth, predicted=predicted))
    for values in (
        pearson_of(pearson_sums(pairs).sum(axis=0)),
        pearson_of(spearman_sums(pairs).sum(axis=0)),
        pearson_shuffled(pairs, moved)[0],
        spearman_shuffled(pairs, moved)[0],
    ):
        assert np.array_equal(np.isnan(values), [True, True, True, False, False, False])


def test_large_counts_with_little_variation_keep_their_digits():
    slide = bins()
    moved_up = replace(slide, scale="log", truth=slide.truth + 1000, predicted=slide.predicted + 1000)
    pairs, _, _ = prepared(moved_up)
    assert pearson_of(pearson_sums(pairs).sum(axis=0)) == pytest.approx(pearson(moved_up), abs=1e-9)
