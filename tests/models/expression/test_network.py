from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from tests.models.expression.tiny_expression import SHAPES, network_of, stirred, views_of

from lamella.models.expression.expectation import Needs, Rule, expected
from lamella.models.expression.network import LOG_RATE_RANGE, ExpressionNetwork
from lamella.models.expression.settings import (
    CrossScaleSettings,
    ExpressionModelSettings,
    Hist2STSettings,
    LinearDecoderSettings,
    MiniUNetSettings,
)

RULES: list[tuple[Rule, Needs]] = [
    ("rate", Needs()),
    ("rate", Needs(theta=True)),
    ("zero_inflated", Needs("gene", True)),
    ("zero_inflated", Needs("bin", True)),
    ("hurdle", Needs("bin", False)),
    ("hurdle", Needs("gene", True)),
    ("value", Needs()),
]


@pytest.mark.parametrize(("rule", "needs"), RULES)
@torch.no_grad()
def test_a_fresh_network_says_the_training_mean(rule: Rule, needs: Needs) -> None:
    mean = (0.01, 0.2, 3.0) if rule != "value" else (-1.0, 0.0, 2.0)
    network = network_of(needs=needs, rule=rule, mean=mean)
    found = expected(network(views_of()), rule)
    torch.testing.assert_close(found.mean((0, 2, 3)), torch.tensor(mean), rtol=0.02, atol=0.01 * max(mean))


@pytest.mark.parametrize(("rule", "needs"), RULES)
def test_there_is_what_the_loss_needs_and_all_of_it_learns(rule: Rule, needs: Needs) -> None:
    network = network_of(needs=needs, rule=rule).train()
    found = network(views_of())
    assert found.log_rate.shape == (2, 3, 8, 8)
    shapes = {"none": None, "gene": (1, 3, 1, 1), "bin": (2, 3, 8, 8)}
    assert (None if found.zero_logit is None else tuple(found.zero_logit.shape)) == shapes[needs.zero]
    assert (found.log_theta is not None) == needs.theta
    assert found.log_theta is None or found.log_theta.shape == (1, 3, 1, 1)
    # mistake: pi constant; loss parameters not optimised
    sum(part.square().sum() for part in found if part is not None).backward()
    assert [name for name, weight in network.named_parameters() if weight.grad is None] == []


@torch.no_grad()
def test_a_gene_never_counted_begins_with_a_finite_rate() -> None:
    found = network_of(mean=(0.0, 0.1, 1.0))(views_of()).log_rate
    assert bool(found.isfinite().all())
    assert float(found[:, 0].exp().max()) < 1e-5


@torch.no_grad()
def test_rates_stay_in_their_range_and_values_are_free() -> None:
    for rule, limit in (("rate", LOG_RATE_RANGE[1]), ("value", np.inf)):
        network = network_of(rule=rule)  # type: ignore[arg-type]
        torch.nn.init.constant_(network.rate.bias, 1e4)
        assert float(network(views_of()).log_rate.max()) == pytest.approx(min(1e4, limit), rel=1e-3)


@torch.no_grad()
def test_numbers_are_float32_under_autocast() -> None:
    network = network_of(needs=Needs("bin", True), rule="zero_inflated")
    with torch.autocast("cpu", torch.bfloat16):
        found = network(views_of())
    assert {part.dtype for part in found if part is not None} == {torch.float32}


@pytest.mark.parametrize("decoder", [MiniUNetSettings(), Hist2STSettings(), LinearDecoderSettings()])
@torch.no_grad()
def test_tiles_of_another_side_than_in_training_are_taken(decoder: object) -> None:
    network = stirred(network_of(ExpressionModelSettings(width=16, decoder=decoder)))
    assert network(views_of(bins=20)).log_rate.shape == (2, 3, 20, 20)


@torch.no_grad()
def test_samples_do_not_hear_of_each_other() -> None:
    network, views = stirred(network_of()), views_of(samples=3)
    together = network(views).log_rate
    alone = network(type(views)(*(tuple(part[1:2] for part in group) for group in views))).log_rate
    torch.testing.assert_close(together[1:2], alone, atol=1e-5, rtol=1e-4)


def test_views_that_are_not_finest_first_and_wrong_means_are_refused() -> None:
    with pytest.raises(ValueError, match="finest first, not with tokens of"):
        network_of(shapes=(SHAPES[1], SHAPES[0]))
    for wrong in ([0.1, 0.2], [0.1, np.nan, 1.0], [0.1, -0.1, 1.0]):
        with pytest.raises(ValueError, match="mean of 3 genes must be as many finite numbers"):
            network_of(mean=wrong)
    network_of(mean=[0.1, -0.1, 1.0], rule="value")


def test_widths_are_whole_heads() -> None:
    with pytest.raises(ValidationError, match=r"width \(48\) must be a multiple of 4 x fusion.heads \(5\)"):
        ExpressionModelSettings(fusion=CrossScaleSettings(heads=5))
    with pytest.raises(ValidationError, match=r"multiple of 4 x decoder.heads \(3\)"):
        ExpressionModelSettings(width=32, decoder=Hist2STSettings(heads=3))


def test_the_same_seed_gives_the_same_network() -> None:
    some, same, other = (network_of(seed=seed).state_dict() for seed in (4, 4, 5))
    assert all(torch.equal(some[name], same[name]) for name in some)
    assert any(not torch.equal(some[name], other[name]) for name in some)
    assert isinstance(network_of(), ExpressionNetwork)
