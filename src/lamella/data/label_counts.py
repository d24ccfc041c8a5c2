"""How much of each class each image holds, and draws by it: class first, then group, then image."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lamella.errors import ImageError
from lamella.formats.label_values import NOT_LABELLED
from lamella.imaging.datasets.collection import Collection, Item
from lamella.imaging.datasets.mask_channels import as_channels
from lamella.imaging.datasets.problems import refuse


@dataclass(frozen=True)
class LabelCounts:
    """Labelled pixels of N images by C classes.

    Attributes:
        pixels_NC: int64, in the pixels of the masks as they are stored.
        groups: Group (patient) of each image.
        shapes_px: Rows and columns of each mask as it is stored.
    """

    pixels_NC: np.ndarray
    groups: tuple[str, ...]
    shapes_px: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, items: Sequence[tuple[Collection, Item]], classes: int) -> LabelCounts:
        """Read every mask once.

        Raises:
            ImageError: A mask cannot be read.
            DatasetError: In some masks no pixel is labelled; all are named.
        """
        pixels, shapes = np.zeros((len(items), classes), np.int64), []
        for row, (collection, item) in zip(pixels, items, strict=True):
            if collection.read_mask is None:
                raise ImageError(item.item_id, "it has no mask", "Leave it out where masks are needed.")
            channels = as_channels(collection.read_mask(item), collection)
            row[:] = np.bincount(channels.ravel(), minlength=NOT_LABELLED + 1)[:classes]
            shapes.append(channels.shape)
        empty = [f"{item.mask}" for row, (_, item) in zip(pixels, items, strict=True) if not row.any()]
        refuse(
            items[0][0].name,
            [f"{name}: every pixel is ignored" for name in empty],
            "Leave these images out, or give a class map that names what they show.",
        )
        return cls(pixels, tuple(f"{collection.name}/{item.group}" for collection, item in items), tuple(shapes))

    @property
    def shares(self) -> np.ndarray:
        """(C,) share of each class in all labelled pixels."""
        total = self.pixels_NC.sum(0)
        return total / total.sum()

    def drawn_channel(self, weights_C: np.ndarray, rng: np.random.Generator) -> int:
        """A class that occurs, as often as its weight says."""
        weights = weights_C * (self.pixels_NC.sum(0) > 0)
        return int(rng.choice(len(weights), p=weights / weights.sum()))

    def drawn_image_of(self, channel: int, rng: np.random.Generator) -> int:
        """An image with a class: a group first, so that a patient with many images does not outweigh the others."""
        images_of_groups = self._images_of_groups[channel]
        images = images_of_groups[int(rng.integers(len(images_of_groups)))]
        return images[int(rng.integers(len(images)))]

    def drawn_image(self, rng: np.random.Generator) -> int:
        """An image, as often as it has labelled pixels."""
        return int(np.searchsorted(self._pixels_before, rng.integers(self._pixels_before[-1]), side="right"))

    @cached_property
    def _pixels_before(self) -> np.ndarray:
        return np.cumsum(self.pixels_NC.sum(1))

    @cached_property
    def _images_of_groups(self) -> list[list[list[int]]]:
        """Of each class, the images that have it, by group."""
        found = []
        for has_class in (self.pixels_NC > 0).T:
            groups: dict[str, list[int]] = defaultdict(list)
            for number in np.flatnonzero(has_class).tolist():
                groups[self.groups[number]].append(number)
            found.append(list(groups.values()))
        return found
