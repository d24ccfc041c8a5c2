"""How the images of a segmentation are read, predicted and counted."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from lamella.dense.blending import BlendSettings
from lamella.errors import LamellaError
from lamella.imaging.datasets.collection import Collection, Item
from lamella.imaging.datasets.mask_channels import channels_of
from lamella.imaging.intensity import IntensitySettings
from lamella.models.dense_contract import DenseModel
from lamella.verbs.evaluation.judged_tiles import slug
from lamella.verbs.evaluation.segment_images import (
    JudgedImage,
    judged_image,
    read_channels,
)
from lamella.verbs.evaluation.segment_models import Judges

PREDICTIONS = "predictions"


@dataclass(frozen=True)
class Scoring:
    """How images are predicted and counted.

    Attributes:
        collection: With masks.
        judges: Which model predicts which item.
        folder: Of the results; predictions go below it.
        load: Folder of a model to the model, on its device.
        blend: How tiles become one map.
        batch_size: Tiles shown at once.
        intensity: How measured values become bytes.
        tolerance_um: Of the boundary F1.
        sizes_um2: Ends of the sizes of objects.
        outlines: Whether boundaries are scored.
    """

    collection: Collection
    judges: Judges
    folder: Path
    load: Callable[[Path], DenseModel]
    blend: BlendSettings
    batch_size: int
    intensity: IntensitySettings
    tolerance_um: float
    sizes_um2: tuple[float, ...]
    outlines: bool = True

    @cached_property
    def classes(self) -> tuple[str, ...]:
        return channels_of(self.collection)

    @cached_property
    def background(self) -> int | None:
        name = self.collection.mask_background
        return None if name is None else self.classes.index(name)

    def image(self, item: Item) -> JudgedImage:
        """An item's pixels and truth."""
        return judged_image(self.collection, item, self.intensity)

    def place(self, item: Item) -> Path:
        """The file of an item's prediction; names that differ only in odd characters get different files."""
        mark = hashlib.sha256(item.item_id.encode()).hexdigest()[:6]
        return self.folder / PREDICTIONS / f"{slug(item.item_id)}-{mark}.png"

    def stored(self, item: Item, shape: tuple[int, ...] | None = None) -> np.ndarray:
        """The prediction of an item that `predict` made, of this shape where one is given.

        Raises:
            LamellaError: Its file was removed or changed.
        """
        found = read_channels(self.place(item), shape)
        if found is None:
            raise LamellaError(self.place(item), "it was removed or changed since it was written", "Evaluate anew.")
        return found
