"""A model that labels pixels after it was taught with labels of whole images or slides.

Shapes: B tiles, C channels (the classes, then the background where there is one), M scored classes (the classes, and
the background where it has prototypes), H, W pixels of a tile, h, w places of a level, D channels of the last level.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lamella.models.bag_pool import BagPool
from lamella.models.class_evidence import background_score, fused_evidence, gated, normalised
from lamella.models.dense_contract import DenseContract
from lamella.models.fingerprint import module_fingerprint
from lamella.models.prototype_scores import LinearScores, PrototypeScores, ScaleMaps
from lamella.models.pyramids.backbone import Backbone
from lamella.models.weak_settings import WeakModelSettings


class PrototypeSegmenter(nn.Module):
    """A `WeakModel`. Made ready to use; `train()` readies it to learn.

    Args:
        backbone: Tiles to feature maps.
        scores: Feature maps to logits of the scored classes.
        pool: Logits of tiles to those of their slide.
        contract: What it is shown and what its channels mean; the background last.
        settings: How the rest is computed.
        scored: Names of the class maps.
        name: For tables and pictures.
        facts: How it was trained, for whoever reads its folder.

    Raises:
        ValueError: The contract is not one of classes, or its tile does not fit the backbone.
    """

    def __init__(
        self,
        backbone: Backbone,
        scores: PrototypeScores | LinearScores,
        pool: BagPool,
        contract: DenseContract,
        settings: WeakModelSettings,
        *,
        scored: tuple[str, ...],
        name: str,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if contract.kind != "classes" or contract.stride != 1:
            raise ValueError("a weak segmenter gives classes, one for each pixel")
        if contract.tile_px % backbone.multiple_px or contract.multiple_px % backbone.multiple_px:
            raise ValueError(f"tiles must be multiples of the backbone's {backbone.multiple_px} px")
        self.backbone, self.scores, self.pool = backbone, scores, pool
        self.contract, self.settings, self.scored, self.name = contract, settings, scored, name
        self._facts = dict(facts or {})
        self.eval()

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the channels without the background."""
        return tuple(name for name in self.contract.channels if name != self.contract.background)

    @property
    def scales(self) -> int:
        """Levels of the backbone."""
        return len(self.backbone.widths)

    @property
    def feature_dim(self) -> int:
        """Numbers of a tile's feature in `tile_answers`."""
        return self.scores.widths[-1]

    @property
    def facts(self) -> dict[str, Any]:
        return {**self._facts, "background": self.background_rule, "pooling": self.pool.settings.kind}

    def add_facts(self, facts: Mapping[str, Any]) -> None:
        """Say more of how it was trained."""
        self._facts.update(facts)

    @property
    def background_rule(self) -> str:
        """What makes the background's probability: prototypes, power, white, or none."""
        if self.contract.background is None:
            return "none"
        asked = self.settings.background_score
        if asked != "auto":
            return asked
        return "prototypes" if self.contract.background in self.scored else "power"

    @property
    def fuse_weights(self) -> tuple[float, ...]:
        """Of the levels, in maps and logits."""
        return fuse_weights(self.settings, self.scales)

    def train(self, mode: bool = True) -> PrototypeSegmenter:
        """A frozen backbone answers as it will when it is used: nothing is dropped."""
        super().train(mode)
        if not any(each.requires_grad for each in self.backbone.parameters()):
            self.backbone.eval()
        return self

    def forward_scales(self, images: Tensor, wanted: Collection[int] | None = None) -> ScaleMaps:
        """Maps of every level of uint8 (B, 3, H, W) tiles; gradients flow.

        Args:
            images: The tiles.
            wanted: Numbers of the levels that are needed, finest is 0; all if not given.
        """
        return self.forward_levels(self.backbone(images), wanted)

    def forward_levels(self, levels: list[Tensor], wanted: Collection[int] | None = None) -> ScaleMaps:
        """The same of what the backbone made of tiles."""
        return self.scores(levels, range(self.scales) if wanted is None else set(wanted))

    def used_scales(self, levels: list[Tensor], wanted: Collection[int]) -> ScaleMaps:
        """The same as it is when the model is used: `merge_used` in place of `merge`."""
        return self.scores(levels, wanted, self.settings.merge_used)

    def scale_logits(self, maps: ScaleMaps) -> list[Tensor | None]:
        """(B, M) logits of each level: does the tile hold any of the class?"""
        return [None if each is None else self.pooled_map(each) for each in maps.class_maps]

    def pooled_map(self, map_BMhw: Tensor) -> Tensor:
        """(B, M) logits of a tile from those of its places."""
        flat_BMN = map_BMhw.flatten(2)
        if self.settings.tile_pooling == "max":
            return flat_BMN.amax(2)
        if self.settings.tile_pooling == "top":
            count = math.ceil(self.settings.top_fraction * flat_BMN.shape[2])
            return flat_BMN.topk(count, dim=2).values.mean(2)
        return flat_BMN.mean(2)

    def tile_features(self, maps: ScaleMaps) -> Tensor:
        """(B, D) the last level as it is compared, averaged over the tile."""
        last = maps.features[-1]
        if last is None:
            raise ValueError("the last level was not computed")
        return last.float().mean((-2, -1))

    def fused_logits(self, maps: ScaleMaps) -> Tensor:
        """(B, classes) the logits of the levels, weighted as in `maps`; without the background's."""
        return self.scored_logits(maps)[:, : len(self.classes)]

    def scored_logits(self, maps: ScaleMaps) -> Tensor:
        """(B, M) the same of every scored class."""
        parts = zip(self.scale_logits(maps), self.fuse_weights, strict=True)
        counted = [(each, weight) for each, weight in parts if weight > 0 and each is not None]
        total = sum(weight for _, weight in counted)
        return torch.stack([each * (weight / total) for each, weight in counted]).sum(0)

    @torch.no_grad()
    def tile_answers(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, classes) logits of tiles, and the (B, D) features that attention over them reads."""
        maps = self.used_scales(self.backbone(images), self.counted | {self.scales - 1})
        return self.fused_logits(maps), self.tile_features(maps)

    @torch.no_grad()
    def tile_logits(self, images: Tensor) -> Tensor:
        """uint8 (B, 3, H, W) to (B, classes) logits: does the tile hold any of the class? Fused over the scales."""
        return self.fused_logits(self.used_scales(self.backbone(images), self.counted))

    def bag_logits(self, tile_logits_NM: Tensor, features_ND: Tensor | None = None) -> Tensor:
        """(N, M) logits of a bag's tiles to (M,) of the bag, pooled as in training."""
        return self.pool(tile_logits_NM, features_ND)

    @torch.no_grad()
    def maps(self, images: Tensor) -> Tensor:
        """uint8 (B, 3, H, W) at the contract's mpp to float32 (B, C, H, W): probabilities that add up to 1."""
        return self.probabilities(self.used_scales(self.backbone(images), self.counted), images)

    def probabilities(self, maps: ScaleMaps, images: Tensor) -> Tensor:
        """The same of what `forward_scales` made of these tiles; gradients flow."""
        evidence = fused_evidence(maps.class_maps, self.fuse_weights)
        return self.probabilities_of(evidence, images)

    def probabilities_of(self, evidence_BMhw: Tensor, images: Tensor) -> Tensor:
        """The same of evidence for the scored classes, 0 to 1."""
        rule, settings = self.background_rule, self.settings
        count = len(self.classes)
        if rule in ("power", "white"):
            evidence = evidence_BMhw[:, :count]
            score = background_score(evidence, images, rule, settings.alpha, settings.white_level)
            evidence = torch.cat([evidence, score], dim=1)
        else:
            evidence = evidence_BMhw[:, : len(self.contract.channels)]
        shares = normalised(evidence)
        # Averages of shares that add up to 1 do so, too: one enlargement, after everything else.
        return F.interpolate(shares, size=images.shape[-2:], mode="bilinear", align_corners=False)

    def gated(self, maps_BCHW: Tensor, present_BM: Tensor) -> Tensor:
        """Maps without the classes that an image does not hold; see `class_evidence.gated`."""
        return gated(maps_BCHW, present_BM)

    @property
    def fingerprint(self) -> str:
        return module_fingerprint(self, {**self.description(), "contract": self.contract.facts()})

    def description(self) -> dict[str, Any]:
        """What config.json says of the network, all that is needed to build it again."""
        return {
            "backbone": {"kind": self.backbone.kind, **self.backbone.description()},
            "settings": self.settings.head_facts(),
            "pooling": self.pool.settings.model_dump(),
            "scored": list(self.scored),
            "prototypes": None
            if isinstance(self.scores, LinearScores)
            else {"k_list": list(self.scores.k_list), "dim": int(self.scores.prototypes_KD.shape[1])},
        }

    @property
    def counted(self) -> set[int]:
        """Numbers of the levels that maps and logits are made of."""
        return {number for number, weight in enumerate(self.fuse_weights) if weight > 0}


def fuse_weights(settings: WeakModelSettings, scales: int) -> tuple[float, ...]:
    """Weights of a network's levels in maps and logits: those asked for, or the last of upstream's four."""
    if settings.scores == "linear":  # one map alone
        return (*([0.0] * (scales - 1)), 1.0)
    return tuple(settings.fuse) if settings.fuse is not None else last_weights((0.0, 0.3, 0.3, 0.4), scales)


def last_weights(weights: tuple[float, ...], scales: int) -> tuple[float, ...]:
    """The last of the weights of four levels, for a network of fewer."""
    return weights[-scales:]
