from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from lamella.metrics.resamples import Resampled, Resamples


def test_the_interval_of_a_mean_is_the_t_interval() -> None:
    values = np.random.default_rng(0).normal(size=20)
    resamples = Resamples(np.arange(20), draws=8000)
    found = resamples.of([lambda weights_SN: weights_SN @ values / weights_SN.sum(1)])
    estimate = resamples.estimate(found, (-10, 10))
    low, high = stats.t.interval(0.95, 19, loc=values.mean(), scale=values.std(ddof=1) / np.sqrt(20))
    assert estimate.value == pytest.approx(values.mean())
    assert (estimate.low, estimate.high) == (pytest.approx(low, abs=0.05), pytest.approx(high, abs=0.05))
    assert (estimate.n, estimate.groups) == (20, 20)


def test_rows_of_a_group_move_together() -> None:
    groups = np.repeat(["a", "b", "c", "d"], 5)
    seen: list[np.ndarray] = []

    def statistic(weights_SN: np.ndarray) -> np.ndarray:
        seen.append(weights_SN)
        return weights_SN.sum(1)

    Resamples(groups, draws=30).of([statistic])
    each = seen[1].reshape(30, 4, 5)
    assert (each == each[..., :1]).all()
    assert (seen[1].sum(1) == 20).all()


def test_a_difference_from_one_more_of_the_same_kind_is_a_prediction_interval() -> None:
    """The judged encoder is one more draw of the very distribution of the random inits: 95 of 100 must hold zero."""
    rng = np.random.default_rng(1)
    resamples = Resamples(np.arange(50), draws=500)
    held = 0
    for _ in range(200):
        judged, others = rng.normal(), rng.normal(size=3)
        gap = Resampled(judged - others, np.tile(judged - others, (500, 1)))
        estimate = resamples.estimate(gap, (-1e9, 1e9), another=True)
        held += estimate.low <= 0 <= estimate.high
    assert 180 <= held <= 200


def test_two_groups_carry_no_interval_and_an_often_undefined_statistic_neither() -> None:
    two = Resamples(np.array([0, 1]))
    estimate = two.estimate(two.of([lambda weights_SN: weights_SN.mean(1)]), (0, 1))
    assert (estimate.low, estimate.high) == (0, 1)
    assert "too few for an interval" in estimate.note
    many = Resamples(np.arange(10))
    half = many.of([lambda weights_SN: np.where(weights_SN[:, 0] > 0, 0.5, np.nan)])
    assert "undefined in" in many.estimate(half, (0, 1)).note


def test_the_mean_of_draws_resamples_draws_and_groups() -> None:
    resamples = Resamples(np.arange(30), draws=4000)
    points = np.array([0.2, 0.4, 0.6, 0.8])
    draws = Resampled(points, np.tile(points, (4000, 1)))
    mean = resamples.over_draws(draws)
    assert mean.point_R == pytest.approx([0.5])
    assert mean.drawn_SR.std() == pytest.approx(points.std() / 2, rel=0.05)  # of a mean of four
