from __future__ import annotations

import numpy as np
import pytest

from lamella.metrics.representation import alpha_req, lidar, per_dimension_std, rankme, variance_shares


@pytest.mark.parametrize("dim", [1, 4, 16])
def test_equal_singular_values_have_full_rank(dim: int) -> None:
    assert rankme(np.eye(dim)) == pytest.approx(dim, rel=1e-4)


def test_a_rank_one_matrix_has_rank_one() -> None:
    assert rankme(np.outer(np.arange(1, 40), np.arange(1, 9))) == pytest.approx(1, abs=1e-3)


def test_two_unequal_singular_values_follow_the_formula() -> None:
    share = np.array([0.75, 0.25])
    assert rankme(np.diag([3.0, 1.0])) == pytest.approx(np.exp(-(share * np.log(share)).sum()), rel=1e-4)


def test_scale_does_not_matter_and_zero_has_no_rank() -> None:
    features = np.random.default_rng(0).normal(size=(50, 8))
    assert rankme(1000 * features) == pytest.approx(rankme(features))
    assert rankme(np.zeros((5, 3))) == 0


def test_collapse_to_one_point_shows_in_both() -> None:
    collapsed = np.tile(np.arange(1.0, 9.0), (50, 1))
    assert rankme(collapsed) == pytest.approx(1, abs=1e-3)
    assert per_dimension_std(collapsed).max() == 0


@pytest.mark.parametrize("features", [np.zeros(3), np.zeros((0, 3)), np.array([[1.0, np.nan]])])
def test_what_has_no_rank_is_refused(features: np.ndarray) -> None:
    with pytest.raises(ValueError, match="finite"):
        rankme(features)
    with pytest.raises(ValueError, match="finite"):
        per_dimension_std(features)


@pytest.mark.parametrize("alpha", [0.0, 0.7, 2.0])
def test_a_power_law_gives_its_exponent(alpha: float) -> None:
    """Orthogonal columns about a mean of 0, whose variances fall by the law."""
    waves = np.linalg.qr(np.hstack([np.ones((64, 1)), np.random.default_rng(0).normal(size=(64, 12))]))[0][:, 1:]
    features = waves * np.arange(1, 13.0) ** (-alpha / 2)
    assert alpha_req(features) == pytest.approx(alpha, abs=1e-9)
    assert alpha_req(1e-3 * features + 5) == pytest.approx(alpha, abs=1e-6)  # scale and mean do not matter


def test_what_is_left_of_a_collapse_has_no_spectrum() -> None:
    assert np.isnan(alpha_req(np.ones((20, 4))))
    assert np.isnan(alpha_req(np.outer(np.arange(20.0), [1, 2, 3])))  # one direction; the rest is rounding
    noise = np.random.default_rng(0).normal(size=(4000, 8))
    assert alpha_req(noise) == pytest.approx(0, abs=0.1)


def test_lidar_counts_the_directions_that_tell_images_apart() -> None:
    rng = np.random.default_rng(0)
    images = np.zeros((40, 1, 10))
    images[:, 0, :4] = 10 * np.linalg.qr(np.hstack([np.ones((40, 1)), rng.normal(size=(40, 4))]))[0][:, 1:]
    views = np.zeros((1, 2, 10))
    views[0, :, 9] = 3, -3
    assert lidar(images + views) == pytest.approx(4, rel=1e-4)
    assert lidar(1000 * (images + views)) == pytest.approx(4, rel=1e-4)
    # A direction that varies between views as much as between images counts for nothing.
    shaky = np.repeat(images, 2, axis=1)
    shaky[..., 0] += 100 * rng.normal(size=(40, 2))
    assert lidar(shaky) == pytest.approx(3, abs=0.1)


def test_lidar_of_one_point_is_zero_and_needs_two_views() -> None:
    assert lidar(np.ones((5, 2, 3))) == 0
    assert lidar(np.random.default_rng(0).normal(size=(500, 2, 6))) > 5  # noise looks healthy
    for shape in [(5, 1, 3), (1, 2, 3), (5, 3)]:
        with pytest.raises(ValueError, match="two images and views"):
            lidar(np.ones(shape))


def test_shares_of_position_and_image_follow_the_formula() -> None:
    rng = np.random.default_rng(0)
    by_position, by_image = rng.normal(size=(1, 30, 5)), 2 * rng.normal(size=(20, 1, 5))
    position, image = variance_shares(by_position + by_image)
    expected = by_position.var(axis=1).sum() / (by_position.var(axis=1).sum() + by_image.var(axis=0).sum())
    assert (position, image) == pytest.approx((expected, 1 - expected))
    assert variance_shares(np.repeat(by_position, 20, axis=0)) == pytest.approx((1, 0), abs=1e-9)
    assert variance_shares(rng.normal(size=(20, 30, 5))) == pytest.approx((1 / 20, 1 / 30), rel=0.3)  # noise
    assert np.isnan(variance_shares(np.full((3, 4, 2), 0.1, np.float32))).all()
    with pytest.raises(ValueError, match=r"\(N, T, D\)"):
        variance_shares(np.ones((3, 4)))
