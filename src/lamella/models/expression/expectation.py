"""From what a network says of every bin to expected counts: nothing else of it is ever scored or written.

Four rules, by the loss that a network was trained with:

- value: its output is the expected value itself (losses on values such as log10(1 + counts per 10,000)).
- rate: exp(log_rate).
- zero_inflated: (1 - pi) mu, with pi = sigmoid(zero_logit).
- hurdle: (1 - p0) mu / (1 - P0(mu)), with p0 = sigmoid(zero_logit) and P0 the count part's own chance of no count
  (exp(-mu) of Poisson, (theta / (theta + mu))^theta of the negative binomial).

All is added up and multiplied as logarithms, so that rates far below 1e-38 neither vanish nor become -inf.

Shapes: B samples, G genes, n bins along the side of a sample; a spot is (B, G, 1, 1).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lamella.models.expression.contract import Prediction

Rule = Literal["value", "rate", "zero_inflated", "hurdle"]
Zero = Literal["none", "gene", "bin"]

# A gene that was never counted in training starts as if it were once in a million bins: its logarithm is finite.
LEAST_RATE = 1e-6
# Where the dispersion of NB and ZINB starts: theta = 1, the geometric distribution, between Poisson and all-or-nothing.
START_LOG_THETA = 0.0
# Where the share of structural zeros starts: few, so that the mean rate explains the zeros first.
START_STRUCTURAL = 0.05


class Needs(NamedTuple):
    """What a loss asks of the network beside the rate.

    Attributes:
        zero: A log-odds of zero for each bin, one for each gene, or none.
        theta: An inverse dispersion for each gene.
    """

    zero: Zero = "none"
    theta: bool = False


class Start(NamedTuple):
    """Biases with which a network of zero weights says the training mean of every gene. None: not needed."""

    log_rate_G: Tensor
    zero_logit_G: Tensor | None
    log_theta_G: Tensor | None


def expected(prediction: Prediction, rule: Rule) -> Tensor:
    """(B, G, n, n) float32 expected counts, or expected values of the rule `value`."""
    if rule == "value":
        return prediction.log_rate.float()
    return log_expected(prediction, rule).exp()


def log_expected(prediction: Prediction, rule: Rule) -> Tensor:
    """(B, G, n, n) natural logarithm of the expected counts."""
    log_rate = prediction.log_rate.float()
    if rule == "rate":
        return log_rate
    if rule == "value":
        raise ValueError("a network of values has no rates")
    assert prediction.zero_logit is not None
    log_kept = F.logsigmoid(-prediction.zero_logit.float())
    if rule == "zero_inflated":
        return log_rate + log_kept
    return log_rate + log_kept - log_some(log_rate, prediction.log_theta)


def log_none(log_rate: Tensor, log_theta: Tensor | None) -> Tensor:
    """Logarithm of a count part's own chance of no count: -mu of Poisson, -theta log(1 + mu / theta) of NB."""
    if log_theta is None:
        return -log_rate.exp()
    return -log_theta.float().exp() * F.softplus(log_rate - log_theta.float())


def log_some(log_rate: Tensor, log_theta: Tensor | None) -> Tensor:
    """Logarithm of its chance of at least one: log(1 - P0), exact where P0 is nearly 1."""
    return torch.log(-torch.expm1(log_none(log_rate, log_theta)))


def at_spots(prediction: Prediction, disk_Bnn: Tensor, rule: Rule) -> Prediction:
    """What a prediction of bins says of the spot that covers them, as a sample of one bin.

    Rates add up, each times the share of its bin that lies under the spot. The share of structural zeros of a spot is
    the mean of its bins' weighted by rate, which keeps the expected count of the spot the sum of its bins'; the
    log-odds of a hurdle, and values, are averaged by area.

    Args:
        prediction: Of (B, G, n, n) bins.
        disk_Bnn: Share of each bin under the spot, 0 to 1.
        rule: Of the network.

    Returns:
        (B, G, 1, 1) each; what is one for each gene stays so.
    """
    disk = disk_Bnn.float()[:, None]
    if rule == "value":
        return prediction._replace(log_rate=_mean(prediction.log_rate.float(), disk))
    log_area = disk.log()  # -inf outside the disk, where nothing is added
    parts = prediction.log_rate.float() + log_area
    rate = _log_sum(parts)
    zero = prediction.zero_logit
    if zero is None or zero.shape[-1] == 1:
        return prediction._replace(log_rate=rate)
    if rule == "hurdle":
        return prediction._replace(log_rate=rate, zero_logit=_mean(zero.float(), disk))
    structural = _log_sum(parts + F.logsigmoid(zero.float()))
    return prediction._replace(log_rate=rate, zero_logit=structural - _log_sum(parts + F.logsigmoid(-zero.float())))


def on_target_scale(values: Tensor, rule: Rule, target: str) -> Tensor:
    """Expected counts as the study's target has them: log1p of them where that is the target, else as they are."""
    return values.log1p() if rule != "value" and target == "log1p" else values


def starting(mean_G: Tensor, rule: Rule, *, theta: bool = False) -> Start:
    """Biases that make a network of zero weights say the training mean; see `Start`.

    Args:
        mean_G: Mean count of a bin (or mean value) over the training places of each gene.
        rule: Of the loss.
        theta: Whether it has an inverse dispersion.
    """
    mean_G = mean_G.float()
    log_theta_G = torch.full_like(mean_G, START_LOG_THETA) if theta else None
    if rule == "value":
        return Start(mean_G, None, log_theta_G)
    log_mean_G = mean_G.clamp(min=LEAST_RATE).log()
    if rule == "rate":
        return Start(log_mean_G, None, log_theta_G)
    if rule == "zero_inflated":
        zero_G = torch.full_like(mean_G, START_STRUCTURAL).logit()
        return Start(log_mean_G - F.logsigmoid(-zero_G), zero_G, log_theta_G)
    # With p0 = P0(mu) a hurdle is its count part: the mean is mu.
    zero_G = log_none(log_mean_G, log_theta_G) - log_some(log_mean_G, log_theta_G)
    return Start(log_mean_G, zero_G, log_theta_G)


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    """(B, G, 1, 1) weighted means over the bins."""
    return (values * weights).sum((-2, -1), keepdim=True) / weights.sum((-2, -1), keepdim=True)


def _log_sum(parts: Tensor) -> Tensor:
    """(B, G, 1, 1) log of the sum of exponentials over the bins."""
    return torch.logsumexp(parts.flatten(-2), dim=-1)[..., None, None]
