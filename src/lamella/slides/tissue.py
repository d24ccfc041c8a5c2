"""Where the tissue is: found on a thumbnail of the slide."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field
from scipy import ndimage
from skimage.morphology import disk

from lamella.config import Settings
from lamella.errors import EmptyTissueError
from lamella.geometry import Frame
from lamella.slides.connected import touching, without_small
from lamella.slides.glass import Glass, balanced, estimate_glass, evened
from lamella.slides.pen import find_pen
from lamella.slides.slide import Slide
from lamella.slides.thumbnail import read_thumbnail, thumbnail_frame

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]


class TissueSettings(Settings):
    """How tissue is found where no mask is given, and what a given mask means."""

    method: Literal["saturation", "optical_density"] = "saturation"
    """What tells tissue from glass: colour (H&E, IHC) or darkness (also grey stains)."""
    mpp: Positive = 8.0
    """Micrometres per pixel of a computed mask, and of one made from given polygons."""
    closing_um: NotNegative = 24.0
    """Gaps up to about this wide between pieces of tissue are closed."""
    min_object_um2: NotNegative = 20_000.0
    """Smaller pieces of tissue are dropped (20,000 um2 is a square of 141 um), but none of 5 % of the image or more."""
    max_hole_um2: NotNegative = 20_000.0
    """Smaller holes in tissue are filled, but none of 5 % of the image or more."""
    mask_values: tuple[int, ...] = ()
    """Which values of a given mask are tissue; empty means every value but 0."""
    mask_tolerance: Annotated[float, Field(ge=0, lt=0.5)] = 0.05
    """Largest relative disagreement between a given mask's shape or spacing and the slide's."""


# Stain is counted 0..255 above glass: saturation, or optical density up to 1.0. On glass it is noise: what exceeds its
# median by five standard deviations is stain, but never less than 7 (a JPEG's own error) nor more than 20 (pale eosin).
_NOISE_DEVIATIONS = 5
_LEAST_LIMIT, _MOST_LIMIT = 7.0, 20.0
_LIMIT_WITHOUT_GLASS = 15.0  # all of it is tissue, then, and noise has not been seen
_SURE = 1.8  # times the limit: faint stain counts where it touches stain as strong as this
_NEARLY_GLASS = 0.92  # of the glass in every channel
# At the rim of stained tissue a pixel is part glass: it counts if it has at least two fifths of the stain beside it.
_STAINED = 30
_RIM_SHARE = 0.4
_RIM_PX = 5
_DIMMEST = 128  # below half light, saturation is damped: in black dirt it would be the sensor's noise
_GREY = np.float32(0.03)  # of the missing light: so much colour a grey smudge or grey ink has by noise alone
_LEAST_GLASS = 0.005  # of the picture, for its noise to be known
_SMALL_OF_SLIDE = 0.05  # on a cut-out of a slide a piece of this share is no crumb, whatever its area
_BAND_PX = 2**20  # pixels whose stain is computed at a time


def find_tissue(slide: Slide, settings: TissueSettings) -> np.ndarray:
    """Find tissue on a thumbnail: what differs from the slide's own glass; gaps closed, crumbs dropped, holes filled.

    Left out are black borders and ground, pen marks (not violet or pink ones; see pen.py) and, with
    `method="saturation"`, everything grey: dust, bubbles, edges of coverslips. Tinted glass counts as glass, even where
    its tint changes across the slide.

    The thumbnail is read from the pyramid piece by piece: memory is about 20 bytes for each pixel of the mask (40 where
    there are marks all over the slide) and 100 MB, whatever the slide.

    Returns:
        (H, W) bool covering the whole slide at about `settings.mpp`.

    Raises:
        EmptyTissueError: Nothing on the slide looks like tissue.
        SlideError: The slide's pixels cannot be decoded.
    """
    frame = thumbnail_frame(slide.frame, max(settings.mpp, slide.mpp))
    picture = read_thumbnail(slide, frame)
    glass = estimate_glass(picture)
    picture = evened(picture, glass)
    pen = find_pen(picture, glass, frame)
    stained = _stained(picture, glass, pen, settings.method)
    tissue = _cleaned(stained, settings, frame) & ~pen  # closing and filling must not bring marks back
    if not tissue.any():
        raise EmptyTissueError(
            slide.path,
            "no tissue was found",
            "Give a mask in the manifest column mask_path, or try tissue.method=optical_density.",
        )
    return tissue


def _stained(picture: np.ndarray, glass: Glass, pen: np.ndarray, method: str) -> np.ndarray:
    """(H, W) bool: pixels with more stain than the noise of glass, connected to some that surely are stained."""
    height, width = pen.shape
    stain, on_glass = np.empty(pen.shape, np.uint8), np.empty(pen.shape, bool)
    rows = max(1, _BAND_PX // width)
    for top in range(0, height, rows):
        band = picture[top : top + rows]
        stain[top : top + rows] = _stain(balanced(band, glass), method)
        on_glass[top : top + rows] = (band >= np.multiply(glass.colour, _NEARLY_GLASS)).all(axis=2)
    stain = ndimage.uniform_filter(stain, 3)
    limit = _noise_limit(stain[on_glass & ~pen], stain.size)
    rim = (stain <= _STAINED) & (stain < _RIM_SHARE * ndimage.maximum_filter(stain, _RIM_PX))
    return touching((stain > limit) & ~rim & ~pen, (stain > _SURE * limit) & ~pen)


def _stain(pixels: np.ndarray, method: str) -> np.ndarray:
    """(H, W) uint8: how stained each pixel of a balanced picture is."""
    if method == "saturation":
        brightest = np.maximum(np.maximum(pixels[..., 0], pixels[..., 1]), pixels[..., 2])
        darkest = np.minimum(np.minimum(pixels[..., 0], pixels[..., 1]), pixels[..., 2])
        spread = brightest - darkest - _GREY * (255 - darkest)
        return (spread.clip(0) * np.float32(255) / np.maximum(brightest, _DIMMEST)).astype(np.uint8)
    density = -np.log10((np.arange(256, dtype=np.float32) + 1) / 256) / 3  # + 1: black is dense, not infinite
    return (density[pixels].sum(axis=2).clip(0, 1) * 255).astype(np.uint8)


def _noise_limit(glass_stain: np.ndarray, size_px: int) -> float:
    """The stain that no more than the odd pixel of glass has."""
    if glass_stain.size < _LEAST_GLASS * size_px:
        return _LIMIT_WITHOUT_GLASS
    median = float(np.median(glass_stain))
    deviation = 1.4826 * float(np.median(np.abs(glass_stain - median)))  # of a normal distribution
    return min(max(median + _NOISE_DEVIATIONS * deviation, _LEAST_LIMIT), _MOST_LIMIT)


def _cleaned(tissue: np.ndarray, settings: TissueSettings, frame: Frame) -> np.ndarray:
    pixel_um2 = frame.mpp_x * frame.mpp_y
    radius_px = round(settings.closing_um / 2 / frame.mpp)
    if radius_px:
        padded = np.pad(tissue, radius_px, mode="edge")  # or the slide's edge would be eaten away
        tissue = ndimage.binary_closing(padded, disk(radius_px))[radius_px:-radius_px, radius_px:-radius_px]
    most_px = _SMALL_OF_SLIDE * tissue.size
    tissue = without_small(tissue, min(most_px, settings.min_object_um2 / pixel_um2))
    return ~without_small(~tissue, min(most_px, settings.max_hole_um2 / pixel_um2))
