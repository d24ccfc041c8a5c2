"""The training images of one or several collections: which take part, in which order, and their pixels.

An image is read, made RGB bytes by the intensity rule, brought to one spacing where one is asked for, reduced to a
largest side, and kept in memory up to a limit. Views and masks are made from it elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from lamella.data.kept import Kept
from lamella.data.order import Order
from lamella.data.training_items import Count, DrawSettings, TrainingItems
from lamella.errors import ImageError
from lamella.imaging.datasets.collection import Collection, Item
from lamella.imaging.intensity import to_bytes_rgb
from lamella.imaging.measured import MedicalImage
from lamella.imaging.spacing import resize_image

_COLOUR_IMAGES = 256  # mean and deviation of the channels change in the third digit beyond that many images
_MM_PER_UM = 1e-3

Spacing = Annotated[float, Field(gt=0)]


class ImageDataSettings(DrawSettings):
    """Which images are learned from, and how they are prepared."""

    size_px: Count = 224
    """Side of the (global) view in pixels."""
    mpp: Spacing | None = None
    """Bring all images to this many micrometres per pixel; null takes them as they are, and positions count pixels."""
    source_mpp: Spacing | None = None
    """Micrometres per pixel of images whose files state none."""
    max_side_px: Count | None = 1024
    """Reduce larger images to this longest side after reading, so that crops cost little; not where mpp is set."""
    batch_size: Count = 64
    """Images of one optimiser step, over all ranks together."""


class TrainingImages:
    """Prepared images by number.

    Args:
        collections: All of kind `image`.
        settings: What takes part and how it is prepared.
        seed: Of the order.

    Raises:
        DatasetError: A collection holds no images, or none is left for training.
    """

    def __init__(self, collections: Sequence[Collection], settings: ImageDataSettings, seed: int) -> None:
        self.settings, self.seed = settings, seed
        self._collections = tuple(collections)
        self._drawn = TrainingItems(collections, ("image",), settings, seed)
        self._kept: Kept[np.ndarray] = Kept(settings.cache_mb)

    def __len__(self) -> int:
        return len(self._drawn)

    @property
    def order(self) -> Order:
        """Which image comes at which position."""
        return self._drawn.order

    @property
    def samples_per_epoch(self) -> int:
        return self._drawn.samples_per_epoch

    @property
    def items(self) -> list[tuple[Collection, Item]]:
        """What is learned from."""
        return [(self._collections[number], item) for number, item in self._drawn.items]

    def positions(self, step: int, rank: int = 0, world_size: int = 1) -> range:
        """Positions of a rank's share of a step."""
        return self._drawn.positions(step, rank, world_size)

    def at(self, position: int) -> np.ndarray:
        """The image at a position of training."""
        return self.image(self.order.at(position)[1])

    def image(self, number: int) -> np.ndarray:
        """(Y, X, 3) uint8 of image `number`.

        Raises:
            ImageError: It cannot be read, or lacks the spacing that data.mpp needs. Nothing is put in its place.
        """
        return self._kept.get(number, lambda: self._prepared(number))

    def _prepared(self, number: int) -> np.ndarray:
        owner, item = self._drawn.items[number]
        measured = self._collections[owner].read(item)
        if not isinstance(measured, MedicalImage):
            raise ImageError(item.item_id, "it is no 2-D image", "Set data.dataset.kind=image, or leave it out.")
        pixels = prepared(measured, self.settings)
        pixels.setflags(write=False)
        return pixels

    def colour(self) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
        """Mean and standard deviation of red, green and blue, 0 to 1, over the first images of the order."""
        sums, squares, count = np.zeros(3), np.zeros(3), 0
        for position in range(min(_COLOUR_IMAGES, len(self))):
            values = self.at(position).reshape(-1, 3) / 255
            sums, squares, count = sums + values.sum(0), squares + np.square(values).sum(0), count + len(values)
        mean = sums / count
        # A constant channel would divide by zero: one grey level is the least deviation that bytes can show.
        std = np.maximum(np.sqrt(np.maximum(squares / count - mean**2, 0)), 1 / 255)
        return _three(mean), _three(std)


def prepared(measured: MedicalImage, settings: ImageDataSettings) -> np.ndarray:
    """(Y, X, 3) uint8 at the spacing or size that the settings ask for.

    Raises:
        ImageError: data.mpp is set, and neither the file nor data.source_mpp states the image's spacing.
    """
    pixels = to_bytes_rgb(measured, settings.intensity)
    height, width = pixels.shape[:2]
    if settings.mpp is not None:
        row_mpp, column_mpp = _mpp(measured, settings)
        height, width = round(height * row_mpp / settings.mpp), round(width * column_mpp / settings.mpp)
    elif settings.max_side_px is not None and max(height, width) > settings.max_side_px:
        factor = settings.max_side_px / max(height, width)
        height, width = round(height * factor), round(width * factor)
    if (height, width) == pixels.shape[:2]:
        return pixels
    return resize_image(pixels, max(1, height), max(1, width))


def _mpp(measured: MedicalImage, settings: ImageDataSettings) -> tuple[float, float]:
    if measured.spacing_mm is not None:
        row_mm, column_mm = measured.spacing_mm
        return row_mm / _MM_PER_UM, column_mm / _MM_PER_UM
    if settings.source_mpp is None:
        raise ImageError(
            measured.source, "it states no spacing, and data.mpp asks for one", "State it with data.source_mpp=0.5."
        )
    return settings.source_mpp, settings.source_mpp


def _three(values: np.ndarray) -> tuple[float, float, float]:
    red, green, blue = (round(float(value), 4) for value in values)
    return red, green, blue
