"""The method: what is trained, and how places become entries of the loss."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
from torch import Tensor

from lamella.engine.optim import OptimSettings, adamw
from lamella.methods.count_losses import MseSettings, NbSettings, PoissonSettings, ZinbSettings
from lamella.methods.expression import ExpressionMethod, views_of
from lamella.methods.expression_losses import AnyExpressionLossSettings
from lamella.methods.multi_resolution import MultiResolutionSettings
from lamella.models.expression.contract import ViewShape
from lamella.models.expression.network import ExpressionNetwork
from lamella.models.expression.settings import AddedSettings, ExpressionModelSettings, LinearDecoderSettings

GENES, BINS = 3, 8
VIEWS = (ViewShape(4, 2.0, BINS), ViewShape(5, 8.0, 6))
SMALL = ExpressionModelSettings(fusion=AddedSettings(), decoder=LinearDecoderSettings(), width=8, dropout=0)


def method_of(
    loss: AnyExpressionLossSettings, target: str = "counts", library: float | None = None, mean: float = 0.2
) -> ExpressionMethod:
    torch.manual_seed(0)
    network = ExpressionNetwork(SMALL, VIEWS, BINS, GENES, loss.needs, loss.rule(target), torch.full((GENES,), mean))
    return ExpressionMethod(network, loss, target, library).train()


def batch_of(kind: str = "bin") -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(1)
    batch = {}
    for number, view in enumerate(VIEWS):
        batch[f"view{number}"] = torch.randn(2, view.width, view.tokens, view.tokens, generator=rng)
        batch[f"seen{number}"] = torch.ones(2, view.tokens, view.tokens, dtype=torch.bool)
    if kind == "spot":
        disk = torch.rand(2, BINS, BINS, generator=rng)
        spots = torch.poisson(torch.full((2, GENES), 4.0), generator=rng)
        return batch | {"spots": spots, "disk": disk, "library": torch.tensor([50.0, 200.0])}
    counts = torch.poisson(torch.full((2, GENES, BINS, BINS), 0.3), generator=rng)
    mask = torch.rand(2, BINS, BINS, generator=rng) < 0.8
    return batch | {"counts": counts, "mask": mask, "library": torch.full((2, BINS, BINS), 10.0)}


def every_loss() -> list[AnyExpressionLossSettings]:
    losses = [settings() for settings in get_args(AnyExpressionLossSettings)]
    return [*losses, ZinbSettings(zero="gene"), MultiResolutionSettings(base="nb", sizes_um=(2, 4))]


def fitting(loss: AnyExpressionLossSettings) -> AnyExpressionLossSettings:
    return loss.model_copy(update={"sizes_um": (2.0, 8.0)}) if isinstance(loss, MultiResolutionSettings) else loss


@pytest.mark.parametrize("loss", every_loss(), ids=lambda loss: f"{loss.name}-{getattr(loss, 'zero', '')}")
def test_every_parameter_is_in_the_optimiser_and_moves(loss: AnyExpressionLossSettings) -> None:
    # mistakes: parameters of the loss in no optimiser; a constant pi; projectors inside no_grad.
    method = method_of(fitting(loss))
    optimizer = adamw(method, OptimSettings(lr_start=1e-2))
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    before = {name: parameter.detach().clone() for name, parameter in method.named_parameters()}
    assert {id(parameter) for parameter in method.parameters()} == held
    for _ in range(2):
        value, logs = method(batch_of("bin"))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        assert value.dtype == torch.float32
        assert not any(log.requires_grad for log in logs.values())
    still = [name for name, parameter in method.named_parameters() if torch.equal(parameter, before[name])]
    assert not still
    if loss.needs.zero != "none":
        assert any("zero" in name for name in before)
    if isinstance(loss, MultiResolutionSettings):
        assert "loss.log_uncertainty_S" in before


@pytest.mark.parametrize("loss", [PoissonSettings(), NbSettings(), ZinbSettings()], ids=lambda loss: loss.name)
def test_a_fresh_method_expects_the_training_mean(loss: AnyExpressionLossSettings) -> None:
    batch = batch_of("spot")
    _, _, values, _, _ = method_of(loss).eval().judged(batch)
    area = batch["disk"].sum((1, 2))
    # The last map's weights begin small, not at nothing.
    assert values[..., 0, 0].flatten().tolist() == pytest.approx(
        (0.2 * area).repeat_interleave(GENES).tolist(), rel=0.05
    )


def test_spots_are_sums_of_bins_and_all_of_them_count() -> None:
    batch = batch_of("spot")
    method = method_of(PoissonSettings()).eval()
    loss, _, values, truth, mask = method.judged(batch)
    rates = method.network(views_of(batch)).log_rate.exp()
    wanted = (rates * batch["disk"][:, None]).sum((-2, -1))
    torch.testing.assert_close(values[..., 0, 0], wanted)
    assert truth.shape == (2, GENES, 1, 1)
    assert mask.all()
    by_hand = (wanted - batch["spots"] * wanted.log() + torch.lgamma(batch["spots"] + 1)).mean()
    torch.testing.assert_close(loss, by_hand)


def test_log1p_targets_are_undone_for_counts_and_kept_for_values() -> None:
    batch = batch_of()
    logged = batch | {"counts": batch["counts"].log1p()}
    plain, _ = method_of(PoissonSettings())(batch)
    again, _, values, truth, _ = method_of(PoissonSettings(), "log1p").judged(logged)
    torch.testing.assert_close(again, plain)
    torch.testing.assert_close(truth, logged["counts"])
    assert values.mean().item() == pytest.approx(math.log1p(0.2), rel=0.05)  # on the target's scale
    mse = method_of(MseSettings(), "log1p", mean=0.1)
    loss, _, values, _, mask = mse.judged(logged)
    wanted = ((values - logged["counts"]) ** 2)[mask[:, None].expand_as(values)].mean()
    torch.testing.assert_close(loss, wanted)


@pytest.mark.parametrize("kind", ["bin", "spot"])
def test_an_offset_multiplies_rates_by_the_library(kind: str) -> None:
    batch = batch_of(kind)
    method = method_of(PoissonSettings(), library=10.0)
    factor = 5.0 if kind == "spot" else 1.0
    prediction, _, _ = method.told(batch)
    told = method._offset(prediction, batch).log_rate - prediction.log_rate
    assert told[0].flatten().tolist() == pytest.approx([math.log(factor)] * told[0].numel(), abs=1e-5)
    # A place without a count has the rate of one, not of none.
    empty = batch | {"library": torch.zeros_like(batch["library"])}
    loss, _, values, _, _ = method.judged(empty)
    assert torch.isfinite(loss)
    torch.testing.assert_close(values, method.judged(batch)[2])  # what is expected knows no library


def test_half_precision_stops_before_the_likelihood() -> None:
    method, batch = method_of(ZinbSettings()), batch_of()
    exact, _ = method(batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _ = method(batch)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact.item(), rel=0.02)
