"""Weak supervision: a prototype segmenter learns from labels of whole images or slides which pixels are what.

Labels of patches teach each tile directly. The label of a slide reaches its tiles through the model's pooling, at every
level alike; with `pooling=none` it is taken for each tile's own, which is the control.

Shapes: N tiles of a batch, G bags, C channels of the batch (the classes, then the background where there is one), M
scored classes (the first M channels), P pairs of a tile and a class that it shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lamella.config import Settings
from lamella.errors import ConfigError
from lamella.methods.bag_pooling import carriers, numbered
from lamella.methods.weak_losses import (
    ContrastSettings,
    WeakLossSettings,
    has_weight,
    info_nce,
    masked_means,
    multi_scale_bce,
    regions,
    sparsity,
    total_variation,
)
from lamella.models.bag_pool import BagPoolSettings
from lamella.models.class_evidence import fused_evidence
from lamella.models.contract import Encoder
from lamella.models.masked_features import masked_features, resized
from lamella.models.prototype_scores import ScaleMaps
from lamella.models.prototype_segmenter import PrototypeSegmenter, last_weights
from lamella.models.pyramids.memory import LevelMemory
from lamella.models.weak_settings import WeakModelSettings

Batch = dict[str, Tensor]
Logs = dict[str, Tensor]


class WeakSettings(Settings):
    """What is trained, and what it is punished for."""

    model: WeakModelSettings = WeakModelSettings()
    """The network."""
    pooling: BagPoolSettings = BagPoolSettings()
    """How the label of a slide reaches its tiles. Not used with labels of patches."""
    loss: WeakLossSettings = WeakLossSettings()


class Answers(NamedTuple):
    """What a batch was told, next to what it should have been told: one row for each tile or bag that has a label."""

    logits: list[Tensor | None]
    label: Tensor
    known: Tensor


class WeakMethod(nn.Module):
    """The method of `lamella weak train`.

    Args:
        model: What is trained; its backbone is as trainable as whoever made it left it.
        loss: What it is punished for.
        encoder: What made the prototypes; for `contrast.features=encoder`. It is not trained and not in checkpoints.
        mpp: Micrometres per pixel of the tiles, for that encoder.
        memory: What the backbone, which is frozen then, made of tiles before; None: tiles are encoded each time.

    Raises:
        ConfigError: The loss has other scales than the model, or asks for what the model does not have.
    """

    def __init__(
        self,
        model: PrototypeSegmenter,
        loss: WeakLossSettings,
        *,
        encoder: Encoder | None = None,
        mpp: float | None = None,
        memory: LevelMemory | None = None,
    ) -> None:
        super().__init__()
        self.model, self.loss, self.mpp, self.memory = model, loss, mpp, memory
        self._encoder = (encoder,)  # in a tuple: no submodule, or checkpoints would hold it
        self.scale_weights = scale_weights(model, loss)
        self.contrasts = loss.contrast.weight > 0 and hasattr(model.scores, "prototypes_KD")
        if self.contrasts and loss.contrast.features == "encoder" and encoder is None:
            raise ConfigError(
                ["train.method.loss.contrast.features: the encoder of the prototypes is not there; set it to pooled"],
                "weak",
            )

    @property
    def wanted(self) -> set[int]:
        """Levels that a step needs; the others are not compared with anything."""
        last = self.model.scales - 1
        wanted = {number for number, weight in enumerate(self.scale_weights) if weight > 0}
        if self._regularises:
            wanted |= {number for number, weight in enumerate(self.model.fuse_weights) if weight > 0}
        attends = self.model.pool.settings.kind == "attention"
        return wanted | {last} if self.contrasts or attends or self.loss.mean_map > 0 else wanted

    @property
    def leaves_unused(self) -> bool:
        """Whether a step may leave weights without a gradient: adapters of levels that have no say."""
        return len(self.wanted) < self.model.scales or not self.contrasts

    @property
    def _regularises(self) -> bool:
        return self.loss.total_variation > 0 or self.loss.sparsity > 0

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        """The loss of a batch of `data.bag_batches`.

        Returns:
            A float32 scalar and detached scalars to log.
        """
        images = batch["image"]
        maps = self.scales_of(images, self.wanted)
        answers = self.answers(maps, batch)
        loss, _ = multi_scale_bce(answers.logits, answers.label, answers.known, self.scale_weights)
        logs = {"loss_class": loss.detach()}
        for name, weight, value in self._terms(maps, images, batch):
            loss = loss + weight * value
            logs[f"loss_{name}"] = value.detach()
        return loss, logs

    def scales_of(self, images: Tensor, wanted: set[int]) -> ScaleMaps:
        """Maps of the wanted levels of uint8 (N, 3, H, W) tiles."""
        levels = self.model.backbone(images) if self.memory is None else self.memory.levels(images)
        return self.model.forward_levels(levels, wanted)

    def probabilities(self, images: Tensor) -> Tensor:
        """(N, C, H, W) as `model.maps` gives them; with a memory, to half precision and sooner."""
        levels = self.model.backbone(images) if self.memory is None else self.memory.levels(images)
        return self.model.probabilities(self.model.used_scales(levels, self.model.counted), images)

    def answers(self, maps: ScaleMaps, batch: Batch) -> Answers:
        """Logits of every level for all that has a label: tiles, or the bags that they are pooled to."""
        return self._answers(self.model.scale_logits(maps), self._pool_features(maps), batch)

    def _answers(self, per_tile: list[Tensor | None], features: Tensor | None, batch: Batch) -> Answers:
        label, known = self._scored(batch)
        if not self.pools(batch):
            return Answers(per_tile, label, known)
        number_N, bags, first_G = numbered(batch["bag"])
        pooled = [None if each is None else self._pooled(each, features, number_N, bags) for each in per_tile]
        return Answers(pooled, label[first_G], known[first_G])

    def pools(self, batch: Batch) -> bool:
        """Whether labels are of bags, and reach tiles through the pooling."""
        return "bag" in batch and self.model.pool.settings.kind != "none"

    def label_loss(self, logits: list[Tensor | None], label: Tensor, known: Tensor) -> Tensor:
        """The classification loss alone, over the levels that training counts: what validation goes by."""
        return multi_scale_bce(logits, label, known, self.scale_weights)[0]

    def answers_of(self, chunks: Sequence[Tensor], batch: Batch) -> Answers:
        """The answers of tiles that do not fit into memory at once: a whole slide's.

        Args:
            chunks: uint8 (n, 3, H, W) tiles, all those of `batch` in order.
            batch: `label`, `known`, and `bag` where slides are labelled.
        """
        counted = {number for number, weight in enumerate(self.scale_weights) if weight > 0} | {self.model.scales - 1}
        logits: list[list[Tensor | None]] = []
        features = []
        for images in chunks:
            maps = self.scales_of(images, counted)
            logits.append(self.model.scale_logits(maps))
            features.append(self._pool_features(maps))
        joined = [None if each[0] is None else torch.cat(each) for each in zip(*logits, strict=True)]
        return self._answers(joined, None if features[0] is None else torch.cat(features), batch)

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        """Nothing follows a step."""

    # ---- terms of the maps ------------------------------------------------------------------------------------------

    def _terms(self, maps: ScaleMaps, images: Tensor, batch: Batch) -> list[tuple[str, float, Tensor]]:
        """Name, weight and value of every further term; one with weight 0 is not computed."""
        terms = []
        if self._regularises:
            evidence = fused_evidence(maps.class_maps, self.model.fuse_weights)
            if self.loss.total_variation > 0:
                terms.append(("variation", self.loss.total_variation, total_variation(evidence)))
            if self.loss.sparsity > 0:
                terms.append(("sparsity", self.loss.sparsity, sparsity(evidence)))
        if self.loss.mean_map > 0:
            terms.append(("mean_map", self.loss.mean_map, _there(maps.class_maps[-1]).mean()))
        if self.contrasts:
            settings = self.loss.contrast
            marked, left = self._contrast(maps, images, batch)
            terms.append(("foreground", settings.weight * settings.foreground, marked))
            terms.append(("background", settings.weight * settings.background, left))
        return terms

    def _contrast(self, maps: ScaleMaps, images: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """InfoNCE of what the last level's maps mark, and of what they leave out, in every tile that shows a class."""
        settings = self.loss.contrast
        tile_P, class_P = torch.nonzero(self._shown(maps, batch), as_tuple=True)
        map_Phw = _there(maps.class_maps[-1])[tile_P, class_P]
        own_PK = self.model.scores.class_of_K == class_P[:, None]
        if settings.features == "encoder":
            parts, prototypes = self._encoded(images, tile_P, map_Phw, settings), self.model.scores.prototypes_KD
        else:
            weights = regions(map_Phw, settings)
            features, prototypes = _there(maps.features[-1]), _there(maps.prototypes[-1])
            parts = tuple((masked_means(features, tile_P, each), has_weight(each)) for each in weights)
        (marked_PD, is_marked), (left_PD, is_left) = parts
        return (
            info_nce(
                marked_PD,
                prototypes,
                own_PK & is_marked[:, None],
                ~own_PK,
                settings.temperature,
                positive=settings.positive,
            ),
            info_nce(
                left_PD,
                prototypes,
                ~own_PK & is_left[:, None],
                own_PK,
                settings.temperature,
                positive=settings.positive,
            ),
        )

    def _shown(self, maps: ScaleMaps, batch: Batch) -> Tensor:
        """(N, M) bool: which classes a tile is taken to show. Of a slide's label: only the tiles that answer for it."""
        label, known = self._scored(batch)
        shown = (label > 0) & (known > 0)
        if not self.pools(batch):
            return shown
        number_N, bags, _ = numbered(batch["bag"])
        classes = len(self.model.classes)
        logits = _there(self.model.scale_logits(maps)[-1])[:, :classes]
        carried = carriers(self.model.pool, logits, self._pool_features(maps), number_N, bags)
        return torch.cat([shown[:, :classes] & carried, shown[:, classes:]], dim=1)

    def _pooled(self, logits_NM: Tensor, features: Tensor | None, number_N: Tensor, bags: int) -> Tensor:
        """(G, M) logits of bags. Where the background is known, all of the slide is background: its logits' mean."""
        classes = len(self.model.classes)
        of_classes = self.model.pool.of_bags(logits_NM[:, :classes], features, number_N, bags)
        rest = logits_NM[:, classes:]
        if not rest.shape[1]:
            return of_classes
        tiles_G = torch.bincount(number_N, minlength=bags)[:, None]
        mean = rest.new_zeros(bags, rest.shape[1]).index_add(0, number_N, rest) / tiles_G
        return torch.cat([of_classes, mean], dim=1)

    def _encoded(
        self, images: Tensor, tile_P: Tensor, map_Phw: Tensor, settings: ContrastSettings
    ) -> tuple[tuple[Tensor, Tensor], ...]:
        """The encoder's features of the marked part of each tile and of the rest."""
        (encoder,) = self._encoder
        assert encoder is not None
        side = encoder.contract.size_px
        if not len(tile_P):
            nothing = map_Phw.new_zeros(0, self.model.scores.prototypes_KD.shape[1]), tile_P.new_zeros(0).bool()
            return nothing, nothing
        enlarged = F.interpolate(map_Phw[:, None], images.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
        parts = []
        for weights in regions(enlarged, settings):
            shown, seen = resized(images[tile_P], weights, side)
            spacing = None if self.mpp is None else self.mpp * images.shape[-1] / side
            parts.append((masked_features(encoder, shown, seen, spacing), has_weight(weights)))
        return tuple(parts)

    def _scored(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Labels of the scored classes, and which are known."""
        count = len(self.model.scored)
        return batch["label"][:, :count], batch["known"][:, :count]

    def _pool_features(self, maps: ScaleMaps) -> Tensor | None:
        return self.model.tile_features(maps) if self.model.pool.settings.kind == "attention" else None


def scale_weights(model: PrototypeSegmenter, loss: WeakLossSettings) -> tuple[float, ...]:
    """Weights of the model's levels in the classification loss; a plain classifier has its last level alone.

    Raises:
        ConfigError: There are fewer weights than levels, or all that count are 0.
    """
    if not hasattr(model.scores, "prototypes_KD"):
        return (*([0.0] * (model.scales - 1)), 1.0)
    weights = last_weights(loss.scale_weights, model.scales)
    if len(weights) != model.scales or not any(weights):
        raise ConfigError(
            [
                f"train.method.loss.scale_weights: {list(loss.scale_weights)} for the backbone's {model.scales} "
                "levels; give as many, finest first, and not all of them 0"
            ],
            "weak",
        )
    return weights


def _there(value: Tensor | None) -> Tensor:
    """A level that was asked for."""
    if value is None:
        raise ValueError("the last level was not computed")
    return value
