"""Losses of maps of classes: focal cross-entropy and Dice, with weights of classes; what is not labelled has no say.

focal (arXiv 1708.02002) = sum over labelled pixels of w_y (1 - p_y)^gamma (-log p_y), divided by the sum of w_y.
Dice of class c (V-Net, 1606.04797) = (2 sum p_c t_c + 1) / (sum p_c + sum t_c + 1), sums over the labelled pixels of
the whole batch, of all ranks. Loss = mean of 1 - Dice over the classes that occur in the batch, weighted by w_c; a
class that is absent from the labels has no Dice (it would be 0 however little is predicted): focal alone punishes it.

Shapes: B tiles, C classes, H, W pixels, P labelled pixels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor

from lamella.config import Settings
from lamella.errors import ConfigError
from lamella.formats.label_values import NOT_LABELLED
from lamella.models.over_ranks import sum_over_ranks

# Of the source project for its five classes in the order of `bcss5`: tumour, stroma, lymphocytes, necrosis, vessel.
V3_WEIGHTS = (1.0, 1.2, 3.9, 3.5, 15.9)
_SMOOTH_PX = 1.0  # a pixel in Dice's numerator and denominator: a class of few pixels has a gradient that stays finite
# (1 - p)^gamma has an infinite slope at p = 1 for gamma below 1.
_LEAST_MISS = 1e-6

NotNegative = Annotated[float, Field(ge=0)]


class RegionLossSettings(Settings):
    """What a map of classes is punished for."""

    focal: NotNegative = 1.0
    """Weight of the focal loss."""
    gamma: NotNegative = 2.0
    """How much less pixels count that are right already; 0 is plain cross-entropy."""
    dice: NotNegative = 1.0
    """Weight of the Dice loss."""
    class_weights: Literal["none", "inverse", "v3"] | dict[str, float] = "none"
    """none: all alike. inverse: the share of the most frequent class over that of each, at most `weight_limit`. v3: 1,
    1.2, 3.9, 3.5, 15.9 of the source project, for five classes. Or a number for each class, 1 for those not named."""
    weight_limit: Annotated[float, Field(ge=1)] = 16.0
    """Largest weight of `inverse`; the source's largest is 15.9."""

    @field_validator("class_weights")
    @classmethod
    def _finite(cls, weights: str | dict[str, float]) -> str | dict[str, float]:
        if isinstance(weights, dict) and not all(0 < weight < math.inf for weight in weights.values()):
            raise ValueError("weights are above 0 and finite")
        return weights


def class_weights(settings: RegionLossSettings, shares: Mapping[str, float]) -> Tensor:
    """(C,) float32 weights of the classes.

    Args:
        settings: How they are weighted.
        shares: Class to its share of the labelled pixels that are trained on, in the order of the channels.

    Raises:
        ConfigError: The preset is of five classes and these are not five, or a class named does not exist.
    """
    wanted, names = settings.class_weights, list(shares)
    if wanted == "none":
        return torch.ones(len(names))
    if wanted == "inverse":
        largest = max(shares.values())
        # A class without a pixel is never drawn: its weight decides nothing.
        found = [min(largest / share, settings.weight_limit) if share > 0 else 1.0 for share in shares.values()]
        return torch.tensor(found)
    if wanted == "v3":
        if len(names) != len(V3_WEIGHTS):
            raise ConfigError(
                [
                    f"method.loss.class_weights: v3 has {len(V3_WEIGHTS)} weights, and there are {len(names)} classes "
                    f"({', '.join(names)}); take inverse, or name them"
                ],
                "adapt",
            )
        return torch.tensor(V3_WEIGHTS)
    unknown = sorted(set(wanted) - set(names))
    if unknown:
        raise ConfigError(
            [f"method.loss.class_weights: {', '.join(unknown)} is no class; there are {', '.join(names)}"], "adapt"
        )
    return torch.tensor([float(wanted.get(name, 1.0)) for name in names])  # type: ignore[union-attr]


def labelled_log_probabilities(logits_BCHW: Tensor, target_BHW: Tensor) -> tuple[Tensor, Tensor]:
    """(P, C) log-probabilities and (P,) int64 classes of the labelled pixels alone; 32 bits."""
    labelled_BHW = target_BHW != NOT_LABELLED
    log_PC = logits_BCHW.float().movedim(1, -1)[labelled_BHW].log_softmax(1)
    return log_PC, target_BHW[labelled_BHW].long()


def focal_loss(log_PC: Tensor, target_P: Tensor, weights_C: Tensor, gamma: float) -> Tensor:
    """The focal cross-entropy of all ranks' labelled pixels; 0 where there is none."""
    log_P = log_PC.gather(1, target_P[:, None])[:, 0]
    weights_P = weights_C[target_P]
    missed_P = (1 - log_P.exp()).clamp(min=_LEAST_MISS)
    sums = sum_over_ranks(torch.stack([-(weights_P * missed_P**gamma * log_P).sum(), weights_P.sum()]))
    return sums[0] / sums[1].clamp(min=torch.finfo(sums.dtype).tiny)


def dice_loss(log_PC: Tensor, target_P: Tensor, weights_C: Tensor) -> tuple[Tensor, Tensor]:
    """1 - Dice, the weighted mean over the classes that occur, and each class's Dice (NaN where it does not occur)."""
    classes = log_PC.shape[1]
    p_PC = log_PC.exp()
    hit_C = torch.zeros(classes, device=p_PC.device).index_add(0, target_P, p_PC.gather(1, target_P[:, None])[:, 0])
    true_C = torch.bincount(target_P, minlength=classes).to(p_PC.dtype)
    hit_C, said_C, true_C = sum_over_ranks(torch.stack([hit_C, p_PC.sum(0), true_C])).unbind()
    dice_C = (2 * hit_C + _SMOOTH_PX) / (said_C + true_C + _SMOOTH_PX)
    present_C = true_C > 0
    weights_C = weights_C * present_C
    loss = (weights_C * (1 - dice_C)).sum() / weights_C.sum().clamp(min=torch.finfo(weights_C.dtype).tiny)
    return loss, dice_C.detach().where(present_C, torch.nan)


def region_loss(
    logits_BCHW: Tensor, target_BHW: Tensor, weights_C: Tensor, settings: RegionLossSettings
) -> tuple[Tensor, dict[str, Tensor]]:
    """The weighted sum of both losses, and detached scalars to log.

    Args:
        logits_BCHW: Scores before the softmax.
        target_BHW: Channel of each pixel, or NOT_LABELLED.
        weights_C: Of the classes.
        settings: Weights of the two losses.
    """
    log_PC, target_P = labelled_log_probabilities(logits_BCHW, target_BHW)
    focal = focal_loss(log_PC, target_P, weights_C, settings.gamma)
    dice, _ = dice_loss(log_PC, target_P, weights_C)
    loss = settings.focal * focal + settings.dice * dice
    return loss, {"loss_focal": focal.detach(), "loss_dice": dice.detach()}
