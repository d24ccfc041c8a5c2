"""Where the tissue is: found on a thumbnail of the slide, and asked for as area fractions of boxes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Literal

import numpy as np
from pydantic import Field
from scipy import ndimage
from skimage.filters import threshold_otsu
from skimage.morphology import disk

from lamella.config import Settings
from lamella.errors import EmptyTissueError
from lamella.geometry import Box, Frame, choose_level
from lamella.slides.slide import Slide

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]


class TissueSettings(Settings):
    """How tissue is found where no mask is given, and what a given mask means."""

    method: Literal["saturation", "optical_density"] = "saturation"
    """What tells tissue from glass: colour (H&E, IHC) or darkness (also grey stains)."""
    mpp: Positive = 8.0
    """Micrometres per pixel of a computed mask."""
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


@dataclass(frozen=True)
class _Stain:
    """Where Otsu's threshold may lie (of 255): on a slide that is all tissue, or all glass, it splits noise."""

    glass_below: int
    tissue_above: int


# Saturation: JPEG noise on glass stays below 10; pale eosin is at 20 and more.
# Optical density (255 = 1.0): tinted glass stays below 0.06; pale eosin is at 0.10 and more.
_STAINS = {"saturation": _Stain(10, 30), "optical_density": _Stain(15, 24)}
_LEAST_CONTRAST = 8  # two classes whose means differ by less (of 255) are one class and its noise
_BLACK = 45  # brighter than a scanner's black border, darker than any fold of tissue averaged to a thumbnail
# Pens: green and cyan have more green than red (haematoxylin alone comes to about 10), dark blue has little red at all
# (stained tissue keeps more red than green). Alcian blue and other blue-green stains need a mask of their own.
_INK_GREEN_OVER_RED = 25
_INK_BLUE_OVER_RED = 40
_INK_EDGE_PX = 2  # a pen's blurred edge
_SMALL_OF_SLIDE = 0.05  # on a cut-out of a slide a piece of this share is no crumb, whatever its area
_TIE = 1e-9  # half a pixel more or less must not hang on the rounding of a division
_READ_PX = 2**22  # source pixels read at a time: 12 MB, and about 100 MB while they are averaged


@dataclass(frozen=True, eq=False)
class TissueMap:
    """A tissue mask laid over its slide. Keep it: the first question builds an integral image (4 bytes a pixel)."""

    mask: np.ndarray
    """(H, W) bool."""
    frame: Frame

    def fraction(self, box_um: Box) -> float:
        """Exact share of tissue in one box."""
        return float(self.fractions(np.array([[box_um.x0, box_um.y0, box_um.x1, box_um.y1]]))[0])

    def fractions(self, boxes_um: np.ndarray) -> np.ndarray:
        """Exact share of tissue in each box; what lies outside the mask counts as no tissue.

        Args:
            boxes_um: (N, 4) x0, y0, x1, y1 in micrometres of the slide, none of them empty.

        Returns:
            (N,) float64 in 0..1.
        """
        boxes = np.asarray(boxes_um, np.float64)
        height, width = self.mask.shape
        (left, left_part), (right, right_part) = (_cells(boxes[:, i] / self.frame.mpp_x, width) for i in (0, 2))
        (top, top_part), (bottom, bottom_part) = (_cells(boxes[:, i] / self.frame.mpp_y, height) for i in (1, 3))
        sums = self._sums

        def along(row: np.ndarray) -> np.ndarray:
            """Tissue above an integral-image row, between the left and the right edge."""
            to_right = sums[row, right] * (1 - right_part) + sums[row, right + 1] * right_part
            return to_right - (sums[row, left] * (1 - left_part) + sums[row, left + 1] * left_part)

        tissue = along(bottom) * (1 - bottom_part) + along(bottom + 1) * bottom_part
        tissue -= along(top) * (1 - top_part) + along(top + 1) * top_part
        return self._share(tissue, boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])

    def grid_fractions(self, x0_um: np.ndarray, y0_um: np.ndarray, width_um: float, height_um: float) -> np.ndarray:
        """Exact share of tissue in boxes of one size, at every pair of an x0 and a y0.

        The same as `fractions` on all pairs, but each axis is interpolated once.

        Args:
            x0_um: (X,) left edges in micrometres.
            y0_um: (Y,) top edges in micrometres.
            width_um: Width of every box.
            height_um: Height of every box.

        Returns:
            (Y, X) float64 in 0..1.
        """
        height, width = self.mask.shape
        (left, left_part), (right, right_part) = (
            _cells((x0_um + shift) / self.frame.mpp_x, width) for shift in (0.0, width_um)
        )
        (top, top_part), (bottom, bottom_part) = (
            _cells((y0_um + shift) / self.frame.mpp_y, height) for shift in (0.0, height_um)
        )
        first = int(left.min())
        columns = self._sums[:, first : int(right.max()) + 2]
        bands = columns[bottom] * (1 - bottom_part)[:, None] + columns[bottom + 1] * bottom_part[:, None]
        bands -= columns[top] * (1 - top_part)[:, None] + columns[top + 1] * top_part[:, None]
        steps = np.diff(bands, axis=1)
        tissue = bands[:, right - first] + steps[:, right - first] * right_part
        tissue -= bands[:, left - first] + steps[:, left - first] * left_part
        return self._share(tissue, width_um, height_um)

    @cached_property
    def _sums(self) -> np.ndarray:
        """(H + 1, W + 1): number of tissue pixels above and left of each pixel corner.

        A mask is constant inside a pixel, so a bilinear look-up at a fractional corner is the exact area.
        """
        height, width = self.mask.shape
        sums = np.zeros((height + 1, width + 1), np.int32)  # masks hold at most 2**26 pixels
        np.cumsum(self.mask, axis=1, dtype=np.int32, out=sums[1:, 1:])
        for row in range(2, height + 1):  # row by row: numpy's sum down the columns takes five times as long
            sums[row] += sums[row - 1]
        return sums

    def _share(self, tissue_px2: np.ndarray, width_um: np.ndarray | float, height_um: np.ndarray | float) -> np.ndarray:
        area_px2 = (width_um / self.frame.mpp_x) * (height_um / self.frame.mpp_y)
        return np.clip(tissue_px2 / area_px2, 0.0, 1.0)  # the clip takes off rounding of about 1e-10


def _cells(position_px: np.ndarray, length_px: int) -> tuple[np.ndarray, np.ndarray]:
    """The pixel that each position falls into and how far; positions outside go to the nearer end."""
    inside = np.clip(position_px, 0.0, length_px)
    cell = np.minimum(inside.astype(np.int64), length_px - 1)
    return cell, inside - cell


def find_tissue(slide: Slide, settings: TissueSettings) -> np.ndarray:
    """Find tissue on a thumbnail: Otsu's threshold on the stain, gaps closed, crumbs dropped, small holes filled.

    Black borders and green or blue pen marks are left out. The thumbnail is read from the pyramid piece by piece, so
    memory does not grow with the slide beyond the mask itself.

    Returns:
        (H, W) bool covering the whole slide at about `settings.mpp`.

    Raises:
        EmptyTissueError: Nothing on the slide looks like tissue.
        SlideError: The slide's pixels cannot be decoded.
    """
    frame = thumbnail_frame(slide.frame, max(settings.mpp, slide.mpp))
    stain = np.zeros((frame.height_px, frame.width_px), np.uint8)
    excluded = np.zeros(stain.shape, bool)
    for rows, columns, pixels in _pieces(slide, frame):
        stain[rows, columns], excluded[rows, columns] = _stain(pixels, settings.method)
    excluded = ndimage.binary_dilation(excluded, iterations=_INK_EDGE_PX)
    stain = ndimage.median_filter(stain, size=3)
    tissue = (stain > _threshold(stain[~excluded], _STAINS[settings.method])) & ~excluded
    tissue = _cleaned(tissue, settings, frame)
    if not tissue.any():
        raise EmptyTissueError(
            slide.path,
            "no tissue was found",
            "Give a mask in the manifest column mask_path, or try tissue.method=optical_density.",
        )
    return tissue


def thumbnail_frame(slide: Frame, mpp: float) -> Frame:
    """The raster of about this spacing that covers a slide exactly."""
    width_um, height_um = slide.size_um
    width_px = max(1, round(width_um / mpp))
    # The rows follow the columns' exact spacing, so that any run of rows read at it has as many pixels; ties go down.
    return slide.resized(width_px, max(1, math.ceil(height_um * width_px / width_um - 0.5 - _TIE)))


def _pieces(slide: Slide, frame: Frame) -> Iterator[tuple[slice, slice, np.ndarray]]:
    """Read the whole slide into `frame`, at most about `_READ_PX` source pixels at a time."""
    level = slide.levels[choose_level([level.mpp for level in slide.levels], frame.mpp_x).level]
    side = max(1, int(_READ_PX**0.5 / max(1.0, frame.mpp_x / level.mpp)))
    for top in range(0, frame.height_px, side):
        bottom = min(frame.height_px, top + side)
        for left in range(0, frame.width_px, side):
            right = min(frame.width_px, left + side)
            box_px0 = frame.box_in(slide.frame, Box(left, top, right, bottom))
            yield slice(top, bottom), slice(left, right), slide.read(box_px0, frame.mpp_x * (1 + _TIE)).pixels


def _stain(pixels: np.ndarray, method: str) -> tuple[np.ndarray, np.ndarray]:
    """How stained each pixel is, 0..255, and which pixels are black border or pen."""
    brightest = pixels.max(axis=2)
    if method == "saturation":
        spread = (brightest - pixels.min(axis=2)).astype(np.float32)
        stain = spread * 255 / np.maximum(brightest, 1)
    else:
        density = -np.log10((pixels.astype(np.float32) + 1) / 256).mean(axis=2)  # + 1: black is dense, not infinite
        stain = density.clip(0, 1) * 255
    red, green, blue = (pixels[..., channel].astype(np.int16) for channel in range(3))
    ink = (green - red > _INK_GREEN_OVER_RED) | ((green >= red) & (blue - red > _INK_BLUE_OVER_RED))
    return stain.astype(np.uint8), (brightest < _BLACK) | ink


def _threshold(stain: np.ndarray, bounds: _Stain) -> float:
    """Otsu's threshold within its bounds; 255 where there is nothing but glass."""
    if stain.size == 0:
        return 255.0
    counts = np.bincount(stain, minlength=256)
    levels = np.arange(256)
    otsu = float(threshold_otsu(hist=(counts, levels))) if np.count_nonzero(counts) > 1 else 0.0
    below, above = levels <= otsu, levels > otsu
    if counts[below].any() and counts[above].any():
        contrast = np.average(levels[above], weights=counts[above]) - np.average(levels[below], weights=counts[below])
        if contrast >= _LEAST_CONTRAST:
            return min(max(otsu, bounds.glass_below), bounds.tissue_above)
    # One class only: stained as a whole, or glass as a whole.
    return bounds.tissue_above


def _cleaned(tissue: np.ndarray, settings: TissueSettings, frame: Frame) -> np.ndarray:
    pixel_um2 = frame.mpp_x * frame.mpp_y
    radius_px = round(settings.closing_um / 2 / frame.mpp)
    if radius_px:
        padded = np.pad(tissue, radius_px, mode="edge")  # or the slide's edge would be eaten away
        tissue = ndimage.binary_closing(padded, disk(radius_px))[radius_px:-radius_px, radius_px:-radius_px]
    most_px = _SMALL_OF_SLIDE * tissue.size
    tissue = _without_small(tissue, min(most_px, settings.min_object_um2 / pixel_um2))
    return ~_without_small(~tissue, min(most_px, settings.max_hole_um2 / pixel_um2))


def _without_small(mask: np.ndarray, min_px: float) -> np.ndarray:
    """The connected pieces of at least `min_px` pixels."""
    labels, _ = ndimage.label(mask)
    kept = np.bincount(labels.ravel()) >= min_px
    kept[0] = False
    return kept[labels]
