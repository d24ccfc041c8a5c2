"""Settings of the stage that predicts whole slides."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from lamella.config import Settings
from lamella.dense.blending import BlendSettings, WindowName
from lamella.engine.world import DeviceName


class PredictionSettings(Settings):
    """Expression of whole slides, new ones or the study's own."""

    slides: tuple[Path, ...] = ()
    """Slide files, folders or manifests without expression, predicted by all models together; where none are given
    here or behind the configuration, the study's own, each by the models that have not seen its patient."""
    mpp0: Annotated[float, Field(gt=0)] | None = None
    """Micrometres per pixel of level 0 of new slides whose files do not say."""
    cell: str = "base"
    """Which of the ablation's models."""
    models: tuple[str, ...] = ()
    """Model folders or hub ids in place of the study's own; they are averaged."""
    bin_um: Annotated[float, Field(gt=0)] | None = None
    """Side of the bins in the files, a whole multiple of the models': counts are summed, values averaged. null: the
    models'. A whole slide in bins of 2 um has sixteen times the numbers of one in bins of 8 um."""
    genes: tuple[str, ...] = ()
    """Only these of the models' genes; empty: all. Each is averaged over the models that predict it."""
    overlap: Annotated[float, Field(ge=0, le=0.9)] = 0.25
    """Least share of a tile's side that its neighbour covers too."""
    window: WindowName = "gaussian"
    """Weight of a tile's bins where tiles overlap: less at its edge, which knows less of what is around."""
    anndata: bool = True
    """Also write expression.h5ad, one row for each bin on tissue."""
    memory_mb: Annotated[int, Field(ge=16)] = 512
    """Most megabytes of the bands that are being written; wide slides with many genes get lower bands."""
    batch_size: Annotated[int, Field(ge=1)] = 8
    """Tiles shown to the models at once."""
    device: DeviceName = "auto"
    """Where the models run."""

    @property
    def blend(self) -> BlendSettings:
        """What the dense engine is told."""
        return BlendSettings(window=self.window, overlap=self.overlap)

    def deciding(self) -> dict[str, Any]:
        """What a slide's files depend on, as plain values."""
        return self.model_dump(mode="json", exclude=set(NOT_DECIDING))


# Speed, or which slides and models: those are marked in each slide's folder.
NOT_DECIDING = ("slides", "mpp0", "models", "cell", "memory_mb", "batch_size", "device")
