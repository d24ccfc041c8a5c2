"""Settings of `lamella evaluate` on a model that labels every pixel by itself."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from lamella.config import Settings
from lamella.dense.blending import BlendSettings
from lamella.engine.world import DeviceName
from lamella.imaging.datasets.opening import DatasetSettings
from lamella.imaging.intensity import IntensitySettings

Positive = Annotated[float, Field(gt=0)]


class Config(Settings):
    """Settings of `lamella evaluate` on a model that labels pixels."""

    dataset: DatasetSettings = DatasetSettings()
    """How the folder or file is read as a data set."""
    judge: Literal["auto", "all", "train", "val", "test"] = "auto"
    """Images of which split are judged. auto: test where the data set states one and the model is a single one, else
    all."""
    seen: Literal["refuse", "leave_out"] = "refuse"
    """Images of groups that every model has seen in training: refuse, or leave_out."""
    ensemble: bool = False
    """Average the models of a run with folds that have not seen an image; otherwise exactly one must be left."""
    blend: BlendSettings = BlendSettings()
    """How tiles become one map, and whether each is also shown mirrored and turned (blend.tta)."""
    intensity: IntensitySettings = IntensitySettings()
    """How measured values become bytes."""
    outlines: bool = True
    """Score boundaries and objects too; of images without a spacing they cannot be."""
    tolerance_um: Positive = 3.0
    """Outlines this far apart are one (boundary F1): about the width of a membrane drawn by hand."""
    object_um2: tuple[Positive, ...] = (500.0, 5000.0)
    """Ends of the sizes by which the recall of objects is told; the last size is open."""
    overlays: Annotated[int, Field(ge=0, le=10)] = 2
    """Images drawn of the best, of the median and of the worst."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the resamples and of the colour baseline."""
    batch_size: Annotated[int, Field(ge=1)] = 8
    """Tiles shown at once."""
    device: DeviceName = "auto"
    """Where the model runs."""

    @field_validator("object_um2")
    @classmethod
    def _rising(cls, sizes: tuple[float, ...]) -> tuple[float, ...]:
        if list(sizes) != sorted(set(sizes)):
            raise ValueError("sizes must rise")
        return sizes
