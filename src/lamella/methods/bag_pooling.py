"""Whose label reaches which tile: multiple-instance learning with the labels of whole slides.

The model's own `BagPool` makes a slide's logit of its tiles' (`models.bag_pool`). Here is what training adds: numbering
the bags of a batch, and asking which tiles answered for their bag.

Shapes: N tiles of a batch, G bags, M classes, D numbers of a tile's feature.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lamella.models.bag_pool import BagPool

_ROUNDING = 1e-6  # a share that misses the average by this much is the average


def numbered(bag_N: Tensor) -> tuple[Tensor, int, Tensor]:
    """Number each tile's bag from 0; how many bags; and (G,) a tile of each bag, to look its label up by."""
    names, number_N = torch.unique(bag_N, return_inverse=True)
    first_G = torch.full((len(names),), len(bag_N), device=bag_N.device)
    first_G = first_G.scatter_reduce(0, number_N, torch.arange(len(bag_N), device=bag_N.device), "amin")
    return number_N, len(names), first_G


def carriers(pool: BagPool, logits_NM: Tensor, features_ND: Tensor | None, bag_N: Tensor, bags: int) -> Tensor:
    """Which tiles answer for their bag.

    A tile does where it counts as much as the average one, or more, in the bag's logit: the chosen ones of topk and
    max, those that attention looks at, all of a mean. How much a tile counts is the slope of the bag's logit, so this
    holds for every pooling.

    Returns:
        (N, M) bool, class by class.
    """
    logits = logits_NM.detach().float().requires_grad_()
    features = None if features_ND is None else features_ND.detach()
    with torch.enable_grad():
        pooled = pool.of_bags(logits, features, bag_N, bags)
        (share_NM,) = torch.autograd.grad(pooled.sum(), logits)
    tiles_N = torch.bincount(bag_N, minlength=bags)[bag_N]
    return share_NM >= (1 - _ROUNDING) / tiles_N[:, None]
