"""Settings of `lamella name`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from lamella.config import Settings
from lamella.engine.world import DeviceName
from lamella.imaging.datasets.opening import DatasetSettings
from lamella.imaging.datasets.settings import Texts
from lamella.metrics.ask_few_labels import NShotSettings
from lamella.metrics.image_study import ImageProbeSettings
from lamella.models.clip import Fit
from lamella.models.regions import MODES, Mode, RegionSettings

Count = Annotated[int, Field(ge=1)]
Task = Literal["zero-shot", "nshot", "linear"]


def _listed(value: Any) -> Any:
    """One word for a list of one."""
    return (value,) if isinstance(value, str) else value


class SlideConfig(Settings):
    """Settings of `lamella name` on the polygons of a slide."""

    prompts: str
    """JSON file {class: [text, ...]}, or the name of one that ships with Lamella (bcss5, glands)."""
    mode: Mode = "gray"
    """How a region is isolated: gray, dim, crop or context. Choose it, and the wording, on a data set with masks."""
    region: RegionSettings = RegionSettings()
    """What is shown of a region."""
    fit: Fit = "pad"
    """How it becomes square: pad leaves gray around the shorter side, crop cuts the ends of the longer one off."""
    batch_size: Count = 32
    """Regions encoded at once."""
    device: DeviceName = "auto"
    """Where the network runs."""


class Config(Settings):
    """Settings of `lamella name` on a data set with masks."""

    dataset: DatasetSettings = DatasetSettings()
    """How the folder or file is read as a data set."""
    prompts: Annotated[Texts, Field(min_length=1)]
    """JSON files {class: [text, ...]}, or names of those that ship with Lamella (bcss5, glands). Of several the
    wording is chosen on other patients than those judged."""
    modes: Annotated[tuple[Mode, ...], BeforeValidator(_listed), Field(min_length=1)] = MODES
    """How regions are isolated: gray (outside is gray), dim, crop (bounding box), context (with a margin). Of several
    one is chosen like the wording; probes of few labels take the first."""
    tasks: Annotated[tuple[Task, ...], BeforeValidator(_listed), Field(min_length=1)] = ("zero-shot", "nshot")
    """zero-shot: texts alone. nshot: logistic regression on n regions of each class. linear: the same on all of the
    training groups."""
    mpp: Annotated[float, Field(gt=0)] | None = None
    """Bring images to this many micrometres per pixel first; null takes them as they are."""
    region: RegionSettings = RegionSettings()
    """What a region is and what is shown of it."""
    fit: Fit = "pad"
    """How it becomes square: pad leaves gray around the shorter side, crop cuts the ends of the longer one off."""
    max_regions: Count | None = None
    """Most regions of one class in one image, drawn by the seed; null takes all."""
    random_inits: Count = 3
    """Networks with random weights that the model is compared with."""
    probes: ImageProbeSettings = ImageProbeSettings()
    """Folds, and how probes are fitted."""
    nshot: NShotSettings = NShotSettings()
    """Probes with n labels a class."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of folds, draws, controls and intervals."""
    batch_size: Count = 32
    """Regions encoded at once."""
    device: DeviceName = "auto"
    """Where the networks run."""

    @model_validator(mode="after")
    def _known_spacing(self) -> Config:
        if self.region.margin_um is not None and self.mpp is None:
            raise ValueError("region.margin_um is in micrometres: set mpp too, or region.margin instead")
        return self
