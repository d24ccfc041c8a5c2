"""Weakly taught models by their settings: fresh, or ready to learn on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lamella.errors import CheckpointError, LamellaError
from lamella.models.bag_pool import BagPool, BagPoolSettings
from lamella.models.dense_contract import DenseContract
from lamella.models.prototype_scores import LinearScores, PrototypeScores
from lamella.models.prototype_segmenter import PrototypeSegmenter
from lamella.models.prototypes import Prototypes
from lamella.models.pyramids.backbone import Backbone
from lamella.models.pyramids.building import (
    AnyBackboneSettings,
    SegformerSettings,
    SwinSettings,
    make_backbone,
)
from lamella.models.pyramids.low_rank import add_low_rank
from lamella.models.weak_settings import WeakModelSettings


def make_weak_model(
    settings: WeakModelSettings,
    prototypes: Prototypes | None,
    *,
    classes: tuple[str, ...],
    background: str | None,
    mpp: float | None,
    tile_px: int,
    pooling: BagPoolSettings | None = None,
    facts: Mapping[str, Any] | None = None,
    seed: int = 0,
    name: str = "weak segmenter",
) -> PrototypeSegmenter:
    """A model that is ready to be taught.

    Args:
        settings: The network.
        prototypes: Of the classes, and of the background where it has some; None for scores=linear.
        classes: Names, in order.
        background: What is none of them; None where there is none.
        mpp: Micrometres per pixel of the tiles.
        tile_px: Side of a tile.
        pooling: How a slide's tiles make its logits.
        facts: How it is trained; see `WeakModel.facts`.
        seed: Of the weights that are drawn.
        name: For tables and pictures.

    Returns:
        In eval mode. The head is trainable, the backbone where its settings say so.

    Raises:
        CheckpointError: The backbone has no weights and from_scratch is false; or they cannot be read.
        LamellaError: Prototypes, classes, levels and settings do not agree.
    """
    refuse_random(settings.backbone, settings.from_scratch)
    channels = classes if background is None else (*classes, background)
    _check(settings, prototypes, classes, background)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = make_backbone(settings.backbone, mpp)
        _check_levels(settings, backbone, tile_px)
        contract = DenseContract(
            channels, mpp, tile_px, backbone.multiple_px, background=background, licence=backbone.licence
        )
        scores = _scores(settings, backbone, prototypes, len(classes))
        pool = BagPool(pooling or BagPoolSettings(), scores.widths[-1], len(classes))
    scored = classes if prototypes is None or settings.scores == "linear" else prototypes.classes
    return PrototypeSegmenter(backbone, scores, pool, contract, settings, scored=tuple(scored), name=name, facts=facts)


def make_trainable(model: PrototypeSegmenter, settings: WeakModelSettings) -> PrototypeSegmenter:
    """Ready a loaded model, which is frozen, to learn on: its head, and its backbone where the settings say so.

    Raises:
        LamellaError: Low-rank updates are asked for, and cannot be had.
    """
    model.requires_grad_(True)
    model.backbone.requires_grad_(False)
    if settings.backbone.train == "whole":
        model.backbone.thaw()
    elif settings.backbone.train == "lora":
        add_low_rank(model.backbone, settings.backbone.rank)
    return model


def refuse_random(backbone: AnyBackboneSettings, from_scratch: bool) -> None:
    """Refuse to begin with random weights that nobody asked for.

    Mistake of the source: where the backbone's weights were missing it printed a warning and went on without them.

    Raises:
        CheckpointError: The backbone has no weights.
    """
    if isinstance(backbone, SegformerSettings | SwinSettings) and backbone.weights is None and not from_scratch:
        raise CheckpointError(
            f"backbone {backbone.name}",
            "it has no weights to begin with, and random ones learn little from labels of whole images",
            "Name weights (weights: nvidia/mit-b1, or a folder), take the backbone efficientnet, whose weights come "
            "with a small package, or set from_scratch: true.",
        )


def _check(
    settings: WeakModelSettings, prototypes: Prototypes | None, classes: tuple[str, ...], background: str | None
) -> None:
    """Refuse prototypes of other classes, and a background that could never win."""
    if settings.scores == "linear":
        if settings.background_score == "prototypes":
            raise LamellaError(
                "background_score",
                "a linear classifier has no prototypes of the background",
                "Set power, white or auto.",
            )
        return
    if prototypes is None:
        raise LamellaError("prototypes", "there are none", "Make them first, or set scores: linear.")
    whole = classes if background is None else (*classes, background)
    if prototypes.classes not in (classes, whole):
        raise LamellaError(
            "prototypes",
            f"they are of {', '.join(prototypes.classes)}, and the study's classes are {', '.join(whole)}",
            "Make the prototypes again with this study's class_order.",
        )
    if settings.background_score == "prototypes" and background not in prototypes.classes:
        raise LamellaError(
            "background_score",
            f"there are no prototypes of {background or 'a background'}",
            "Set power, white or auto.",
        )


def _check_levels(settings: WeakModelSettings, backbone: Backbone, tile_px: int) -> None:
    """Refuse weights of levels that the backbone does not have, and tiles that do not fit it."""
    if tile_px % backbone.multiple_px:
        raise LamellaError(
            "data.tile_px", f"{tile_px} is no multiple of the backbone's {backbone.multiple_px}", "Set one that is."
        )
    levels, fuse = len(backbone.widths), settings.fuse
    if fuse is not None and settings.scores == "prototypes" and (len(fuse) != levels or not any(fuse)):
        raise LamellaError(
            "fuse",
            f"{list(fuse)} cannot weigh the backbone's {levels} level{'s' * (levels != 1)}",
            f"Give {levels}, not all of them 0; or null.",
        )


def _scores(
    settings: WeakModelSettings, backbone: Backbone, prototypes: Prototypes | None, classes: int
) -> PrototypeScores | LinearScores:
    if settings.scores == "linear" or prototypes is None:
        return LinearScores(backbone.widths, classes)
    return prototype_scores(settings, prototypes.features_KD, prototypes.k_list, backbone.widths)


def prototype_scores(
    settings: WeakModelSettings, features_KD: Tensor, k_list: tuple[int, ...], widths: tuple[int, ...]
) -> PrototypeScores:
    """The comparison with prototypes that the settings ask for."""
    return PrototypeScores(
        features_KD,
        k_list,
        widths,
        ratio=settings.adapter_ratio,
        merge=settings.merge,
        unit=settings.unit_prototypes,
        bias=settings.bias,
        norm=settings.norm,
        project=settings.project,
    )
