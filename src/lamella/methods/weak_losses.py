"""Losses of learning masks from labels of whole images (PBIP, arXiv 2503.12068, with its sums put right).

L = sum over scales of w_s BCE_s + w_c (theta_fg L_fg + theta_bg L_bg) + terms of the maps (total variation, L1, mean).

Contrast: what a map marks as a class must be nearest to a prototype of the class and far from those of other classes
(foreground); what it leaves out, nearest to a prototype of the others and far from those of the class (background).
InfoNCE is taken sample by sample, then averaged: -log(exp(p / t) / (exp(p / t) + sum exp(n / t))). To add the samples
up before the logarithm, as the source did, would let one good sample hide all bad ones.

Shapes: B tiles, M classes, S scales, N samples of the contrast, K prototypes, D width, h, w cells of a map.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from lamella.config import Settings

NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
_LEAST = 1e-6  # a range of a map, or a weight of a region, below which there is nothing in it


class ContrastSettings(Settings):
    """Prototypes pull what the maps mark."""

    weight: NotNegative = 0.1
    """Of the whole term; 0 costs nothing."""
    foreground: NotNegative = 1.0
    """Weight of the regions that are marked."""
    background: NotNegative = 1.0
    """Weight of the regions that are left out."""
    temperature: Annotated[float, Field(gt=0)] = 0.07
    """Of InfoNCE; 0.07 as in the authors' code, 1 as in their paper."""
    bound: Literal["minmax", "sigmoid"] = "minmax"
    """How a map becomes a mask between 0 and 1, each class by itself. Only here does a map depend on its own range."""
    threshold: Share = 0.5
    """Share of the mask's largest value from which a place is marked."""
    features: Literal["pooled", "encoder"] = "pooled"
    """pooled: the backbone's last features under the mask, against the adapted prototypes; costs next to nothing.
    encoder: the masked tile through the encoder that made the prototypes, as the authors do; two passes of it for each
    class of each tile."""
    positive: Literal["nearest", "each"] = "nearest"
    """nearest: the most similar prototype of the right class. each: the mean of the loss over all of them."""


class WeakLossSettings(Settings):
    """What the maps are punished for."""

    scale_weights: Annotated[tuple[NotNegative, ...], Field(min_length=1)] = (0.0, 0.1, 1.0, 1.0)
    """Of the classification loss of each scale, finest first; a scale with weight 0 is not computed for it."""
    contrast: ContrastSettings = ContrastSettings()
    total_variation: NotNegative = 0.1
    """Weight of the smoothness of the maps (mean step between neighbours)."""
    sparsity: NotNegative = 0.01
    """Weight of the mean size of the maps (L1)."""
    mean_map: NotNegative = 0.0
    """Weight of the mean map, as the authors' code has it (0.0005 times that of the contrast)."""


# ---- classification -------------------------------------------------------------------------------------------------


def known_bce(logits_BM: Tensor, label_BM: Tensor, known_BM: Tensor) -> Tensor:
    """Binary cross-entropy over the labels that are known; 0, with a gradient of 0, where none is."""
    known = known_BM.float()
    each = F.binary_cross_entropy_with_logits(logits_BM.float(), label_BM.float(), reduction="none")
    return (each * known).sum() / known.sum().clamp(min=1)


def multi_scale_bce(
    logits_SBM: Sequence[Tensor | None], label_BM: Tensor, known_BM: Tensor, weights: Sequence[float]
) -> tuple[Tensor, list[Tensor]]:
    """The weighted sum over the scales, and each scale's own loss.

    Args:
        logits_SBM: Of each scale; one with weight 0 may be None and is not looked at.
        label_BM: 0 or 1.
        known_BM: Which labels are known.
        weights: Of the scales.

    Raises:
        ValueError: Another number of scales than weights, or a scale with a weight has no logits.
    """
    if len(logits_SBM) != len(weights):
        raise ValueError(f"{len(weights)} weights for {len(logits_SBM)} scales")
    total, losses = label_BM.new_zeros((), dtype=torch.float32), []
    for number, (logits, weight) in enumerate(zip(logits_SBM, weights, strict=True)):
        if weight == 0:
            continue
        if logits is None:
            raise ValueError(f"scale {number} has weight {weight} and no logits")
        losses.append(known_bce(logits, label_BM, known_BM))
        total = total + weight * losses[-1]
    return total, losses


# ---- contrast -------------------------------------------------------------------------------------------------------


def info_nce(
    queries_ND: Tensor,
    prototypes_KD: Tensor,
    positive_NK: Tensor,
    negative_NK: Tensor,
    temperature: float,
    *,
    positive: Literal["nearest", "each"] = "nearest",
) -> Tensor:
    """InfoNCE of each sample, averaged over the samples.

    Similarities are cosines. A sample without any positive takes no part; with no sample left the loss is 0 and so is
    its gradient. Without negatives (one class, no background) every sample's loss is 0.

    Args:
        queries_ND: Samples; need not be of unit length.
        prototypes_KD: What they are compared with.
        positive_NK: bool, the prototypes that a sample should be near.
        negative_NK: bool, those that it should be far from.
        temperature: t.
        positive: nearest: the most similar positive. each: the mean of the loss over a sample's positives.

    Returns:
        A float32 scalar.
    """
    if not len(queries_ND):
        return (queries_ND.sum() + prototypes_KD.sum()).float() * 0
    with torch.autocast(queries_ND.device.type, enabled=False):  # a cosine in bf16, over 0.07, is off by 0.06
        cosine = F.normalize(queries_ND.float(), dim=1) @ F.normalize(prototypes_KD.float(), dim=1).T
    scaled = cosine / temperature
    lowest = torch.finfo(scaled.dtype).min  # exp of it is 0, and unlike infinity it never makes a NaN
    negative_N = scaled.masked_fill(~negative_NK, lowest).logsumexp(1)
    counted_N = positive_NK.any(1)
    if positive == "nearest":
        best_N = scaled.masked_fill(~positive_NK, lowest).amax(1)
        # -log(e^p / (e^p + sum e^n)) = softplus(log sum e^n - p): stable for any temperature.
        loss_N = F.softplus(negative_N - best_N.where(counted_N, best_N.new_zeros(())))
    else:
        each_NK = F.softplus(negative_N[:, None] - scaled) * positive_NK
        loss_N = each_NK.sum(1) / positive_NK.sum(1).clamp(min=1)
    return loss_N.where(counted_N, loss_N.new_zeros(())).sum() / counted_N.sum().clamp(min=1)


def bounded(maps_Nhw: Tensor, bound: Literal["minmax", "sigmoid"]) -> Tensor:
    """Each map between 0 and 1; a flat one becomes 0 everywhere under minmax."""
    maps = maps_Nhw.float()
    if bound == "sigmoid":
        return maps.sigmoid()
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    spread = high - low
    return (maps - low) / spread.clamp(min=_LEAST) * (spread > _LEAST)


def regions(maps_Nhw: Tensor, settings: ContrastSettings) -> tuple[Tensor, Tensor]:
    """Weights of the marked places and of those left out, each (N, h, w) between 0 and 1; gradients flow.

    Marked is what reaches `threshold` of the map's largest value; it weighs as much as the map says, and the rest as
    much as the map leaves.
    """
    mask = bounded(maps_Nhw, settings.bound)
    marked = mask.detach() >= settings.threshold * mask.detach().amax((1, 2), keepdim=True).clamp(min=_LEAST)
    return mask * marked, (1 - mask) * ~marked


def masked_means(features_BDhw: Tensor, tile_N: Tensor, weights_Nhw: Tensor) -> Tensor:
    """(N, D) weighted means of tiles' features over their places; 0 where nothing has a weight.

    One product for each tile: features are not copied for every region of it.

    Args:
        features_BDhw: Of the tiles.
        tile_N: Number of each region's tile, in ascending order.
        weights_Nhw: Of the regions.
    """
    if not len(tile_N):
        return features_BDhw.new_zeros(0, features_BDhw.shape[1], dtype=torch.float32)
    features_BDL, weights_NL = features_BDhw.flatten(2).float(), weights_Nhw.flatten(1)
    counts = torch.bincount(tile_N, minlength=len(features_BDhw)).tolist()
    with torch.autocast(features_BDhw.device.type, enabled=False):
        sums = [
            regions_nL @ features_DL.T
            for features_DL, regions_nL in zip(features_BDL, weights_NL.split(counts), strict=True)
            if len(regions_nL)
        ]
    return torch.cat(sums) / weights_NL.sum(1, keepdim=True).clamp(min=_LEAST)


def has_weight(weights_Nhw: Tensor) -> Tensor:
    """(N,) bool: whether a region holds anything."""
    return weights_Nhw.detach().sum((1, 2)) > _LEAST


# ---- maps -----------------------------------------------------------------------------------------------------------


def total_variation(maps_BMhw: Tensor) -> Tensor:
    """Mean absolute step to the right plus mean absolute step down; 0 along an axis of one cell."""
    down, right = (maps_BMhw.diff(dim=axis).abs() for axis in (2, 3))
    zero = maps_BMhw.sum() * 0
    return (down.mean() if down.numel() else zero) + (right.mean() if right.numel() else zero)


def sparsity(maps_BMhw: Tensor) -> Tensor:
    """Mean absolute value (L1 by the number of cells, so that it does not grow with the tile)."""
    return maps_BMhw.abs().mean()
