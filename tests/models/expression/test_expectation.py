"""Expected counts against sums of y p(y), and spots against sums of bins."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lamella.models.expression.contract import Prediction
from lamella.models.expression.expectation import (
    LEAST_RATE,
    at_spots,
    expected,
    log_expected,
    on_target_scale,
    starting,
)

RULES = ("value", "rate", "zero_inflated", "hurdle")


def one(value: float) -> torch.Tensor:
    return torch.tensor(value).view(1, 1, 1, 1)


def made(bins: int = 6, theta: bool = False) -> Prediction:
    rng = torch.Generator().manual_seed(2)
    shape = (3, 2, bins, bins)
    log_theta = torch.randn(1, 2, 1, 1, generator=rng) if theta else None
    return Prediction(torch.randn(shape, generator=rng) - 1, torch.randn(shape, generator=rng), log_theta)


@given(mean=st.floats(1e-5, 50), theta=st.booleans(), rule=st.sampled_from(RULES))
def test_a_fresh_network_says_the_training_mean(mean: float, theta: bool, rule: str) -> None:
    start = starting(torch.tensor([mean]), rule, theta=theta)
    zero = None if start.zero_logit_G is None else start.zero_logit_G.view(1, 1, 1, 1)
    log_theta = None if start.log_theta_G is None else start.log_theta_G.view(1, 1, 1, 1)
    told = Prediction(start.log_rate_G.view(1, 1, 1, 1), zero, log_theta)
    assert expected(told, rule).item() == pytest.approx(mean, rel=2e-5)
    assert (zero is not None) == (rule in ("zero_inflated", "hurdle"))


def test_a_gene_that_was_never_counted_starts_finite() -> None:
    for rule in RULES[1:]:
        start = starting(torch.zeros(1), rule, theta=True)
        assert all(torch.isfinite(each).all() for each in start if each is not None)
        assert start.log_rate_G.exp().item() == pytest.approx(LEAST_RATE, rel=0.1)


@pytest.mark.parametrize("log_theta", [None, -0.5, 3.0])
def test_hurdles_expectation_is_the_sum_of_its_counts(log_theta: float | None) -> None:
    mu, p0 = 1.7, 0.8
    y = torch.arange(3000, dtype=torch.float64)
    if log_theta is None:
        log_f = y * math.log(mu) - mu - torch.lgamma(y + 1)
    else:
        theta = math.exp(log_theta)
        log_f = torch.lgamma(y + theta) - math.lgamma(theta) - torch.lgamma(y + 1)
        log_f += theta * math.log(theta / (theta + mu)) + y * math.log(mu / (theta + mu))
    f = log_f.exp()
    wanted = (1 - p0) * float((y * f).sum()) / (1 - float(f[0]))
    told = Prediction(one(math.log(mu)), one(math.log(p0 / (1 - p0))), None if log_theta is None else one(log_theta))
    assert expected(told, "hurdle").item() == pytest.approx(wanted, rel=1e-5)


def test_zero_inflation_takes_its_share() -> None:
    told = Prediction(one(math.log(3.0)), one(math.log(0.25 / 0.75)))
    assert expected(told, "zero_inflated").item() == pytest.approx(2.25)
    # mistake: raw outputs (log rates) were scored; what leaves here is never one.
    assert expected(told, "rate").item() == pytest.approx(3.0)


def test_rates_far_below_the_smallest_number_keep_their_logarithm() -> None:
    told = Prediction(one(-300.0), one(200.0))
    assert log_expected(told, "zero_inflated").item() == pytest.approx(-500)
    disk = torch.full((1, 1, 1), 0.5)
    assert at_spots(told, disk, "rate").log_rate.item() == pytest.approx(-300 + math.log(0.5))


@pytest.mark.parametrize("rule", ["rate", "zero_inflated"])
def test_a_spot_is_the_sum_of_its_bins(rule: str) -> None:
    told, disk = made(), torch.rand(3, 6, 6, generator=torch.Generator().manual_seed(1))
    disk[:, 0] = 0  # outside
    spots = expected(at_spots(told, disk, rule), rule)[..., 0, 0]
    wanted = (expected(told, rule) * disk[:, None]).sum((-2, -1))
    torch.testing.assert_close(spots, wanted, rtol=1e-5, atol=0)


def test_values_of_a_spot_are_their_mean() -> None:
    told, disk = made(), torch.rand(3, 6, 6, generator=torch.Generator().manual_seed(1))
    spots = at_spots(told, disk, "value").log_rate[..., 0, 0]
    wanted = (told.log_rate * disk[:, None]).sum((-2, -1)) / disk.sum((-2, -1))[:, None]
    torch.testing.assert_close(spots, wanted)


def test_a_spot_of_one_whole_bin_is_that_bin() -> None:
    told = Prediction(*(None if each is None else each[..., :1, :1] for each in made()[:2]))
    for rule in RULES:
        spot = at_spots(told, torch.ones(3, 1, 1), rule)
        torch.testing.assert_close(expected(spot, rule), expected(told, rule))


def test_gradients_through_a_spot_are_finite_and_end_at_its_rim() -> None:
    log_rate = made().log_rate.requires_grad_()
    zero = made().zero_logit.requires_grad_()
    disk = torch.zeros(3, 6, 6)
    disk[:, 2:4, 2:4] = 0.7
    for rule in RULES:
        log_rate.grad = None
        expected(at_spots(Prediction(log_rate, zero), disk, rule), rule).sum().backward()
        assert torch.isfinite(log_rate.grad).all()
        assert (log_rate.grad != 0).any((0, 1)).equal(disk[0] > 0)


def test_log1p_targets_are_told_as_such() -> None:
    counts = torch.tensor([0.0, 3.0])
    assert on_target_scale(counts, "rate", "log1p").tolist() == pytest.approx([0, math.log(4)])
    assert on_target_scale(counts, "rate", "counts").tolist() == [0, 3]
    assert on_target_scale(counts, "value", "log1p").tolist() == [0, 3]
