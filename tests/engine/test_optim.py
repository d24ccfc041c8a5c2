from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from lamella.engine.optim import OptimSettings, adamw, decays, half_cosine, learning_rate, set_rates, weight_decay

SETTINGS = OptimSettings(warmup=0.2)


def test_the_defaults_are_those_of_the_specification() -> None:
    settings = OptimSettings()
    assert (settings.lr_start, settings.lr, settings.lr_end) == (2e-5, 2e-4, 1e-6)
    assert (settings.weight_decay, settings.weight_decay_end) == (0.04, 0.1)


@pytest.mark.parametrize(
    ("progress", "expected"),
    [
        (0.0, 2e-5),
        (0.1, 1.1e-4),  # half of the warm-up: the middle of 2e-5 and 2e-4
        (0.2, 2e-4),
        (0.6, (2e-4 + 1e-6) / 2),  # half of the cosine
        (0.8, 1e-6 + (2e-4 - 1e-6) * (1 - math.sqrt(0.5)) / 2),  # three quarters: cos(3 pi / 4) = -sqrt(1/2)
        (1.0, 1e-6),
    ],
)
def test_the_learning_rate_follows_its_closed_form(progress: float, expected: float) -> None:
    assert learning_rate(progress, SETTINGS) == pytest.approx(expected, rel=1e-12)


def test_without_warm_up_the_rate_starts_at_its_peak() -> None:
    assert learning_rate(0.0, OptimSettings(warmup=0)) == 2e-4


@pytest.mark.parametrize(("progress", "expected"), [(0.2, 2e-4), (0.4, 1.5025e-4), (1.0, 1e-6)])
def test_the_rate_can_fall_on_a_line(progress: float, expected: float) -> None:
    linear = OptimSettings(warmup=0.2, decay="linear")
    assert learning_rate(progress, linear) == pytest.approx(expected, rel=1e-12)
    assert learning_rate(0.1, linear) == learning_rate(0.1, SETTINGS)


@pytest.mark.parametrize(("progress", "expected"), [(0.0, 0.04), (0.5, 0.07), (1.0, 0.1)])
def test_the_weight_decay_grows_along_a_cosine(progress: float, expected: float) -> None:
    assert weight_decay(progress, SETTINGS) == pytest.approx(expected, rel=1e-12)


def test_half_cosine_agrees_with_torchs_annealing() -> None:
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=3.0)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=40, eta_min=0.5)
    for step in range(40):
        assert half_cosine(3.0, 0.5, step / 40) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        optimizer.step()
        scheduler.step()


def test_only_matrices_are_decayed() -> None:
    module = nn.ModuleDict({"line": nn.Linear(3, 4), "norm": nn.LayerNorm(4), "frozen": nn.Linear(2, 2)})
    module.frozen.requires_grad_(False)
    module.mask_token = nn.Parameter(torch.zeros(1, 1, 4))
    module.position_table = nn.Parameter(torch.zeros(9, 4))
    optimizer = adamw(module, OptimSettings())
    sizes = {group["decays"]: [tuple(p.shape) for p in group["params"]] for group in optimizer.param_groups}
    assert sizes[True] == [(4, 3)]
    assert sorted(sizes[False]) == [(1, 1, 4), (4,), (4,), (4,), (9, 4)]
    assert decays("blocks.0.weight", torch.zeros(4, 3))
    assert not decays("blocks.0.bias", torch.zeros(4))


def test_set_rates_reaches_both_groups() -> None:
    optimizer = adamw(nn.Linear(3, 4), SETTINGS)
    assert set_rates(optimizer, 1.0, SETTINGS) == (pytest.approx(1e-6), pytest.approx(0.1))
    assert [group["lr"] for group in optimizer.param_groups] == [pytest.approx(1e-6)] * 2
    assert [group["weight_decay"] for group in optimizer.param_groups] == [pytest.approx(0.1), 0.0]
