"""An evaluation of a promptable model: what is asked, of which model, and where the answers go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from lamella.data.labelled_image import prepared
from lamella.errors import ImageError
from lamella.imaging.datasets.collection import Collection, Item
from lamella.imaging.datasets.mask_channels import channels_of
from lamella.models.embedding_cache import EmbeddingCache
from lamella.models.promptable_model import PromptableModel
from lamella.verbs.evaluation.prompted_images import Window, windows_of
from lamella.verbs.evaluation.prompted_settings import Config
from lamella.verbs.evaluation.segment_models import Judges


@dataclass
class Work:
    """An evaluation.

    Attributes:
        collection: With masks.
        judges: Which model judges which image.
        models: In the order of the judges' folders.
        rival: Asked the same.
        config: Its settings.
        out: The folder of the results.
        device: Of the models.
        failed: Item id -> why it could not be judged.
    """

    collection: Collection
    judges: Judges
    models: Sequence[PromptableModel]
    rival: PromptableModel | None
    config: Config
    out: Path
    device: torch.device
    failed: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.cache = EmbeddingCache(self.models[0], self.config.embeddings)

    @property
    def classes(self) -> tuple[str, ...]:
        return channels_of(self.collection)

    @property
    def background(self) -> int | None:
        name = self.collection.mask_background
        return None if name is None else self.classes.index(name)

    @property
    def name(self) -> str:
        """Of the judged model or models."""
        many = f" ({len(self.models)} models)" if len(self.models) > 1 else ""
        return self.models[0].name + many

    @property
    def rival_name(self) -> str:
        assert self.rival is not None
        return self.rival.name if self.rival.name != self.name else f"{self.rival.name} (rival)"

    def windows(self, item: Item) -> list[Window]:
        """The parts of an image that the model is shown.

        Raises:
            ImageError: It cannot be read, or states no spacing.
        """
        try:
            image = prepared(self.collection, item, self.config.mpp, self.config.intensity)
        except ImageError as error:  # there the settings are those of training
            remedy = error.remedy.replace("data.dataset.", "dataset.").replace("data.mpp", "mpp")
            raise ImageError(error.thing, error.cause, remedy) from error
        return list(windows_of(image, self.config.tile_px))

    def judge(self, item: Item) -> PromptableModel:
        """The one model that judges an item."""
        (number,) = self.judges.judged[item]
        return self.models[number]
