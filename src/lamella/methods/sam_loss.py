"""The loss of a promptable model: focal and Dice on the mask, the believed IoU, and whether an object is there.

Source: Ravi et al., "SAM 2" (arXiv 2408.00714), section D.2, and its released `loss_fns.py`: of several masks only the
best one learns its mask, all learn their IoU. Pixels whose truth is not known are left out of every sum.

Shapes: N objects, K masks of an object, Y rows, X columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from lamella.config import Settings
from lamella.errors import ConfigError

_ALPHA, _GAMMA = 0.25, 2.0  # of the focal loss, as in RetinaNet and SAM 2
_ONE = 1.0  # pixel, added above and below in Dice: an empty mask predicted empty has no loss

Weight = Annotated[float, Field(ge=0)]


class SamLossSettings(Settings):
    """Weights of the parts; SAM 2's own. The source's are 5, 2, 1, 1."""

    focal: Weight = 20.0
    """Pixel by pixel, hard ones most."""
    dice: Weight = 1.0
    """Overlap of the mask."""
    iou: Weight = 1.0
    """Distance of the believed from the true IoU."""
    object_score: Weight = 1.0
    """Whether an object is there (cross-entropy); no part of a model that does not say."""
    class_balance: Literal["none", "inverse"] = "none"
    """inverse: an object counts as often as its class has fewer pixels than the most common class."""
    max_class_weight: Annotated[float, Field(ge=1)] = 16.0
    """Bound of the inverse frequency: a class of a thousandth must not drown the others in its noise."""
    class_weights: dict[str, Weight] = Field(default_factory=dict)
    """Weights of classes by name, instead of what class_balance gives."""


def class_weights(settings: SamLossSettings, shares: Mapping[str, float], background: str | None) -> dict[str, float]:
    """How much an object of each class counts.

    Args:
        settings: The rule.
        shares: Share of each class of all labelled pixels.
        background: The class that has no objects.

    Raises:
        ConfigError: A weight names no class.
    """
    unknown = sorted(set(settings.class_weights) - set(shares))
    if unknown:
        raise ConfigError(
            [f"method.loss.class_weights: {', '.join(unknown)} is no class; there are {', '.join(shares)}"], "adapt"
        )
    of_objects = {name: share for name, share in shares.items() if name != background and share > 0}
    most = max(of_objects.values(), default=1.0)
    found = dict.fromkeys(shares, 1.0)
    if settings.class_balance == "inverse":
        found |= {name: min(most / share, settings.max_class_weight) for name, share in of_objects.items()}
    return found | settings.class_weights


def sam_loss(
    logits_NKYX: Tensor,
    iou_NK: Tensor,
    object_N: Tensor | None,
    truth_NYX: Tensor,
    known_NYX: Tensor,
    settings: SamLossSettings,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of each object, (N,), not yet weighted by its class, and the detached means of its parts.

    Args:
        logits_NKYX: Of the mask.
        iou_NK: What the model believes.
        object_N: Logits of an object being there; None of a model that does not say.
        truth_NYX: bool.
        known_NYX: bool; elsewhere nothing is learned.
        settings: Weights of the parts.
    """
    logits = logits_NKYX.float()
    truth, known = truth_NYX[:, None].expand_as(logits), known_NYX[:, None].expand_as(logits)
    focal_NK = focal_loss(logits, truth, known)
    dice_NK = dice_loss(logits, truth, known)
    mask_NK = settings.focal * focal_NK + settings.dice * dice_NK
    best_N1 = mask_NK.argmin(1, keepdim=True)
    iou_loss_N = (iou_NK.float() - true_iou(logits, truth, known)).abs().mean(1)
    loss_N = mask_NK.gather(1, best_N1)[:, 0] + settings.iou * iou_loss_N
    parts = {"loss_focal": focal_NK.gather(1, best_N1), "loss_dice": dice_NK.gather(1, best_N1), "loss_iou": iou_loss_N}
    if object_N is not None:
        there_N = (truth_NYX & known_NYX).flatten(1).any(1).float()
        score_N = F.binary_cross_entropy_with_logits(object_N.float(), there_N, reduction="none")
        loss_N = loss_N + settings.object_score * score_N
        parts["loss_object"] = score_N
    return loss_N, {name: value.detach().mean() for name, value in parts.items()}


def focal_loss(logits: Tensor, truth: Tensor, known: Tensor) -> Tensor:
    """Mean over the known pixels of the last two axes (Lin et al., "Focal Loss", arXiv 1708.02002)."""
    target = truth.to(logits.dtype)
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    chance = logits.sigmoid()
    right = chance * target + (1 - chance) * (1 - target)
    balance = _ALPHA * target + (1 - _ALPHA) * (1 - target)
    return _mean(balance * (1 - right) ** _GAMMA * entropy, known)


def dice_loss(logits: Tensor, truth: Tensor, known: Tensor) -> Tensor:
    """1 - Dice of the probabilities over the known pixels of the last two axes."""
    chance, target = (each.to(logits.dtype) * known for each in (logits.sigmoid(), truth))
    both = (chance * target).sum((-2, -1))
    return 1 - (2 * both + _ONE) / (chance.sum((-2, -1)) + target.sum((-2, -1)) + _ONE)


def true_iou(logits: Tensor, truth: Tensor, known: Tensor) -> Tensor:
    """IoU of the mask (logits above 0: probability 1/2) over the known pixels; without gradient."""
    predicted = (logits > 0) & known
    target = truth & known
    either = (predicted | target).sum((-2, -1))
    return (predicted & target).sum((-2, -1)) / either.clamp(min=1)


def _mean(values: Tensor, known: Tensor) -> Tensor:
    return torch.where(known, values, 0).sum((-2, -1)) / known.sum((-2, -1)).clamp(min=1)
