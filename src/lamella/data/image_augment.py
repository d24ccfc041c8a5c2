"""Changes of appearance for views of medical images: as far as another device or operator would change them.

Natural-image recipes shift hue by a tenth of the circle and drop the colour of every fifth view. Colour is evidence in
skin, fundus and stained tissue, and grey level in radiographs, so the defaults here are a few times weaker.

Pixels are uint8 (H, W, 3) throughout; every draw comes from the generator that is given.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from PIL import Image, ImageFilter
from pydantic import Field

from lamella.config import Settings
from lamella.data.augment import StainChange, StainSettings

Share = Annotated[float, Field(ge=0, lt=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
BlurWidth = Annotated[float, Field(gt=0)]

# Luma and two axes of colour (ITU-R BT.601's YIQ): a turn about the luma axis changes hue, a scale saturation.
_YIQ_FROM_RGB = np.array([[0.299, 0.587, 0.114], [0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]])
_RGB_FROM_YIQ = np.linalg.inv(_YIQ_FROM_RGB)


class NoColour(Settings):
    """Appearance is left as it is."""

    name: Literal["none"] = "none"


class PhotometricColour(Settings):
    """Exposure, contrast, colour and focus of another device. Amounts are drawn evenly from plus or minus the value."""

    name: Literal["photometric"] = "photometric"
    brightness: Share = 0.2
    """Relative change of all values."""
    contrast: Share = 0.2
    """Relative change of the distance to the view's mean grey."""
    gamma: Share = 0.2
    """Relative change of the exponent of the contrast curve."""
    saturation: Share = 0.1
    """Relative change of the distance to grey of the same luma."""
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.02
    """Turn of the colour circle, as a share of it."""
    grey: Probability = 0.0
    """Share of the views that lose their colour."""
    blur: Probability = 0.3
    """Share of the views that are blurred."""
    blur_px: tuple[BlurWidth, BlurWidth] = (0.1, 1.5)
    """Least and greatest standard deviation of the blur, in pixels of the view."""


class StainColour(Settings):
    """Stain and scanner, for histology; see `lamella.data.augment`, whose defaults these are."""

    name: Literal["stain"] = "stain"
    scale: Share = 0.2
    """Relative change of each stain's amount."""
    shift: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Optical density added to each stain."""
    gamma: Share = 0.1
    """Relative change of the scanner's contrast curve."""
    brightness: Share = 0.05
    """Relative change of the scanner's lamp."""


ColourSettings = Annotated[NoColour | PhotometricColour | StainColour, Field(discriminator="name")]


def recoloured(pixels: np.ndarray, settings: ColourSettings, rng: np.random.Generator) -> np.ndarray:
    """The view as another device would show it.

    Args:
        pixels: (H, W, 3) uint8.
        settings: What is changed, and how far.
        rng: Of this view.

    Returns:
        The same shape, uint8; the array itself where nothing is changed.
    """
    if isinstance(settings, StainColour):
        amounts = settings.model_dump(exclude={"name"})
        return StainChange.drawn(StainSettings(**amounts), rng).apply(np.ascontiguousarray(pixels))
    if isinstance(settings, PhotometricColour):
        return _photometric(pixels, settings, rng)
    return pixels


def _photometric(pixels: np.ndarray, settings: PhotometricColour, rng: np.random.Generator) -> np.ndarray:
    # All is drawn in one order, used or not: one setting does not change what another draws.
    brightness, contrast, gamma, saturation = 1 + rng.uniform(-1, 1, 4) * (
        settings.brightness,
        settings.contrast,
        settings.gamma,
        settings.saturation,
    )
    hue = rng.uniform(-settings.hue, settings.hue)
    is_grey, is_blurred = rng.random(2) < (settings.grey, settings.blur)
    blur_px = rng.uniform(*settings.blur_px)
    image = Image.fromarray(np.ascontiguousarray(pixels))
    if is_grey or saturation != 1 or hue != 0:
        image = image.convert("RGB", _colour_matrix(0.0 if is_grey else saturation, hue))
    mean_grey = float(np.asarray(image.convert("L").reduce(_step(image)), np.float64).mean())
    toned = _tone_table(mean_grey, brightness, contrast, gamma).take(np.asarray(image))
    return np.asarray(Image.fromarray(toned).filter(ImageFilter.GaussianBlur(blur_px))) if is_blurred else toned


def _step(image: Image.Image) -> int:
    """A mean over blocks first: the mean grey from a sixteenth of the values."""
    return min(4, *image.size)


def _colour_matrix(saturation: float, hue: float) -> tuple[float, ...]:
    """Pillow's 3 x 4 colour matrix; luma is kept."""
    cos, sin = saturation * np.cos(2 * np.pi * hue), saturation * np.sin(2 * np.pi * hue)
    turn = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
    matrix = _RGB_FROM_YIQ @ turn @ _YIQ_FROM_RGB
    return tuple(float(value) for value in np.hstack([matrix, np.zeros((3, 1))]).ravel())


def _tone_table(mean_grey: float, brightness: float, contrast: float, gamma: float) -> np.ndarray:
    """(256,) uint8: contrast about the mean grey, then the curve, then brightness."""
    values = (mean_grey + contrast * (np.arange(256) - mean_grey)).clip(0, 255) / 255
    return np.rint(255 * brightness * values**gamma).clip(0, 255).astype(np.uint8)
