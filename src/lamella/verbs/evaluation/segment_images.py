"""Images with masks as segmenters are judged on them: everything on the image's own grid.

A model is shown the image at its own mpp; its probabilities are brought back to the image's grid and the class is
taken there. So models of different mpp are judged on the very same pixels, and no mask is ever resampled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from lamella.dense.blending import BlendSettings
from lamella.dense.images import predict_image
from lamella.errors import ImageError
from lamella.formats.atomic import whole_file
from lamella.imaging.datasets.collection import Collection, Item
from lamella.imaging.datasets.mask_channels import as_channels, channels_of
from lamella.imaging.intensity import IntensitySettings, to_bytes_rgb
from lamella.imaging.measured import MedicalImage
from lamella.imaging.spacing import resize_image
from lamella.models.dense_contract import DenseModel

_UM_PER_MM = 1000.0


@dataclass(frozen=True)
class JudgedImage:
    """One image and its truth.

    Attributes:
        pixels_YXC: uint8 (Y, X, 3).
        channels_YX: uint8 true channels, or NOT_LABELLED.
        spacing_um: Height and width of a pixel; None where nobody states them.
    """

    pixels_YXC: np.ndarray
    channels_YX: np.ndarray
    spacing_um: tuple[float, float] | None


def judged_image(collection: Collection, item: Item, intensity: IntensitySettings) -> JudgedImage:
    """Read an image and its mask.

    Raises:
        ImageError: One of them cannot be read, or they differ in size.
    """
    measured = collection.read(item)
    assert isinstance(measured, MedicalImage)
    assert collection.read_mask is not None
    channels = as_channels(collection.read_mask(item), collection)
    pixels = to_bytes_rgb(measured, intensity)
    if channels.shape != pixels.shape[:2]:
        raise ImageError(
            item.mask or item.item_id,
            f"it is {channels.shape[0]} x {channels.shape[1]} px, its image {pixels.shape[0]} x {pixels.shape[1]}",
            "Give the mask of this very image.",
        )
    spacing = measured.spacing_mm
    um = None if spacing is None else (spacing[0] * _UM_PER_MM, spacing[1] * _UM_PER_MM)
    return JudgedImage(pixels, channels, um)


def predicted_channels(
    models: Sequence[DenseModel],
    image: JudgedImage,
    collection: Collection,
    item: Item,
    blend: BlendSettings,
    batch_size: int,
) -> np.ndarray:
    """(Y, X) uint8 channels on the image's own grid; the probabilities of several models are averaged.

    Raises:
        ImageError: The model has an mpp and the image states none.
    """
    height, width = image.channels_YX.shape
    total: np.ndarray | None = None
    for model in models:
        pixels = at_model_mpp(model, image, item)
        maps_CYX = predict_image(model, pixels, blend, batch_size=batch_size)
        maps_CYX = on_grid(maps_CYX, model.contract.stride, pixels.shape[:2], (height, width))
        order = [model.contract.channels.index(name) for name in channels_of(collection)]
        total = maps_CYX[order] if total is None else total + maps_CYX[order]
    assert total is not None
    return total.argmax(0).astype(np.uint8)


def at_model_mpp(model: DenseModel, image: JudgedImage, item: Item) -> np.ndarray:
    """The image as the model is shown it; a model without an mpp takes pixels of any size.

    Raises:
        ImageError: Nobody states the image's spacing.
    """
    mpp = model.contract.mpp
    if mpp is None:
        return image.pixels_YXC
    if image.spacing_um is None:
        raise ImageError(
            item.item_id,
            f"it states no spacing, and {model.name} takes images of {mpp:g} um/px",
            "State it with dataset.mpp=0.5 (or a CSV column mpp).",
        )
    height, width = (
        max(1, round(side * um / mpp)) for side, um in zip(image.channels_YX.shape, image.spacing_um, strict=True)
    )
    return resize_image(image.pixels_YXC, height, width)


def write_channels(channels: np.ndarray, path: Path) -> None:
    """A label image as PNG: value = channel."""
    with whole_file(path) as part:
        Image.fromarray(channels).save(part, format="PNG")


def read_channels(path: Path, shape: tuple[int, ...] | None = None) -> np.ndarray | None:
    """What `write_channels` wrote; None where there is none, or none of this shape."""
    if not path.is_file():
        return None
    with Image.open(path) as picture:
        channels = np.asarray(picture)
    return channels if shape in (None, channels.shape) and channels.dtype == np.uint8 else None


def on_grid(maps_CYX: np.ndarray, stride: int, shown: tuple[int, ...], wanted: tuple[int, int]) -> np.ndarray:
    """Maps brought to the image's own grid; where the stride does not divide, they reach over the shown image."""
    if stride > 1:
        height, width = maps_CYX.shape[1] * stride, maps_CYX.shape[2] * stride
        maps_CYX = np.stack([resize_image(each, height, width) for each in maps_CYX])[:, : shown[0], : shown[1]]
    if maps_CYX.shape[1:] == wanted:
        return maps_CYX
    return np.stack([resize_image(each, *wanted) for each in maps_CYX])
