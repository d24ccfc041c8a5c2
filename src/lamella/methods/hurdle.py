"""Hurdle: first whether a bin has any count, then how many, of a distribution without its zero.

-log p(0) = -log p0, and -log p(y) = -log(1 - p0) - log f(y) + log(1 - f(0)) for y > 0, with f Poisson or NB. Both
stages are one likelihood, so neither needs a weight of its own.

Shapes: B samples, G genes, n bins along the side of a sample.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lamella.config import Settings
from lamella.methods.count_losses import Logs, masked_mean, poisson_nll
from lamella.methods.zinb import nll
from lamella.models.expression.contract import Prediction
from lamella.models.expression.expectation import Needs, Rule, log_some


class HurdleSettings(Settings):
    """Two stages: any count, and how many."""

    name: Literal["hurdle"] = "hurdle"
    counts: Literal["poisson", "nb"] = "nb"
    """The distribution of the counts that are there, cut off at 1."""

    @property
    def needs(self) -> Needs:
        return Needs("bin", theta=self.counts == "nb")

    @property
    def of_counts_only(self) -> bool:
        return True

    def rule(self, target: str) -> Rule:
        return "hurdle"


class Hurdle(nn.Module):
    """See `HurdleSettings`. NB where the prediction has a dispersion."""

    def forward(self, prediction: Prediction, truth_BGnn: Tensor, mask_Bnn: Tensor) -> tuple[Tensor, Logs]:
        """The loss, and the part of each stage in it."""
        zero = prediction.zero_logit
        assert zero is not None
        some = truth_BGnn > 0
        stage_1 = F.softplus(torch.where(some, zero.float(), -zero.float()))
        counted = truncated_nll(truth_BGnn, prediction.log_rate, prediction.log_theta)
        first, second = masked_mean(stage_1, mask_Bnn), masked_mean(counted, mask_Bnn)
        return first + second, {"loss_any": first.detach(), "loss_how_many": second.detach()}


def truncated_nll(counts_BGnn: Tensor, log_rate: Tensor, log_theta: Tensor | None) -> Tensor:
    """-log f(y) + log(1 - f(0)) where there is a count, else 0."""
    some = counts_BGnn > 0
    # Entries without a count are asked of a harmless 1: no endless gradient comes back through `where`.
    asked = counts_BGnn.clamp(min=1)
    plain = poisson_nll(asked, log_rate) if log_theta is None else nll(asked, log_rate, log_theta)
    return torch.where(some, plain + log_some(log_rate.float(), log_theta), 0.0)
