"""How much each place of a feature map is like each class: by cosines to prototypes, or by a linear classifier.

Shapes: B tiles, K prototypes, D numbers of a prototype, M scored classes, C channels of a level as it is compared, h, w
its places.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lamella.models.vit import INIT_STD

Merge = Literal["mean", "max", "softmax"]

_TEMPERATURE = 0.07  # of the cosines at the beginning: CLIP's, and upstream's
_LEAST_LENGTH = 1e-6  # of a feature: one of zeros is like nothing, and no division by zero


@dataclass
class ScaleMaps:
    """What the scales of a tile say. Lists are as long as there are levels; None where a level was not asked for.

    Attributes:
        class_maps: (B, M, h, w) float32 logits.
        features: (B, C, h, w), what was compared.
        prototypes: (K, C), what with; None of a linear classifier.
        offsets: (K,) what is added to the cosines of each prototype, times `factors`.
        factors: By which cosines are multiplied.
    """

    class_maps: list[Tensor | None]
    features: list[Tensor | None]
    prototypes: list[Tensor | None]
    offsets: list[Tensor | None]
    factors: list[Tensor | None]

    @cached_property
    def prototype_maps(self) -> list[Tensor | None]:
        """(B, K, h, w) logits of every prototype, made when they are asked for."""
        return [
            None
            if x_BChw is None or each is None or offset is None or factor is None
            else similarity(x_BChw, each, factor, offset)
            for x_BChw, each, factor, offset in zip(
                self.features, self.prototypes, self.factors, self.offsets, strict=True
            )
        ]


def similarity(x_BChw: Tensor, directions_RC: Tensor, factor: Tensor, offset_R: Tensor) -> Tensor:
    """(B, R, h, w) float32: factor x (dot product with each place's unit feature) + offset.

    The features are not divided by their length, the products are: R numbers a place instead of C, and no copy of the
    features is kept for the gradient.
    """
    x_BhwC = x_BChw.movedim(1, -1)
    dots_BhwR = torch.matmul(x_BhwC, directions_RC.t()).float()
    length_Bhw1 = torch.linalg.vector_norm(x_BhwC, dim=-1, keepdim=True, dtype=torch.float32).clamp(min=_LEAST_LENGTH)
    return (factor * dots_BhwR / length_Bhw1 + offset_R).movedim(-1, 1)


class Lift(nn.Module):
    """Features as they are compared: each place normalised over its channels, and projected, where that is asked for.

    Frozen networks' features often share one large direction; without normalisation every cosine is near 1.
    """

    def __init__(self, width: int, *, norm: bool, project: int | None) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width) if norm else nn.Identity()
        self.project = nn.Identity() if project is None else nn.Linear(width, project)
        self.width = width if project is None else project

    def forward(self, x_BChw: Tensor) -> Tensor:
        return self.project(self.norm(x_BChw.movedim(1, -1))).movedim(-1, 1)


class Adapter(nn.Module):
    """Prototypes of the encoder's space to one level's: D -> ratio D -> C, as upstream draws its weights."""

    def __init__(self, dim: int, ratio: float, width: int) -> None:
        super().__init__()
        hidden = max(1, int(dim * ratio))
        self.hidden, self.out = nn.Linear(dim, hidden), nn.Linear(hidden, width)
        for layer in (self.hidden, self.out):
            nn.init.trunc_normal_(layer.weight, std=INIT_STD)
            nn.init.zeros_(layer.bias)

    def forward(self, prototypes_KD: Tensor) -> Tensor:
        return self.out(F.relu(self.hidden(prototypes_KD)))


class PrototypeScores(nn.Module):
    """Cosines of the features of every level to adapted prototypes, merged class by class.

    Args:
        prototypes_KD: Kept with the model; any D.
        k_list: Prototypes of each class; 1 is enough.
        widths: Channels of the levels.
        ratio: Hidden width of the adapters over D.
        merge: mean: of a class's prototypes. max: the most similar. softmax: their mean weighted by their softmax (what
            upstream calls max).
        unit: Divide adapted prototypes by their length, too; upstream does not.
        bias: Learn an offset for each class and level, 0 at first.
        norm: Normalise features over their channels before they are compared.
        project: Width to which features are projected linearly; None leaves them.
    """

    def __init__(
        self,
        prototypes_KD: Tensor,
        k_list: tuple[int, ...],
        widths: tuple[int, ...],
        *,
        ratio: float = 0.5,
        merge: Merge = "mean",
        unit: bool = True,
        bias: bool = True,
        norm: bool = True,
        project: int | None = None,
    ) -> None:
        super().__init__()
        if sum(k_list) != len(prototypes_KD) or min(k_list) < 1:
            raise ValueError(f"{len(prototypes_KD)} prototypes cannot be {k_list} of each class")
        self.k_list, self.merge, self.unit = tuple(k_list), merge, unit
        self.register_buffer("prototypes_KD", prototypes_KD.detach().clone().float())
        self.lifts = nn.ModuleList(Lift(width, norm=norm, project=project) for width in widths)
        self.widths = tuple(lift.width for lift in self.lifts)
        self.adapters = nn.ModuleList(Adapter(prototypes_KD.shape[1], ratio, width) for width in self.widths)
        self.factor_S = nn.Parameter(torch.full((len(widths),), 1 / _TEMPERATURE))
        offsets_SM = torch.zeros(len(widths), len(k_list))
        if bias:
            self.offset_SM = nn.Parameter(offsets_SM)
        else:
            self.register_buffer("offset_SM", offsets_SM, persistent=False)
        class_of_K = torch.repeat_interleave(torch.arange(len(k_list)), torch.tensor(k_list))
        self.register_buffer("class_of_K", class_of_K, persistent=False)
        # Row m holds a class's prototypes, then its first again: what a padded place says twice changes no maximum.
        slots = torch.arange(max(k_list))
        starts = torch.tensor([0, *k_list[:-1]]).cumsum(0)
        held_MJ = slots < torch.tensor(k_list)[:, None]
        self.register_buffer(
            "slot_MJ", torch.where(held_MJ, starts[:, None] + slots, starts[:, None]), persistent=False
        )
        self.register_buffer("held_MJ", held_MJ, persistent=False)

    def forward(self, levels: list[Tensor], wanted: Collection[int], merge: Merge | None = None) -> ScaleMaps:
        """Maps of the wanted levels; merged in another way than `self.merge` where that is said."""
        maps = ScaleMaps([], [], [], [], [])
        for number, level in enumerate(levels):
            if number in wanted:
                self._add(maps, number, level, merge or self.merge)
            else:
                for each in (maps.class_maps, maps.features, maps.prototypes, maps.offsets, maps.factors):
                    each.append(None)
        return maps

    def adapted(self, number: int) -> Tensor:
        """(K, C) the prototypes in the space of a level."""
        found_KC = self.adapters[number](self.prototypes_KD)
        return F.normalize(found_KC.float(), dim=-1) if self.unit else found_KC

    def _add(self, maps: ScaleMaps, number: int, level: Tensor, merge: Merge) -> None:
        x_BChw, adapted_KC = self.lifts[number](level), self.adapted(number)
        factor, offset_M = self.factor_S[number], self.offset_SM[number]
        maps.features.append(x_BChw)
        maps.prototypes.append(adapted_KC)
        maps.factors.append(factor)
        maps.offsets.append(offset_M[self.class_of_K])
        if merge == "mean":
            # The mean of dot products is the dot product with the mean: M maps instead of K.
            maps.class_maps.append(similarity(x_BChw, self._class_means(adapted_KC), factor, offset_M))
            return
        maps.class_maps.append(self._merged(similarity(x_BChw, adapted_KC, factor, offset_M[self.class_of_K]), merge))

    def _class_means(self, adapted_KC: Tensor) -> Tensor:
        sums_MC = adapted_KC.new_zeros(len(self.k_list), adapted_KC.shape[1]).index_add(0, self.class_of_K, adapted_KC)
        return sums_MC / self.held_MJ.sum(1, keepdim=True)

    def _merged(self, maps_BKhw: Tensor, merge: Merge) -> Tensor:
        maps_BMJhw = maps_BKhw[:, self.slot_MJ]
        if merge == "max":
            return maps_BMJhw.amax(2)
        weights = maps_BMJhw.masked_fill(~self.held_MJ[:, :, None, None], -torch.inf).softmax(2)
        return (weights * maps_BMJhw).sum(2)


class LinearScores(nn.Module):
    """A plain classifier of the last level's mean, and its class activation maps (CAM, arXiv 1512.04150).

    The maps are the classifier applied at every place. What prototypes are compared with.

    Args:
        widths: Channels of the levels.
        classes: M.
    """

    def __init__(self, widths: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.widths = tuple(widths)
        self.classify = nn.Linear(widths[-1], classes)

    def forward(self, levels: list[Tensor], wanted: Collection[int], merge: Merge | None = None) -> ScaleMaps:
        """Maps of the last level, whichever are wanted. There is nothing to merge."""
        none: list[Tensor | None] = [None] * (len(levels) - 1)
        map_BMhw = self.classify(levels[-1].movedim(1, -1)).float().movedim(-1, 1)
        return ScaleMaps([*none, map_BMhw], [*none, levels[-1]], [*none, None], [*none, None], [*none, None])
