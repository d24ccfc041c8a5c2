"""What is made of the slides at each scale, once."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from lamella.config import Settings
from lamella.engine.world import DeviceName


class ViewSettings(Settings):
    """One scale."""

    token_um: Annotated[float, Field(gt=0)]
    """Side of a token."""
    fov_um: Annotated[float, Field(gt=0)] | None = None
    """Side of the field of view around a sample's centre; null: 16 tokens, and at least the sample. The first view's is
    the sample."""
    mpp: Annotated[float, Field(gt=0)] | None = None
    """Micrometres per pixel at which the encoder is shown the slide; one of its levels must make these tokens of them.
    null: of what its levels allow, nearest to the encoder's own, or to the slides' where they are coarser."""


class FeatureSettings(Settings):
    """Encoders and scales."""

    encoder: str = "efficientnet"
    """efficientnet, colour, a name that `lamella encoders` lists, a model folder, a hub id, or SAM 2
    (sam2-hiera-tiny@/path/to/file.safetensors)."""
    views: Annotated[tuple[ViewSettings, ...], Field(min_length=1)] = (
        ViewSettings(token_um=2),
        ViewSettings(token_um=8),
    )
    """Finest first; the first is sampled at every bin."""
    standardise: Literal["none", "slide"] = "slide"
    """slide: each feature has mean 0 and deviation 1 over the tissue of its slide; no label is looked at."""
    random_seed: int | None = None
    """Give the encoder random weights of this seed: the control."""
    cache: Path | None = None
    """Where features are kept, shared by studies; null: in the study's folder."""
    batch_size: Annotated[int, Field(ge=1)] = 16
    """Images of 224 px, or as many pixels, that the encoder is shown at once."""
    device: DeviceName = "auto"
    """Where the encoder runs."""

    @model_validator(mode="after")
    def _finest_first(self) -> Self:
        tokens_um = [view.token_um for view in self.views]
        if any(one > other for one, other in pairwise(tokens_um)):
            raise ValueError(f"views must come finest first, not with tokens of {tokens_um} um")
        if self.views[0].fov_um is not None:
            raise ValueError("views[0].fov_um: the first view is sampled at the bins of the sample; leave it null")
        return self
