"""Focal losses: entries on which the network already says the right of "zero" and "some" count less.

weight = alpha (1 - p)^gamma, with p the chance that the prediction gives to what was found there: to no count where
there is none, to at least one where there is some. At 97 % zeros most entries are zeros that are easy to tell (p near
1) and the rare counts are not (p near 0), so the counts gain weight. (The source had p of the other side, and its
counts lost weight.) Where all rates are high (spots), nearly all entries are easy, and little is learned at all.

The weights pull predictions up: expected counts of such a network are too high in sum. That is the price of the method,
and deviances show it.

Shapes: B samples, G genes, n bins along the side of a sample.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from lamella.config import Settings
from lamella.methods.count_losses import Logs, masked_mean, poisson_nll, squared_error
from lamella.methods.zinb import log_probability_of_none, nll
from lamella.models.expression.contract import Prediction
from lamella.models.expression.expectation import Needs, Rule, log_none

Gamma = Annotated[float, Field(ge=0)]
Alpha = Annotated[float, Field(gt=0, lt=1)]
# p may round to 1 in float32; (1 - p)^gamma has an endless gradient at 0 for gamma < 1.
_LEAST = 1e-7


class FocalSettings(Settings):
    """Focal squared error of log(1 + count), as the source meant it, or focal Poisson likelihood."""

    name: Literal["focal"] = "focal"
    base: Literal["mse", "poisson"] = "mse"
    """What is weighted."""
    gamma: Gamma = 2.0
    """How fast easy entries lose weight; 0: not at all. 2 as in the focal loss's own paper (arXiv 1708.02002)."""
    alpha: Alpha = 0.5
    """Share of the weight of entries with a count, against 1 - alpha of those without; both are doubled, so that 0.5
    changes nothing."""

    @property
    def needs(self) -> Needs:
        return Needs()

    @property
    def of_counts_only(self) -> bool:
        return True

    def rule(self, target: str) -> Rule:
        return "rate"


class FocalZinbSettings(Settings):
    """ZINB likelihood with focal weights; the chance of zero is the whole distribution's."""

    name: Literal["focal_zinb"] = "focal_zinb"
    zero: Literal["bin", "gene"] = "bin"
    """bin: the share of structural zeros is predicted at every bin. gene: one for each gene."""
    gamma: Gamma = 2.0
    """How fast easy entries lose weight; 0 is plain ZINB."""
    alpha: Alpha = 0.5
    """Share of the weight of entries with a count."""

    @property
    def needs(self) -> Needs:
        return Needs(self.zero, theta=True)

    @property
    def of_counts_only(self) -> bool:
        return True

    def rule(self, target: str) -> Rule:
        return "zero_inflated"


class Focal(nn.Module):
    """See `FocalSettings` and `FocalZinbSettings`."""

    def __init__(self, settings: FocalSettings | FocalZinbSettings) -> None:
        super().__init__()
        self.settings = settings

    def forward(self, prediction: Prediction, truth_BGnn: Tensor, mask_Bnn: Tensor) -> tuple[Tensor, Logs]:
        """The loss, and the share of the weight that entries with a count have."""
        log_rate, zero, log_theta = prediction
        if isinstance(self.settings, FocalZinbSettings):
            assert zero is not None
            assert log_theta is not None
            values = nll(truth_BGnn, log_rate, log_theta, zero)
            log_zero = log_probability_of_none(log_rate, log_theta, zero)
        else:
            base = self.settings.base
            values = (
                squared_error(prediction, truth_BGnn, "rate") if base == "mse" else poisson_nll(truth_BGnn, log_rate)
            )
            log_zero = log_none(log_rate.float(), None)
        weights = focal_weights(truth_BGnn, log_zero, self.settings.gamma, self.settings.alpha)
        with torch.no_grad():
            whole = masked_mean(weights, mask_Bnn)
            some = masked_mean(weights * (truth_BGnn > 0), mask_Bnn)
        return masked_mean(weights * values, mask_Bnn), {"weight_of_counts": some / whole.clamp(min=_LEAST)}


def focal_weights(counts_BGnn: Tensor, log_zero_BGnn: Tensor, gamma: float, alpha: float) -> Tensor:
    """2 alpha (1 - p)^gamma where there is a count, 2 (1 - alpha) (1 - p)^gamma where there is none.

    Args:
        counts_BGnn: What was found.
        log_zero_BGnn: Logarithm of the predicted chance of no count.
        gamma: See `FocalSettings`.
        alpha: See `FocalSettings`.
    """
    some = counts_BGnn > 0
    # 1 - p: the chance that was given to the other side.
    wrong = torch.where(some, log_zero_BGnn.exp(), -torch.expm1(log_zero_BGnn)).clamp(min=_LEAST)
    return torch.where(some, 2 * alpha, 2 * (1 - alpha)) * wrong**gamma
