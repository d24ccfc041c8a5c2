"""What is made of the slides at each scale, once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from lamella.config import Settings
from lamella.engine.world import DeviceName


class ViewSettings(Settings):
    """One scale."""

    token_um: Annotated[float, Field(gt=0)]
    """Side of a token."""
    fov_um: Annotated[float, Field(gt=0)] | None = None
    """Side of the field of view around a sample's centre; null: 16 tokens, and at least the sample."""


class FeatureSettings(Settings):
    """Encoders and scales."""

    encoder: str = "efficientnet"
    """efficientnet, colour, a name that `lamella encoders` lists, a model folder, or a hub id."""
    views: tuple[ViewSettings, ...] = (ViewSettings(token_um=2), ViewSettings(token_um=8))
    """Finest first; the first is sampled at every bin."""
    standardise: Literal["none", "slide"] = "slide"
    """slide: each feature has mean 0 and deviation 1 over the tissue of its slide; no label is looked at."""
    random_seed: int | None = None
    """Give the encoder random weights of this seed: the control."""
    cache: Path | None = None
    """Where features are kept, shared by studies; null: in the study's folder."""
    batch_size: Annotated[int, Field(ge=1)] = 16
    device: DeviceName = "auto"
