from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.metrics.genes.judged_slides import bins, prepared, shuffled_slides, spots

from lamella.metrics.genes.moran import (
    MORAN_EXCESS,
    MORAN_PREDICTED,
    MORAN_TRUE,
    Neighbours,
    excess_of,
    excess_shuffled,
    moran_of,
    moran_sums,
)


def plain(values, linked, noise=0.0):
    """Moran's definition with a full matrix of weights."""
    z = values - values.mean()
    weights = linked.astype(float)
    return len(z) / weights.sum() * (z @ weights @ z) / (z @ z + noise)


def linked_bins(rc):
    apart = np.abs(rc[:, None] - rc[None]).sum(axis=2)
    return apart == 1


@pytest.mark.parametrize("seed", [0, 1])
def test_equals_the_definition_on_a_lattice_with_a_hole(seed):
    slide = bins(seed, side=18)
    pairs, arrangement, _ = prepared(slide)
    sums = moran_sums(pairs, Neighbours.of(slide, arrangement))
    linked = linked_bins(slide.rc)
    for name, values, noisy in ((MORAN_TRUE, slide.truth, 0), (MORAN_PREDICTED, slide.predicted, 1)):
        expected = [plain(each.astype(float), linked, noisy * each.sum(dtype=float)) for each in values.T]
        assert moran_of(sums[name].sum(axis=0)) == pytest.approx(expected, abs=1e-9)
    both = moran_of(sums[MORAN_PREDICTED].sum(axis=0)) - moran_of(sums[MORAN_TRUE].sum(axis=0))
    assert excess_of(sums[MORAN_EXCESS].sum(axis=0)) == pytest.approx(both)


def test_spots_have_four_neighbours_though_they_lie_a_little_off():
    slide = spots()
    pairs, arrangement, _ = prepared(slide)
    neighbours = Neighbours.of(slide, arrangement)
    assert len(neighbours.one) == 9 * 12 + 10 * 11
    apart = np.abs(np.round(slide.places_um / 200)[:, None] - np.round(slide.places_um / 200)[None]).sum(axis=2)
    expected = [plain(each.astype(float), apart == 1) for each in slide.truth.T]
    assert moran_of(moran_sums(pairs, neighbours)[MORAN_TRUE].sum(axis=0)) == pytest.approx(expected, abs=1e-9)


def test_a_chessboard_is_minus_one_and_halves_are_nearly_one():
    slide = bins(side=40, hole=False, genes=1)
    for truth, low, high in (
        (slide.rc.sum(axis=1) % 2, -1.001, -0.999),
        (slide.rc[:, 0] > slide.rc[:, 0].mean(), 0.97, 1.0),
    ):
        again = replace(slide, truth=truth[:, None].astype(np.float32))
        pairs, arrangement, _ = prepared(again)
        found = moran_of(moran_sums(pairs, Neighbours.of(again, arrangement))[MORAN_TRUE].sum(axis=0))
        assert low <= found[0] <= high


def test_the_prediction_has_the_noise_of_counts_drawn_from_it():
    slide = bins(side=24, hole=False, genes=2, level=0.5)
    pairs, arrangement, _ = prepared(slide)
    found = moran_of(moran_sums(pairs, Neighbours.of(slide, arrangement))[MORAN_PREDICTED].sum(axis=0))
    linked, rng = linked_bins(slide.rc), np.random.default_rng(0)
    for gene in range(2):
        rate = slide.predicted[:, gene].astype(float)
        draws = [plain(rng.poisson(rate).astype(float), linked) for _ in range(60)]
        assert found[gene] == pytest.approx(np.mean(draws), abs=0.01)
        assert plain(rate, linked) > found[gene] + 0.05  # without the noise it would lie above


def test_a_perfect_prediction_has_no_excess_and_a_flat_one_lacks_all():
    slide = bins(side=60, hole=False, level=0.1)
    rates = np.exp(np.sin(slide.rc[:, :1] / 5.0)).repeat(6, axis=1) * 0.1
    slide = replace(slide, truth=np.random.default_rng(0).poisson(rates).astype(np.float32))
    for predicted, share in ((rates, 0.0), (np.full_like(rates, 0.1), -1.0)):
        pairs, arrangement, _ = prepared(slide.with_predicted(predicted.astype(np.float32)))
        sums = moran_sums(pairs, Neighbours.of(slide, arrangement))
        true = moran_of(sums[MORAN_TRUE].sum(axis=0)).mean()
        assert excess_of(sums[MORAN_EXCESS].sum(axis=0)).mean() == pytest.approx(share * true, abs=0.02)
        assert true > 0.03


def test_the_shuffle_in_closed_form_is_the_mean_over_shuffles_of_places():
    slide = bins(side=14, hole=False, genes=2)
    pairs, arrangement, _ = prepared(slide)
    sums = moran_sums(pairs, Neighbours.of(slide, arrangement))
    own = moran_of(sums[MORAN_PREDICTED].sum(axis=0))
    linked, rng = linked_bins(slide.rc), np.random.default_rng(0)
    for gene in range(2):
        values = slide.truth[:, gene].astype(float)
        draws = [plain(rng.permutation(values), linked) for _ in range(300)]
        found = excess_shuffled(sums, 20)[0, gene]
        assert found == pytest.approx(own[gene] - np.mean(draws), abs=4 * np.std(draws) / np.sqrt(300))


def test_exchanged_blocks_would_keep_the_texture():
    """Why the control is not of exchanged blocks."""
    slide = bins(level=5)
    pairs, arrangement, _ = prepared(slide)
    own = moran_of(moran_sums(pairs, Neighbours.of(slide, arrangement))[MORAN_TRUE].sum(axis=0))
    for other in shuffled_slides(slide, 1):
        again, same, _ = prepared(other)
        moved = moran_of(moran_sums(again, Neighbours.of(other, same))[MORAN_TRUE].sum(axis=0))
        assert (moved > 0.3 * own).all()
        assert (own > 0.5).all()
