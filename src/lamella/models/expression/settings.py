"""Settings of the networks that predict expression."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from lamella.config import Settings


class CrossScaleSettings(Settings):
    """Every bin asks the tokens of the coarser views, whose places it knows in micrometres."""

    name: Literal["cross_scale"] = "cross_scale"
    window: Literal["local", "full"] = "local"
    """local: a bin sees the tokens around its own place. full: all tokens of the view."""
    reach: Annotated[int, Field(ge=0)] = 2
    """Of local: tokens on each side of the nearest one, in each view; 2 are 5 x 5 tokens."""
    heads: Annotated[int, Field(ge=1)] = 4
    """Attention heads; four times their number divides the width."""


class GatedSettings(Settings):
    """Coarser views are laid under the bins at their registered places and added through learned gates."""

    name: Literal["gated"] = "gated"


class HierarchicalSettings(Settings):
    """From the coarsest view to the finest, each told what the coarser one knows at its place."""

    name: Literal["hierarchical"] = "hierarchical"


class AddedSettings(Settings):
    """Coarser views are laid under the bins and added: with a linear projector and decoder, a linear model."""

    name: Literal["added"] = "added"


class NoFusionSettings(Settings):
    """Only the first view is looked at; others are made and left."""

    name: Literal["none"] = "none"


AnyFusionSettings = CrossScaleSettings | GatedSettings | HierarchicalSettings | AddedSettings | NoFusionSettings
FusionSettings = Annotated[AnyFusionSettings, Field(discriminator="name")]


class MiniUNetSettings(Settings):
    """A small U-Net: it goes down by strided convolutions and up again by transposed ones."""

    name: Literal["miniunet"] = "miniunet"
    depth: Annotated[int, Field(ge=1, le=4)] = 2
    """Halvings, as far as the tile's side allows."""


class Hist2STSettings(Settings):
    """After Hist2ST (Zeng et al., Briefings in Bioinformatics 2022): convolution, attention, graph of neighbours."""

    name: Literal["hist2st"] = "hist2st"
    mixers: Annotated[int, Field(ge=0)] = 2
    """Blocks of convolution."""
    blocks: Annotated[int, Field(ge=0)] = 1
    """Blocks of attention, between patches of bins."""
    patch_bins: Annotated[int, Field(ge=1)] = 8
    """Bins along the side of a patch, where the tile is larger than one."""
    heads: Annotated[int, Field(ge=1)] = 4
    """Of the attention; four times their number divides the width."""
    graphs: Annotated[int, Field(ge=0)] = 2
    """Rounds of messages between neighbouring bins."""


class LinearDecoderSettings(Settings):
    """One linear map of each bin by itself."""

    name: Literal["linear"] = "linear"


AnyDecoderSettings = MiniUNetSettings | Hist2STSettings | LinearDecoderSettings
DecoderSettings = Annotated[AnyDecoderSettings, Field(discriminator="name")]


class ExpressionModelSettings(Settings):
    """The network from features of several scales to the expression of every bin."""

    fusion: FusionSettings = CrossScaleSettings()
    """How scales become one: cross_scale, gated, hierarchical, added or none."""
    decoder: DecoderSettings = MiniUNetSettings()
    """How features become expression: miniunet, hist2st or linear."""
    width: Annotated[int, Field(ge=4)] = 48
    """Channels that every view is projected to."""
    projector: Literal["mlp", "linear"] = "mlp"
    """How: two maps with a normalisation and a bend between them, or one linear map."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the channels left out before the decoder."""

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> Self:
        for block, user in (("fusion", self.fusion), ("decoder", self.decoder)):
            heads = getattr(user, "heads", None)
            # Two axes, and a sine and a cosine for each: a head turns at least four channels.
            if heads is not None and self.width % (4 * heads):
                raise ValueError(f"width ({self.width}) must be a multiple of 4 x {block}.heads ({heads})")
        return self
