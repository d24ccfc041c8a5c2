"""From logits at several scales to probabilities of channels: bounded evidence, and a background that competes.

A tile's probabilities are functions of each place alone: no minimum or maximum over the tile is taken, or the same
pixel would be of another class in the next tile (upstream normalises each tile by its own extremes, and drops the
background before the argmax).

Shapes: B tiles, M classes, H, W pixels, h, w places of a level.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

BackgroundScore = Literal["auto", "prototypes", "power", "white"]

_LEAST = 1e-6  # added to every channel: where nothing is like anything, all are equal
# Glass is bright in all three colours; the softness is a step of five grey values, about a scanner's noise.
WHITE_LEVEL, _WHITE_SOFTNESS = 0.86, 0.02


def fused_evidence(maps: Sequence[Tensor | None], weights: Sequence[float]) -> Tensor:
    """(B, M, h, w) float32 in 0 to 1 on the finest grid that counts.

    Args:
        maps: Logits of the levels, finest first.
        weights: Of the levels; those of 0 are left out.
    """
    counted = [(level, weight) for level, weight in zip(maps, weights, strict=True) if weight > 0]
    total = sum(weight for _, weight in counted)
    size: tuple[int, int] | None = None
    fused: Tensor | None = None
    for level, weight in counted:
        if level is None:
            raise ValueError("a level that counts was not computed")
        size = size or (level.shape[-2], level.shape[-1])
        evidence = level.float().sigmoid()
        if evidence.shape[-2:] != size:
            evidence = F.interpolate(evidence, size=size, mode="bilinear", align_corners=False)
        part = evidence * (weight / total)
        fused = part if fused is None else fused + part
    if fused is None:
        raise ValueError("no level counts")
    return fused


def background_score(evidence_BMhw: Tensor, images: Tensor, kind: str, alpha: float, white_level: float) -> Tensor:
    """(B, 1, h, w) how much a place is none of the classes, 0 to 1.

    Args:
        evidence_BMhw: Of the classes.
        images: uint8 (B, 3, H, W).
        kind: power: (1 - strongest class)^alpha. white: how sure it is glass.
        alpha: Of power.
        white_level: Brightness (0 to 1) of the darkest colour at which a pixel is as likely glass as not.
    """
    if kind == "power":
        return (1 - evidence_BMhw.amax(1, keepdim=True)).pow(alpha)
    darkest = images.amin(1, keepdim=True).float() / 255
    score_B1HW = torch.sigmoid((darkest - white_level) / _WHITE_SOFTNESS)
    return F.adaptive_avg_pool2d(score_B1HW, evidence_BMhw.shape[-2:])


def normalised(evidence_BChw: Tensor) -> Tensor:
    """The same, adding up to 1 over the channels."""
    positive = evidence_BChw + _LEAST
    return positive / positive.sum(1, keepdim=True)


def gated(maps: Tensor, present: Tensor) -> Tensor:
    """Maps in which classes that an image does not hold have probability 0; the background stays.

    Args:
        maps: (B, C, H, W) probabilities: M classes, then the background where there is one; all 0 where nobody looked.
        present: (B, M) whether the image holds each class, or (B, M, H, W) whether each place may.

    Returns:
        float32 (B, C, H, W), adding up to 1 where somebody looked. Where nothing is left: the background; without one,
        the maps as they were: a gate that leaves no class says nothing of where they are.
    """
    maps, classes = maps.float(), present.shape[1]
    kept = maps.clone()
    kept[:, :classes] *= present.to(kept) if present.ndim == maps.ndim else present.to(kept)[:, :, None, None]
    empty = (maps.amax(1, keepdim=True) > 0) & (kept.amax(1, keepdim=True) <= 0)
    if maps.shape[1] > classes:
        kept[:, classes:] = torch.where(empty, torch.ones_like(kept[:, classes:]), kept[:, classes:])
    else:
        kept = torch.where(empty, maps, kept)
    total = kept.sum(1, keepdim=True)
    return torch.where(total > 0, kept / total, kept)
