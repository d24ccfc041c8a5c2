"""The same counts judged at several sizes of bin: what is noise at 2 um adds up to signal at 8 and 32 um.

Rates and counts of the bins that the mask has are summed over squares of bins; the likelihood of each size is weighted
by exp(-s) L + s with a learned s for each (homoscedastic uncertainty, arXiv 1705.07115; likelihoods of counts are never
below 0, so s has a finite best value, log L).

Shapes: B samples, G genes, n bins along the side of a sample, m squares of a coarser size, S sizes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from lamella.config import Settings
from lamella.errors import ConfigError
from lamella.methods.count_losses import Logs, masked_mean, poisson_nll
from lamella.methods.zinb import nll
from lamella.models.expression.contract import Prediction
from lamella.models.expression.expectation import LEAST_RATE, Needs, Rule

_WHOLE = 1e-6  # a size is a whole multiple of the bins to within this


class MultiResolutionSettings(Settings):
    """Likelihoods at several sizes of bin."""

    name: Literal["multi_resolution"] = "multi_resolution"
    base: Literal["poisson", "nb"] = "poisson"
    """The likelihood. NB takes the bins of a square as independent: its theta is theta times their number."""
    sizes_um: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] = (2.0, 8.0, 32.0)
    """Sides of the squares; whole multiples of the bins, and a sample must be a whole number of each."""
    learn_weights: bool = True
    """Weigh the sizes by what can be explained at each; false: alike."""

    @property
    def needs(self) -> Needs:
        return Needs(theta=self.base == "nb")

    @property
    def of_counts_only(self) -> bool:
        return True

    def rule(self, target: str) -> Rule:
        return "rate"


class MultiResolution(nn.Module):
    """See `MultiResolutionSettings`.

    Args:
        settings: Sizes and likelihood.
        bin_um: Side of the bins.
        tile_bins: Bins along the side of a sample.

    Raises:
        ConfigError: A size is no whole multiple of the bins, or does not divide a sample.
    """

    def __init__(self, settings: MultiResolutionSettings, bin_um: float, tile_bins: int) -> None:
        super().__init__()
        self.settings = settings
        self.factors = factors_of(settings.sizes_um, bin_um, tile_bins)
        # Log of the uncertainty of each size; 0 weighs them alike.
        self.log_uncertainty_S = nn.Parameter(torch.zeros(len(self.factors)), requires_grad=settings.learn_weights)

    def forward(self, prediction: Prediction, truth_BGnn: Tensor, mask_Bnn: Tensor) -> tuple[Tensor, Logs]:
        """The weighted loss, and that of each size. Where nothing is trained (validation): their plain sum."""
        losses_S = torch.stack([self._at(factor, prediction, truth_BGnn, mask_Bnn) for factor in self.factors])
        logs = {
            f"loss_{size:g}um": value.detach() for size, value in zip(self.settings.sizes_um, losses_S, strict=True)
        }
        if not (self.training and self.settings.learn_weights):
            return losses_S.sum(), logs  # learned weights change from one validation to the next
        s_S = self.log_uncertainty_S
        return (losses_S * torch.exp(-s_S) + s_S).sum(), logs

    def _at(self, factor: int, prediction: Prediction, truth_BGnn: Tensor, mask_Bnn: Tensor) -> Tensor:
        """The loss of squares of factor x factor bins."""
        log_rate = prediction.log_rate.float()
        log_theta = prediction.log_theta if self.settings.base == "nb" else None
        mask_B1nn = mask_Bnn[:, None].float()
        if factor > 1:
            bins_B1mm = summed(mask_B1nn, factor)
            # Squares that the mask leaves out have no rate; their logarithm must be finite all the same.
            log_rate = summed(log_rate.exp() * mask_B1nn, factor).clamp(min=LEAST_RATE**2).log()
            truth_BGnn = summed(truth_BGnn * mask_B1nn, factor)
            mask_Bnn = bins_B1mm[:, 0] > 0
            log_theta = None if log_theta is None else log_theta + bins_B1mm.clamp(min=1).log()
        if log_theta is None:
            return masked_mean(poisson_nll(truth_BGnn, log_rate), mask_Bnn)
        return masked_mean(nll(truth_BGnn, log_rate, log_theta), mask_Bnn)


def factors_of(sizes_um: Sequence[float], bin_um: float, tile_bins: int) -> tuple[int, ...]:
    """How many bins the side of each square has.

    Raises:
        ConfigError: All sizes that do not fit.
    """
    factors = [round(size / bin_um) for size in sizes_um]
    problems = [
        f"train.loss.sizes_um: {size:g} um is no whole number of bins of {bin_um:g} um that divides {tile_bins} bins"
        for size, factor in zip(sizes_um, factors, strict=True)
        if factor < 1 or abs(factor * bin_um - size) > _WHOLE * size or tile_bins % factor
    ]
    if problems:
        raise ConfigError(problems, "expression")
    return tuple(factors)


def summed(values_BGnn: Tensor, factor: int) -> Tensor:
    """(B, G, m, m) sums over squares of factor x factor bins."""
    return F.avg_pool2d(values_BGnn, factor) * factor**2
