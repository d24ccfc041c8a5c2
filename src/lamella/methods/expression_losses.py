"""The losses that predict expression can be trained with, by name."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import nn

from lamella.errors import ConfigError
from lamella.methods.count_losses import (
    Mse,
    MseSettings,
    NbSettings,
    NegativeBinomial,
    Poisson,
    PoissonSettings,
    ZinbSettings,
)
from lamella.methods.focal_counts import Focal, FocalSettings, FocalZinbSettings
from lamella.methods.hurdle import Hurdle, HurdleSettings
from lamella.methods.multi_resolution import MultiResolution, MultiResolutionSettings

AnyExpressionLossSettings = (
    MseSettings
    | PoissonSettings
    | NbSettings
    | ZinbSettings
    | FocalSettings
    | FocalZinbSettings
    | HurdleSettings
    | MultiResolutionSettings
)
ExpressionLossSettings = Annotated[AnyExpressionLossSettings, Field(discriminator="name")]

# Targets that count losses can be trained on; log1p is undone first and done again to what is expected.
COUNT_TARGETS = ("counts", "log1p")


def make_loss(settings: AnyExpressionLossSettings, target: str, bin_um: float, tile_bins: int) -> nn.Module:
    """The loss: called with (Prediction, truth (B, G, n, n), mask (B, n, n)), it gives (scalar, logs).

    Raises:
        ConfigError: Sizes of multi_resolution do not fit the bins.
    """
    if isinstance(settings, MseSettings):
        return Mse(settings.rule(target))
    if isinstance(settings, PoissonSettings):
        return Poisson()
    if isinstance(settings, NbSettings | ZinbSettings):
        return NegativeBinomial()
    if isinstance(settings, FocalSettings | FocalZinbSettings):
        return Focal(settings)
    if isinstance(settings, HurdleSettings):
        return Hurdle()
    return MultiResolution(settings, bin_um, tile_bins)


def loss_problem(settings: AnyExpressionLossSettings, target: str, kind: str, offset: bool = False) -> str | None:
    """What stands against a loss for a target and a kind of places (bin or spot); None: nothing.

    Args:
        settings: Of the loss.
        target: The study's.
        kind: bin or spot.
        offset: Whether rates are multiplied by library sizes.
    """
    if settings.of_counts_only and target not in COUNT_TARGETS:
        return (
            f"train.loss.name: {settings.name} is a loss of counts, and data.target is {target}; set data.target to "
            "counts or log1p, or train.loss.name to mse"
        )
    if isinstance(settings, MultiResolutionSettings) and kind == "spot":
        return "train.loss.name: multi_resolution needs bins side by side, and a spot is alone; take poisson or nb"
    if offset and settings.rule(target) == "value":
        return f"train.library: an offset multiplies rates, and {settings.name} of {target} has none; set it to none"
    return None


def check_loss(settings: AnyExpressionLossSettings, target: str, kind: str, offset: bool = False) -> None:
    """Refuse what `loss_problem` finds.

    Raises:
        ConfigError: The loss cannot be used.
    """
    problem = loss_problem(settings, target, kind, offset)
    if problem is not None:
        raise ConfigError([problem], "expression")
