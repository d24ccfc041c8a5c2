from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from lamella.engine.optim import OptimSettings, adamw, set_rates, set_trained
from lamella.engine.stages import Stage, check_stages, rate_in, rows_naming
from lamella.errors import ConfigError

# The source's third version: frozen for ten epochs, then the last stages, then all of it at a tenth of that.
TABLE = (
    Stage(from_epoch=11, parameters=("encoder.blocks.[23].*",), lr=6e-6),
    Stage(from_epoch=26, parameters=("encoder.*",), lr=6e-7),
)


def rate(name: str, epoch: int, stages: tuple[Stage, ...] = TABLE, scheduled: float = 1e-4) -> float:
    return rate_in(epoch, rows_naming(name, stages), stages, scheduled)


@pytest.mark.parametrize(
    ("name", "epoch", "expected"),
    [
        ("head.weight", 1, 1e-4),  # named by no row: the schedule throughout
        ("head.weight", 40, 1e-4),
        ("encoder.blocks.2.weight", 10, 0.0),
        ("encoder.blocks.2.weight", 11, 6e-6),
        ("encoder.blocks.2.weight", 25, 6e-6),
        ("encoder.blocks.2.weight", 26, 6e-7),  # the later row decides
        ("encoder.blocks.0.weight", 25, 0.0),
        ("encoder.blocks.0.weight", 26, 6e-7),
    ],
)
def test_the_rate_of_a_parameter_follows_the_table(name: str, epoch: int, expected: float) -> None:
    assert rate(name, epoch) == expected


def test_a_factor_follows_the_schedule_and_a_rate_does_not() -> None:
    stages = (Stage(parameters=("a",), factor=0.6), Stage(parameters=("b",), lr=3e-6), Stage(parameters=("c",)))
    assert [rate(name, 1, stages, 5e-6) for name in "abcd"] == [pytest.approx(3e-6), 3e-6, 5e-6, 5e-6]


def test_of_one_epoch_the_lower_row_decides_wherever_it_stands_among_others() -> None:
    stages = (
        Stage(from_epoch=3, parameters=("*",), factor=0.1),
        Stage(from_epoch=1, parameters=("*",), factor=1),
        Stage(from_epoch=3, parameters=("x",), factor=0),
    )
    assert [rate("x", epoch, stages, 1.0) for epoch in (1, 2, 3)] == [1, 1, 0]
    assert rate("y", 3, stages, 1.0) == pytest.approx(0.1)


def test_a_row_with_both_rates_is_refused() -> None:
    with pytest.raises(ValidationError, match="factor and lr are both given"):
        Stage(parameters=("*",), factor=1, lr=1e-3)


def test_a_pattern_that_names_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'encodr\.\*' \(from epoch 4\) names no parameter"):
        check_stages(["encoder.weight", "head.weight"], (Stage(from_epoch=4, parameters=("encodr.*",)),))


def test_epochs_without_anything_to_train_are_refused() -> None:
    with pytest.raises(ConfigError, match="nothing is trained from epoch 1 on"):
        check_stages(["encoder.weight"], (Stage(from_epoch=2, parameters=("*",)),))
    stages = (Stage(parameters=("*",)), Stage(from_epoch=5, parameters=("*",), factor=0))
    with pytest.raises(ConfigError, match="nothing is trained from epoch 5 on"):
        check_stages(["encoder.weight"], stages)


def two_parts() -> nn.ModuleDict:
    torch.manual_seed(0)
    return nn.ModuleDict({"encoder": nn.Linear(3, 4), "head": nn.Linear(4, 2)})


def step(module: nn.ModuleDict, optimizer: torch.optim.Optimizer, settings: OptimSettings, epoch: int) -> None:
    set_trained(optimizer, settings, epoch)
    set_rates(optimizer, 0.5, settings, epoch)
    optimizer.zero_grad(set_to_none=True)
    module["head"](module["encoder"](torch.ones(5, 3))).square().mean().backward()
    optimizer.step()


def test_what_is_frozen_does_not_drift_and_has_no_state() -> None:
    """Weight decay alone would move it; moments of a frozen encoder would be twice its size for nothing."""
    settings = OptimSettings(
        weight_decay=0.5,
        weight_decay_end=0.5,
        stages=(
            Stage(from_epoch=2, parameters=("encoder.*",)),
            Stage(from_epoch=3, parameters=("encoder.bias",), factor=0),
        ),
    )
    module = two_parts()
    optimizer = adamw(module, settings)
    before = module["encoder"].weight.detach().clone()
    for _ in range(3):
        step(module, optimizer, settings, epoch=1)
    assert torch.equal(module["encoder"].weight, before)
    assert set(optimizer.state) == set(module["head"].parameters())
    step(module, optimizer, settings, epoch=2)
    assert not torch.equal(module["encoder"].weight, before)
    assert len(optimizer.state) == 4
    bias = module["encoder"].bias.detach().clone()
    step(module, optimizer, settings, epoch=3)
    assert torch.equal(module["encoder"].bias, bias)
    assert module["encoder"].bias not in optimizer.state


def test_without_a_table_the_optimiser_is_as_it_was() -> None:
    optimizer = adamw(two_parts(), OptimSettings())
    plain = torch.optim.AdamW([{"params": [nn.Parameter(torch.zeros(1))], "decays": True}])
    assert [set(group) for group in optimizer.param_groups] == [set(plain.param_groups[0])] * 2
    assert not set_trained(optimizer, OptimSettings(), 1)
