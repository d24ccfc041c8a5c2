"""The network that `features.encoder` names, as a frozen backbone; for the control, with random weights."""

from __future__ import annotations

from functools import lru_cache

import torch

from lamella.errors import LamellaError
from lamella.models.encoders import Twinned, random_twin
from lamella.models.hub import load_encoder
from lamella.models.pyramids.any_encoder import EncoderGrid
from lamella.models.pyramids.backbone import Backbone
from lamella.models.pyramids.building import Sam2Settings, backbone_from, make_backbone
from lamella.models.pyramids.colour import ColourPyramid
from lamella.models.pyramids.efficientnet import EfficientNetPyramid, fresh_efficientnet, pretrained_efficientnet
from lamella.verbs.expression_stages.feature_settings import FeatureSettings

_SAM2 = "sam2"


def feature_backbone(settings: FeatureSettings) -> Backbone:
    """The backbone, frozen, in eval mode, on the CPU. The last two that were asked for stay in memory.

    Raises:
        LamellaError: It is not there, or cannot be loaded: nothing is taken in its stead. Or random weights are asked
            for of one that has none.
    """
    return _loaded(settings.encoder, settings.random_seed)


def backbone_at(backbone: Backbone, mpp: float) -> Backbone:
    """The same network, told at what spacing it is shown the slide: own encoders place their patches by it."""
    return EncoderGrid(backbone.encoder, mpp) if isinstance(backbone, EncoderGrid) else backbone


def encoder_name(settings: FeatureSettings) -> str:
    """What its features are called; not the name of weights that it does not have."""
    name = settings.encoder.partition("@")[0].rstrip("/").split("/")[-1]
    return name if settings.random_seed is None else f"{name}-random{settings.random_seed}"


@lru_cache(maxsize=2)  # a study and its random control
def _loaded(spec: str, random_seed: int | None) -> Backbone:
    try:
        with torch.random.fork_rng(devices=[]):  # networks draw weights before theirs are read, and only the first time
            backbone = _trained(spec) if random_seed is None else _random(spec, random_seed)
    except LamellaError as error:
        raise LamellaError(
            f"features.encoder={spec}",
            f"it cannot be loaded: {error.thing}: {error.cause}",
            f"{error.remedy} Nothing is taken in its stead; `lamella encoders` says which are ready on this machine.",
        ) from error
    return backbone.requires_grad_(False).eval()


def _trained(spec: str) -> Backbone:
    if spec == ColourPyramid.kind:
        return ColourPyramid()
    if spec == EfficientNetPyramid.kind:
        return pretrained_efficientnet()
    if spec.startswith(_SAM2):
        return make_backbone(Sam2Settings(weights=spec), None)
    return EncoderGrid(load_encoder(spec), None)


def _random(spec: str, seed: int) -> Backbone:
    """The same architecture with weights of a seed."""
    if spec == EfficientNetPyramid.kind:  # its weights are not needed, then
        torch.manual_seed(seed)
        return fresh_efficientnet()
    backbone = _trained(spec)
    if isinstance(backbone, EncoderGrid) and isinstance(backbone.encoder, Twinned):
        return EncoderGrid(random_twin(backbone.encoder, seed), None)
    if isinstance(backbone, ColourPyramid | EncoderGrid):
        raise LamellaError(
            f"features.random_seed={seed}",
            "the encoder has no weights to draw at random",
            "Use features.encoder=efficientnet for the random control.",
        )
    torch.manual_seed(seed)
    return backbone_from({"kind": backbone.kind, **backbone.description()}, spec)
