from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.metrics.genes.judged_slides import bins, spots

from lamella.metrics.genes.settings import GeneMetricSettings
from lamella.metrics.genes.thinning import noise_ceiling, noise_ceilings

SETTINGS = GeneMetricSettings(block_um=20)


def raw(counts, total):
    """The counts themselves: where the formula is exact."""
    return counts


def test_is_the_correlation_that_the_true_rates_have():
    rng = np.random.default_rng(0)
    rates = rng.gamma(1.0, np.array([0.2, 0.5, 5.0]), (40_000, 3))
    counts = rng.poisson(rates)
    exact = [np.corrcoef(rate, count)[0, 1] for rate, count in zip(rates.T, counts.T, strict=True)]
    # Var(rate) / Var(count) = m^2 / (m^2 + m) of an exponential rate of mean m.
    assert exact == pytest.approx(np.sqrt([0.2 / 1.2, 0.5 / 1.5, 5 / 6]), abs=0.02)
    found = noise_ceiling(counts, counts.sum(axis=1), raw, thinnings=5, seed=0)
    assert found == pytest.approx(exact, abs=0.03)


def test_pure_noise_has_none():
    counts = np.random.default_rng(0).poisson(1.0, (5000, 4))
    assert (noise_ceiling(counts, counts.sum(axis=1), None, thinnings=5, seed=0) < 0.25).all()


def test_the_transform_gets_halves_of_counts_and_totals():
    counts = np.random.default_rng(0).poisson(6.0, (200, 4))
    total = counts.sum(axis=1) + 100
    seen = []

    def transform(half, half_total):
        seen.append((half, half_total))
        return np.log1p(half / half_total[:, None])

    noise_ceiling(counts, total, transform, thinnings=1, seed=0)
    (one, one_total), (other, other_total) = seen
    assert np.array_equal(one + other, counts)
    assert np.array_equal(one_total + other_total, total)
    assert abs(one_total.sum() / total.sum() - 0.5) < 0.02


def test_fractional_and_negative_counts_are_refused():
    for value in (0.5, -1.0):
        counts = np.ones((10, 2))
        counts[3, 1] = value
        with pytest.raises(ValueError, match="whole, non-negative"):
            noise_ceiling(counts, counts.sum(axis=1), None, thinnings=1, seed=0)


def test_all_slides_at_all_resolutions():
    """Mistake: a gene without counts gets a number."""
    slide = bins(side=60, level=1)
    truth = slide.truth.copy()
    truth[:, 2] = 0
    found = noise_ceilings([replace(slide, truth=truth)], SETTINGS)
    assert found.resolutions == (2, 8, 16)
    fine, coarse = (found.at(um)[0].values["pearson"] for um in (2, 8))
    assert np.array_equal(np.isnan(fine), [0, 0, 1, 0, 0, 0])
    assert (np.delete(coarse, 2) > np.delete(fine, 2)).all()  # less noise in larger bins


def test_other_scales_need_their_counts():
    slide = spots()
    with pytest.raises(ValueError, match="its truth is no counts"):
        noise_ceilings([slide], SETTINGS)
    counts = {"spots": np.rint(np.expm1(slide.truth)).astype(int)}
    names = []

    def transform(name, half, total):
        names.append(name)
        return np.log1p(half)

    slide = replace(slide, total=counts["spots"].sum(axis=1).astype(np.float32))
    found = noise_ceilings([slide], SETTINGS, counts=counts, transform=transform)
    assert set(names) == {"spots"}
    plain = noise_ceiling(counts["spots"], slide.total, None, thinnings=5, seed=0)
    assert found.slides[0].values["pearson"] == pytest.approx(plain)
