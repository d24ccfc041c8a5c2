"""Losses of counts against scipy's likelihoods and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from lamella.errors import ConfigError
from lamella.methods.count_losses import (
    Mse,
    MseSettings,
    NegativeBinomial,
    Poisson,
    log_factorial,
    masked_mean,
    poisson_nll,
)
from lamella.methods.expression_losses import check_loss, make_loss
from lamella.methods.focal_counts import Focal, FocalSettings, FocalZinbSettings, focal_weights
from lamella.methods.hurdle import Hurdle, HurdleSettings, truncated_nll
from lamella.methods.multi_resolution import MultiResolution, MultiResolutionSettings, summed
from lamella.models.expression.contract import Prediction


def drawn(genes: int = 4, bins: int = 8, mean: float = 0.3) -> tuple[Prediction, torch.Tensor, torch.Tensor]:
    """A prediction with all that any loss asks for, counts, and a mask with some bins."""
    rng = torch.Generator().manual_seed(5)
    shape = (2, genes, bins, bins)
    log_rate = (torch.randn(shape, generator=rng) * 0.5 + np.log(mean)).requires_grad_()
    zero = torch.randn(shape, generator=rng).requires_grad_()
    theta = torch.randn((1, genes, 1, 1), generator=rng).requires_grad_()
    counts = torch.poisson(torch.full(shape, mean), generator=rng)
    return Prediction(log_rate, zero, theta), counts, torch.rand((2, bins, bins), generator=rng) < 0.6


LOSSES = {
    "mse": Mse("rate"),
    "poisson": Poisson(),
    "nb": NegativeBinomial(),
    "focal": Focal(FocalSettings()),
    "focal_zinb": Focal(FocalZinbSettings()),
    "hurdle": Hurdle(),
    "multi_resolution": MultiResolution(MultiResolutionSettings(sizes_um=(2, 4, 8)), 2.0, 8),
}


@pytest.mark.parametrize("name", LOSSES)
def test_more_genes_of_the_same_do_not_change_the_loss(name: str) -> None:
    # mistake: the masked sum was divided by the pixels alone, so that loss and step grew with the number of genes.
    prediction, counts, mask = drawn()
    twice = Prediction(*(torch.cat([each, each], 1) for each in prediction))
    one, _ = LOSSES[name](prediction, counts, mask)
    two, _ = LOSSES[name](twice, torch.cat([counts, counts], 1), mask)
    assert one.item() > 0
    torch.testing.assert_close(one, two)


@pytest.mark.parametrize("name", LOSSES)
def test_bins_off_the_mask_have_no_say(name: str) -> None:
    prediction, counts, mask = drawn()
    changed = torch.where(mask[:, None], counts, 7.0)
    first, _ = LOSSES[name](prediction, counts, mask)
    second, _ = LOSSES[name](prediction, changed, mask)
    torch.testing.assert_close(first, second)
    first.backward()
    for gradient in (prediction.log_rate.grad, prediction.zero_logit.grad):
        if gradient is not None:
            assert torch.isfinite(gradient).all()
            assert not gradient[~mask[:, None].expand_as(gradient)].any()
    inside = mask[:, None] & ((counts > 0) | (name != "hurdle"))  # a hurdle's zeros are told by its first stage
    assert prediction.log_rate.grad[inside].abs().min() > 0


@pytest.mark.parametrize("name", LOSSES)
def test_zeros_on_tissue_count(name: str) -> None:
    prediction, counts, mask = drawn()
    before, _ = LOSSES[name](prediction, torch.zeros_like(counts), mask)
    before.backward()
    assert before.item() > 0
    # Every rate is pushed down: there is nothing anywhere.
    if name != "hurdle":  # whose zeros are told by the first stage
        assert (prediction.log_rate.grad[mask[:, None].expand_as(counts)] > 0).all()
    else:
        assert (prediction.zero_logit.grad[mask[:, None].expand_as(counts)] < 0).all()


def test_poisson_is_scipys() -> None:
    counts = torch.tensor([0.0, 1.0, 2.0, 30.0, 1000.0])
    rates = torch.tensor([1e-4, 0.5, 3.0, 20.0, 1100.0])
    wanted = -stats.poisson.logpmf(counts.numpy(), rates.double().numpy())
    np.testing.assert_allclose(poisson_nll(counts, rates.log()).numpy(), wanted, rtol=1e-4)


def test_log_factorial_is_exact_for_zero_and_one() -> None:
    assert log_factorial(torch.tensor([[0.0, 1.0, 5.0]])).tolist() == [[0, 0, pytest.approx(np.log(120))]]


def test_squared_error_of_counts_is_that_of_log1p() -> None:
    prediction, counts, mask = drawn()
    loss, _ = Mse("rate")(prediction, counts, mask)
    told = np.log1p(np.exp(prediction.log_rate.detach().double().numpy()))
    wanted = ((told - np.log1p(counts.numpy())) ** 2)[np.broadcast_to(mask[:, None].numpy(), counts.shape)].mean()
    assert loss.item() == pytest.approx(wanted, rel=1e-5)
    values, _ = Mse("value")(Prediction(counts + 0.5), counts, mask)
    assert values.item() == pytest.approx(0.25)


def test_an_empty_mask_has_no_loss() -> None:
    _, counts, mask = drawn()
    assert masked_mean(counts, torch.zeros_like(mask)).item() == 0


# ---- focal ----------------------------------------------------------------------------------------------------------


def test_rare_counts_gain_weight() -> None:
    # mistake: the source's weight was inverted, and rare counts lost theirs.
    counts = torch.zeros(1, 1, 10, 10)
    counts[0, 0, 0, :3] = 1  # 3 %
    log_zero = torch.full_like(counts, -0.03)  # a prediction that knows as much: 97 % zeros
    weights = focal_weights(counts, log_zero, gamma=2.0, alpha=0.5)
    share = (weights * (counts > 0)).sum() / weights.sum()
    assert weights[counts > 0].min() > 100 * weights[counts == 0].max()
    assert share > 0.9


def test_focal_share_grows_with_gamma() -> None:
    prediction, counts, mask = drawn(mean=0.03)
    shares = [
        Focal(FocalSettings(gamma=gamma))(prediction, counts, mask)[1]["weight_of_counts"].item() for gamma in (0, 1, 2)
    ]
    assert shares[0] < shares[1] < shares[2]


def test_focal_without_focus_is_its_base() -> None:
    prediction, counts, mask = drawn()
    for settings, name in ((FocalSettings(gamma=0), "mse"), (FocalSettings(gamma=0, base="poisson"), "poisson")):
        torch.testing.assert_close(
            Focal(settings)(prediction, counts, mask)[0], LOSSES[name](prediction, counts, mask)[0]
        )
    plain = NegativeBinomial()(prediction, counts, mask)[0]
    torch.testing.assert_close(Focal(FocalZinbSettings(gamma=0))(prediction, counts, mask)[0], plain)


# ---- hurdle ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("log_theta", [None, -1.0, 2.0])
def test_hurdles_counts_are_a_distribution_of_one_and_more(log_theta: float | None) -> None:
    y = torch.arange(1.0, 4000).view(1, -1, 1, 1)
    log_rate = torch.full_like(y, 0.7)
    theta = None if log_theta is None else torch.tensor(log_theta).view(1, 1, 1, 1)
    assert truncated_nll(y, log_rate, theta).neg().double().exp().sum().item() == pytest.approx(1.0, abs=1e-5)


def test_hurdle_whose_zeros_are_poissons_is_poisson() -> None:
    prediction, counts, mask = drawn()
    mu = prediction.log_rate.detach().exp()
    logit = -mu - torch.log(-torch.expm1(-mu))  # log(p0 / (1 - p0)) with p0 = exp(-mu)
    hurdle, _ = Hurdle()(Prediction(prediction.log_rate, logit), counts, mask)
    torch.testing.assert_close(hurdle, Poisson()(prediction, counts, mask)[0])


def test_hurdles_stages_are_apart() -> None:
    prediction, counts, mask = drawn()
    loss, logs = Hurdle()(prediction, counts, mask)
    assert loss.item() == pytest.approx(logs["loss_any"].item() + logs["loss_how_many"].item())
    loss.backward()
    none = (counts == 0) & mask[:, None]
    assert not prediction.log_rate.grad[none].any()


# ---- several resolutions --------------------------------------------------------------------------------------------


def test_one_size_is_the_plain_likelihood() -> None:
    prediction, counts, mask = drawn()
    loss = MultiResolution(MultiResolutionSettings(sizes_um=(2,)), 2.0, 8).eval()
    torch.testing.assert_close(loss(prediction, counts, mask)[0], Poisson()(prediction, counts, mask)[0])


def test_coarse_sizes_add_up_rates_and_counts_of_the_mask() -> None:
    prediction, counts, mask = drawn(bins=4)
    _, logs = MultiResolution(MultiResolutionSettings(sizes_um=(2, 8)), 2.0, 4)(prediction, counts, mask)
    seen = mask[:, None].numpy()
    rate = (prediction.log_rate.detach().double().exp().numpy() * seen).sum((2, 3))
    wanted = -stats.poisson.logpmf((counts.numpy() * seen).sum((2, 3)), rate).mean()
    assert logs["loss_8um"].item() == pytest.approx(wanted, rel=1e-5)
    assert summed(counts, 4).sum().item() == counts.sum().item()


def test_learned_weights_settle_at_the_loss_of_their_size() -> None:
    prediction, counts, mask = drawn()
    loss = MultiResolution(MultiResolutionSettings(sizes_um=(2, 4, 8)), 2.0, 8).train()
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.1)
    for _ in range(150):
        optimizer.zero_grad()
        value, logs = loss(Prediction(prediction.log_rate.detach()), counts, mask)
        value.backward()
        optimizer.step()
    wanted = [logs[f"loss_{size}um"].log().item() for size in (2, 4, 8)]
    assert loss.log_uncertainty_S.tolist() == pytest.approx(wanted, abs=0.02)
    # Validations are compared with each other: weights that move have no say there.
    assert loss.eval()(prediction, counts, mask)[0].item() == pytest.approx(sum(np.exp(wanted)), rel=1e-4)


def test_sizes_that_do_not_fit_are_all_named() -> None:
    with pytest.raises(ConfigError) as caught:
        make_loss(MultiResolutionSettings(sizes_um=(2, 3, 8, 32)), "counts", 2.0, 8)
    assert "3 um" in str(caught.value)
    assert "32 um" in str(caught.value)
    assert "8 um is no" not in str(caught.value)


# ---- which loss for what --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["log10_library", "log_cpm", "log_cpm_smoothed", "values"])
def test_count_losses_want_counts(target: str) -> None:
    with pytest.raises(ConfigError, match="is a loss of counts"):
        check_loss(HurdleSettings(), target, "bin")
    check_loss(HurdleSettings(), "log1p", "bin")


def test_spots_have_one_resolution_and_values_no_offset() -> None:
    with pytest.raises(ConfigError, match="a spot is alone"):
        check_loss(MultiResolutionSettings(), "counts", "spot")
    with pytest.raises(ConfigError, match="multiplies rates"):
        check_loss(MseSettings(), "log_cpm", "spot", offset=True)
    check_loss(MseSettings(), "counts", "spot", offset=True)
