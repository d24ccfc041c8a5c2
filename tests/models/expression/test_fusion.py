from __future__ import annotations

import pytest
import torch
from tests.models.expression.tiny_expression import SHAPES, network_of, stirred, views_of

from lamella.models.expression.contract import Views
from lamella.models.expression.settings import (
    AddedSettings,
    AnyFusionSettings,
    CrossScaleSettings,
    ExpressionModelSettings,
    GatedSettings,
    HierarchicalSettings,
    LinearDecoderSettings,
    NoFusionSettings,
)

FUSIONS: list[AnyFusionSettings] = [
    CrossScaleSettings(heads=2),
    CrossScaleSettings(heads=2, window="full"),
    GatedSettings(),
    HierarchicalSettings(),
    AddedSettings(),
    NoFusionSettings(),
]


def named(fusion: AnyFusionSettings) -> str:
    return f"{fusion.name}-{getattr(fusion, 'window', '')}".rstrip("-")


def settings_of(fusion: AnyFusionSettings, projector: str = "mlp") -> ExpressionModelSettings:
    return ExpressionModelSettings(fusion=fusion, decoder=LinearDecoderSettings(), width=16, projector=projector)


@pytest.mark.parametrize("fusion", FUSIONS, ids=named)
def test_gradients_reach_every_projector_and_every_weight(fusion: AnyFusionSettings) -> None:
    # mistake: projectors inside no_grad; loss parameters not optimised
    network = stirred(network_of(settings_of(fusion))).train()
    network(views_of()).log_rate.square().sum().backward()
    silent = [name for name, weight in network.named_parameters() if weight.grad is None or not weight.grad.any()]
    # A softmax does not see what it adds to all scores alike: keys have no use for their offset but through positions.
    assert silent == []
    assert len(network.projectors) == (1 if isinstance(fusion, NoFusionSettings) else len(SHAPES))


@pytest.mark.parametrize("fusion", FUSIONS, ids=named)
@torch.no_grad()
def test_space_is_kept(fusion: AnyFusionSettings) -> None:
    """What changes in one bin changes that bin, and no other."""
    network, views = stirred(network_of(settings_of(fusion))), views_of()
    first = views.features[0].clone()
    first[:, :, 2, 5] += 1
    before = network(views).log_rate
    apart = (network(Views((first, *views.features[1:]), views.seen)).log_rate - before).abs().amax((0, 1))
    changed = (apart > 1e-6).nonzero().tolist()
    assert changed == [[2, 5]]


@pytest.mark.parametrize("fusion", [f for f in FUSIONS if not isinstance(f, NoFusionSettings)], ids=named)
@torch.no_grad()
def test_a_coarse_token_changes_the_bins_at_its_own_place_most(fusion: AnyFusionSettings) -> None:
    # mistake: misregistered crops; swapped rows and columns
    network, views = stirred(network_of(settings_of(fusion))), views_of(samples=8)
    second = views.features[1].clone()
    second[:, :, 2, 3] += 2  # 48 um of tokens over 16 um of bins: rows 0 to 3, columns 4 to 7
    before = network(views).log_rate
    after = network(Views((views.features[0], second, views.features[2]), views.seen)).log_rate
    quarters = (after - before).abs().mean((0, 1)).view(2, 4, 2, 4).mean((1, 3))
    assert quarters.argmax() == 1, quarters


@pytest.mark.parametrize("fusion", FUSIONS, ids=named)
@torch.no_grad()
def test_what_is_not_seen_changes_nothing(fusion: AnyFusionSettings) -> None:
    network, views = stirred(network_of(settings_of(fusion))), views_of()
    seen = tuple(part.clone() for part in views.seen)
    for part in seen:
        part[:, 0] = False
    other = tuple(
        torch.where(known[:, None], part, torch.nan) for part, known in zip(views.features, seen, strict=True)
    )
    expected = network(Views(views.features, seen)).log_rate
    assert torch.equal(network(Views(other, seen)).log_rate, expected)
    assert bool(expected.isfinite().all())


@torch.no_grad()
def test_without_fusion_only_the_bins_are_looked_at() -> None:
    network, views = stirred(network_of(settings_of(NoFusionSettings()))), views_of()
    others = Views((views.features[0], *(part * 100 for part in views.features[1:])), views.seen)
    assert torch.equal(network(others).log_rate, network(views).log_rate)


@torch.no_grad()
def test_added_with_linear_maps_is_a_linear_model() -> None:
    network = stirred(network_of(settings_of(AddedSettings(), "linear"), mean=None))
    some, others = views_of(seed=1), views_of(seed=2)
    zero = Views(tuple(torch.zeros_like(part) for part in some.features), some.seen)
    summed = Views(tuple(a + b for a, b in zip(some.features, others.features, strict=True)), some.seen)
    at = [network(each).log_rate for each in (some, others, zero, summed)]
    torch.testing.assert_close(at[0] + at[1] - at[2], at[3], atol=1e-4, rtol=1e-4)
