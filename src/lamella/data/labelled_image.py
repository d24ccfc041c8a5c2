"""One labelled image at one spacing, and where in it each class lies."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lamella.errors import ImageError
from lamella.formats.label_values import NOT_LABELLED
from lamella.geometry import Box
from lamella.imaging.datasets.collection import Collection, Item
from lamella.imaging.datasets.mask_channels import as_channels
from lamella.imaging.intensity import IntensitySettings, to_bytes_rgb
from lamella.imaging.measured import MedicalImage
from lamella.imaging.spacing import resize_image
from lamella.slides.resample import resample_mask

_MM_PER_UM = 1e-3
# Below this relative difference a spacing counts as reached: half a pixel over 5,000.
_SAME = 1e-4


@dataclass(frozen=True)
class LabelledImage:
    """Pixels and classes on one grid, both read-only.

    Attributes:
        pixels_YXC: uint8 (Y, X, 3).
        channels_YX: uint8, indices into the classes, or NOT_LABELLED.
    """

    pixels_YXC: np.ndarray
    channels_YX: np.ndarray

    @property
    def nbytes(self) -> int:
        return self.pixels_YXC.nbytes + self.channels_YX.nbytes

    def drawn_pixel(self, channel: int | None, rng: np.random.Generator) -> tuple[int, int] | None:
        """(row, column) of a pixel of a class, each equally likely; None: of any class. None where there is none."""
        before = self._before(channel)
        if before[-1] == 0:
            return None
        number = int(rng.integers(before[-1]))
        row = int(np.searchsorted(before, number, side="right")) - 1
        columns = np.flatnonzero(_is(self.channels_YX[row], channel))
        return row, int(columns[number - before[row]])

    def _before(self, channel: int | None) -> np.ndarray:
        """(Y + 1,) how many pixels of a class lie above each row; kept, so that a draw looks at one row only."""
        if channel not in self._rows:
            counts = np.count_nonzero(_is(self.channels_YX, channel), axis=1)
            self._rows[channel] = np.concatenate([[0], np.cumsum(counts)])
        return self._rows[channel]

    @cached_property
    def _rows(self) -> dict[int | None, np.ndarray]:
        return {}


def _is(channels: np.ndarray, channel: int | None) -> np.ndarray:
    return channels != NOT_LABELLED if channel is None else channels == channel


def prepared(
    collection: Collection, item: Item, mpp: float | None, intensity: IntensitySettings | None = None
) -> LabelledImage:
    """An image and its mask at a spacing.

    Pixels are averaged where they shrink. Classes are those at the new pixels' centres: taking the majority of what a
    new pixel covers would eat thin classes (a vessel's wall) and leave the shares of the classes different from those
    on the slide.

    Args:
        collection: Of the item; its masks are read.
        item: With a mask.
        mpp: Micrometres per pixel wanted; None takes the image as it is.
        intensity: How measured values become bytes.

    Raises:
        ImageError: Image or mask cannot be read, they differ in size, or nothing states the image's spacing.
    """
    measured = collection.read(item)
    if not isinstance(measured, MedicalImage) or collection.read_mask is None:
        raise ImageError(item.item_id, "it is no 2-D image with a mask", "Give a data set of images with masks.")
    pixels = to_bytes_rgb(measured, intensity or IntensitySettings())
    channels = as_channels(collection.read_mask(item), collection)
    if channels.shape != pixels.shape[:2]:
        raise ImageError(
            item.mask,
            f"it has {channels.shape[0]} rows of {channels.shape[1]} pixels, its image {item.sources[0]} has "
            f"{pixels.shape[0]} of {pixels.shape[1]}",
            "Give the mask of this very image.",
        )
    height, width = _size(measured, mpp)
    if (height, width) != channels.shape:
        pixels = resize_image(pixels, height, width)
        channels = resample_mask(channels, Box(0, 0, *channels.shape[::-1]), width, height)
    for array in (pixels, channels):
        array.setflags(write=False)
    return LabelledImage(pixels, channels)


def _size(measured: MedicalImage, mpp: float | None) -> tuple[int, int]:
    """Rows and columns at the spacing."""
    height, width = measured.values.shape[:2]
    if mpp is None:
        return height, width
    if measured.spacing_mm is None:
        raise ImageError(
            measured.source,
            f"it states no spacing, and tiles of {mpp:g} um/px are asked for",
            "State it with dataset.mpp=0.5 (in training data.dataset.mpp=0.5) or a CSV column mpp; data.mpp=null works "
            "in pixels of any size.",
        )
    scale_y, scale_x = (spacing / _MM_PER_UM / mpp for spacing in measured.spacing_mm)
    if abs(scale_y - 1) < _SAME and abs(scale_x - 1) < _SAME:
        return height, width
    return max(1, round(height * scale_y)), max(1, round(width * scale_x))
