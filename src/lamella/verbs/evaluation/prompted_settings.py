"""Settings of `lamella evaluate` on a promptable model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from lamella.config import Settings
from lamella.engine.world import DeviceName
from lamella.imaging.datasets.opening import DatasetSettings
from lamella.imaging.intensity import IntensitySettings
from lamella.models.prompt_protocol import PromptProtocol


class Config(Settings):
    """Settings of `lamella evaluate` on a promptable model."""

    dataset: DatasetSettings = DatasetSettings()
    """How the folder or file is read as a data set."""
    judge: Literal["auto", "all", "train", "val", "test"] = "auto"
    """Images of which split are judged. auto: test where the data set states one and the model is a single one, else
    all."""
    seen: Literal["refuse", "leave_out"] = "refuse"
    """Images of groups that every model has seen in training: refuse, or leave_out."""
    protocol: PromptProtocol = PromptProtocol()
    """Which prompts are given, and for which objects."""
    mpp: Annotated[float, Field(gt=0)] | None = 0.5
    """Micrometres per pixel at which the model sees the images and is scored; null takes them as they are."""
    tile_px: Annotated[int, Field(ge=64)] = 1024
    """Images longer than this are parted into tiles of even size; objects are then what a tile shows of them."""
    rival: str | None = None
    """Another promptable model, such as the one before it was fine-tuned: asked the same, with paired differences."""
    intensity: IntensitySettings = IntensitySettings()
    """How measured values become bytes."""
    embeddings: Path | None = None
    """Folder in which embeddings of images outlast the run; null keeps them in memory."""
    overlays: Annotated[int, Field(ge=0, le=10)] = 2
    """Images drawn of the best, of the median and of the worst."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the noisy boxes and of the resamples."""
    device: DeviceName = "auto"
    """Where the model runs."""
