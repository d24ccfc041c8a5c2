"""Losses of counts and values: squared error, Poisson, negative binomial (NB) and zero-inflated NB (ZINB).

Every loss is a mean over mask x genes: over all entries that count, zeros on tissue among them. Likelihoods are whole
(with log y!), so that none is below 0 and losses of one kind can be compared.

Shapes: B samples, G genes, n bins along the side of a sample; spots are samples of one bin.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lamella.config import Settings
from lamella.methods.zinb import mean_nll
from lamella.models.expression.contract import Prediction
from lamella.models.expression.expectation import Needs, Rule

Logs = dict[str, Tensor]


class MseSettings(Settings):
    """Squared error of log(1 + count), or of values as they are: the baseline of the source."""

    name: Literal["mse"] = "mse"

    @property
    def needs(self) -> Needs:
        return Needs()

    @property
    def of_counts_only(self) -> bool:
        return False

    def rule(self, target: str) -> Rule:
        return value_rule(target)


class PoissonSettings(Settings):
    """Poisson likelihood: the variance is the mean."""

    name: Literal["poisson"] = "poisson"

    @property
    def needs(self) -> Needs:
        return Needs()

    @property
    def of_counts_only(self) -> bool:
        return True

    def rule(self, target: str) -> Rule:
        return "rate"


class NbSettings(Settings):
    """Negative binomial likelihood: variance mu + mu^2 / theta, with a learned theta for each gene."""

    name: Literal["nb"] = "nb"

    @property
    def needs(self) -> Needs:
        return Needs(theta=True)

    @property
    def of_counts_only(self) -> bool:
        return True

    def rule(self, target: str) -> Rule:
        return "rate"


class ZinbSettings(Settings):
    """Negative binomial with a share pi of structural zeros."""

    name: Literal["zinb"] = "zinb"
    zero: Literal["bin", "gene"] = "bin"
    """bin: pi is predicted at every bin. gene: one learned pi for each gene."""

    @property
    def needs(self) -> Needs:
        return Needs(self.zero, theta=True)

    @property
    def of_counts_only(self) -> bool:
        return True

    def rule(self, target: str) -> Rule:
        return "zero_inflated"


class Mse(nn.Module):
    """See `MseSettings`. `rule` as its settings say: of counts, the rate is compared after log1p."""

    def __init__(self, rule: Rule) -> None:
        super().__init__()
        self.rule = rule

    def forward(self, prediction: Prediction, truth_BGnn: Tensor, mask_Bnn: Tensor) -> tuple[Tensor, Logs]:
        """The loss, and nothing more to log."""
        return masked_mean(squared_error(prediction, truth_BGnn, self.rule), mask_Bnn), {}


class Poisson(nn.Module):
    """See `PoissonSettings`."""

    def forward(self, prediction: Prediction, truth_BGnn: Tensor, mask_Bnn: Tensor) -> tuple[Tensor, Logs]:
        """The loss, and nothing more to log."""
        return masked_mean(poisson_nll(truth_BGnn, prediction.log_rate), mask_Bnn), {}


class NegativeBinomial(nn.Module):
    """NB, and ZINB where the prediction has log-odds of zero."""

    def forward(self, prediction: Prediction, truth_BGnn: Tensor, mask_Bnn: Tensor) -> tuple[Tensor, Logs]:
        """The loss; the mean dispersion and the mean share of structural zeros to log."""
        log_rate, zero, log_theta = prediction
        assert log_theta is not None
        loss = mean_nll(truth_BGnn, log_rate, log_theta, zero, mask_Bnn)
        logs = {"theta": log_theta.detach().float().exp().mean()}
        if zero is not None:
            logs["structural_zeros"] = torch.sigmoid(zero.detach().float()).mean()
        return loss, logs


def value_rule(target: str) -> Rule:
    """Of raw counts the network gives log rates; of every other target the value itself."""
    return "rate" if target == "counts" else "value"


def squared_error(prediction: Prediction, truth_BGnn: Tensor, rule: Rule) -> Tensor:
    """(B, G, n, n): of values as they are, of counts after log1p, where log(1 + exp(log_rate)) is softplus."""
    told = prediction.log_rate.float()
    if rule == "value":
        return (told - truth_BGnn) ** 2
    return (F.softplus(told) - truth_BGnn.log1p()) ** 2


def poisson_nll(counts: Tensor, log_rate: Tensor) -> Tensor:
    """The likelihood mu - y log mu + log y!, entry by entry."""
    log_rate = log_rate.float()
    return log_rate.exp() - counts * log_rate + log_factorial(counts)


def log_factorial(counts: Tensor) -> Tensor:
    """Logarithm of y! in float32; most counts are 0 or 1, and the others alone are computed."""
    flat = counts.flatten()
    above = (flat > 1).nonzero().squeeze(1)
    values = torch.zeros_like(flat, dtype=torch.float32)
    values[above] = torch.lgamma(flat[above].float() + 1)
    return values.view(counts.shape)


def masked_mean(values_BGnn: Tensor, mask_Bnn: Tensor) -> Tensor:
    """Mean over mask x genes, in float32; 0 where the mask is empty: such a batch teaches nothing."""
    weights = mask_Bnn[:, None].float()
    return (values_BGnn.float() * weights).sum() / entries(values_BGnn, mask_Bnn)


def entries(values_BGnn: Tensor, mask_Bnn: Tensor) -> Tensor:
    """How many entries count: bins of the mask times genes, at least 1."""
    # mistake: the source divided by the bins alone, so that its loss grew with the number of genes.
    return (mask_Bnn.sum() * values_BGnn.shape[1]).clamp(min=1).float()
