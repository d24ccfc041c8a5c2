"""How dark the image is at bins and spots: the control that has learned nothing.

Dense tissue is dark and has many transcripts, so darkness alone "predicts" most genes; every table shows how well.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from lamella.data.expression import ExpressionSlide
from lamella.formats.spatial_counts import Shape
from lamella.geometry import Box, Frame
from lamella.slides.slide import Slide, open_slide

# Pixels across a place: a disk of so many is round enough for a mean. More would only be read more slowly.
_PX_ACROSS = 8
_MOST_PX = 2**26  # of a map: a chip of 6.5 mm at 0.8 um
_BAND_PX = 2**22  # read at a time
# Intensities are counted from 1 to 256, so that black has a finite density.
_DENSITY = -np.log10((np.arange(256, dtype=np.float32) + 1) / 256)


@dataclass(frozen=True, eq=False)
class DensityMap:
    """Mean optical density of red, green and blue over a part of a slide.

    Attributes:
        density: (H, W) float32.
        origin_px0: x and y of its top left corner in level-0 pixels.
        step_px0: Level-0 pixels per pixel of the map, along x and y.
    """

    density: np.ndarray
    origin_px0: tuple[float, float]
    step_px0: tuple[float, float]

    def at(self, places_px0: np.ndarray) -> np.ndarray:
        """(N,) float32 bilinear values at x, y in level-0 pixels; NaN where the slide does not reach."""
        column = (places_px0[:, 0] - self.origin_px0[0]) / self.step_px0[0] - 0.5
        row = (places_px0[:, 1] - self.origin_px0[1]) / self.step_px0[1] - 0.5
        height, width = self.density.shape
        values = ndimage.map_coordinates(self.density, [row, column], order=1, mode="nearest", output=np.float32)
        # Half a pixel over the edge is still the edge's own pixel.
        outside = (row < -0.5) | (row > height - 0.5) | (column < -0.5) | (column > width - 0.5)
        values[outside] = np.nan
        return values

    def blurred(self, size_um: float, shape: Shape, frame: Frame) -> DensityMap:
        """Means over squares or disks of this size about each pixel, as exact as the map's own pixels."""
        high_px, wide_px = size_um / frame.mpp_y / self.step_px0[1], size_um / frame.mpp_x / self.step_px0[0]
        kernel = _footprint(high_px, wide_px, shape)
        if kernel.size == 1:
            return self
        mean = ndimage.convolve(self.density, kernel / kernel.sum(), mode="nearest")
        return DensityMap(mean.astype(np.float32), self.origin_px0, self.step_px0)


def darkness(slide: ExpressionSlide, places_px0: np.ndarray, size_um: float, shape: Shape) -> np.ndarray:
    """(N,) float32 mean optical density of the image over every bin or spot; 0 off the slide, where there is no stain.

    Of the mean colour of pixels that are an eighth of a place wide, or of the slide's own where those are wider.

    Args:
        slide: Whose image is read.
        places_px0: (N, 2) float centres in level-0 pixels.
        size_um: Side of a bin, or diameter of a spot.
        shape: Which.

    Raises:
        SlideError: The image cannot be read.
    """
    if not len(places_px0):
        return np.zeros(0, np.float32)
    made = density_map(slide, places_px0, size_um).blurred(size_um, shape, slide.frame)
    return np.nan_to_num(made.at(np.asarray(places_px0, np.float64)), nan=0.0)


def density_map(
    slide: ExpressionSlide, places_px0: np.ndarray, size_um: float, *, margin_um: float = 0.0
) -> DensityMap:
    """The map around some places: 8 pixels across a place, and no finer than the slide.

    Args:
        slide: Whose image is read.
        places_px0: (N, 2) float centres in level-0 pixels.
        size_um: Side or diameter of a place.
        margin_um: What to read beyond the places.
    """
    frame = slide.frame
    reach = (margin_um + size_um) / frame.mpp_x, (margin_um + size_um) / frame.mpp_y
    (x0, y0), (x1, y1) = np.min(places_px0, axis=0) - reach, np.max(places_px0, axis=0) + reach
    box = Box(float(x0), float(y0), float(x1), float(y1)).intersection(frame.bounds_px)
    area_um2 = box.area * frame.mpp_x * frame.mpp_y
    if not area_um2:  # no place is on the slide: the map is one pixel of it, far from all of them
        box, area_um2 = Box(0, 0, 1, 1), frame.mpp_x * frame.mpp_y
    mpp = max(frame.mpp, size_um / _PX_ACROSS, (area_um2 / _MOST_PX) ** 0.5)
    with open_slide(slide.wsi_path, mpp=slide.mpp_stated) as opened:
        density = _read(opened, box, mpp)
    height, width = density.shape
    return DensityMap(density, (box.x0, box.y0), (box.width / width, box.height / height))


def _read(slide: Slide, box_px0: Box, mpp: float) -> np.ndarray:
    """(H, W) float32 density of a box at a spacing, read in bands of whole rows."""
    width_um, height_um = slide.frame.box_um(box_px0).width, slide.frame.box_um(box_px0).height
    width, height = max(1, round(width_um / mpp)), max(1, round(height_um / mpp))
    rows = max(1, _BAND_PX // width)
    step_px0 = box_px0.height / height
    density = np.empty((height, width), np.float32)
    for top in range(0, height, rows):
        bottom = min(height, top + rows)
        band = Box(box_px0.x0, box_px0.y0 + top * step_px0, box_px0.x1, box_px0.y0 + bottom * step_px0)
        pixels = slide.read(band, width_um / width).pixels
        density[top:bottom] = _DENSITY[_fitted(pixels, bottom - top, width)].mean(axis=-1)
    return density


def _fitted(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Exactly (height, width): rounding may have read a row or column more or less."""
    rows = np.minimum(np.arange(height) * pixels.shape[0] // height, pixels.shape[0] - 1)
    columns = np.minimum(np.arange(width) * pixels.shape[1] // width, pixels.shape[1] - 1)
    return pixels if pixels.shape[:2] == (height, width) else pixels[rows[:, None], columns[None, :]]


def _footprint(height_px: float, width_px: float, shape: Shape) -> np.ndarray:
    """Weights of the pixels about a place: 1 inside the square or disk, and at its edge the part of 8 x 8 points."""
    half_y, half_x = int(np.ceil(height_px / 2 - 0.5)), int(np.ceil(width_px / 2 - 0.5))
    inner = (np.arange(8) + 0.5) / 8 - 0.5
    y = (np.arange(-max(0, half_y), max(0, half_y) + 1)[:, None] + inner[None, :]) / height_px
    x = (np.arange(-max(0, half_x), max(0, half_x) + 1)[:, None] + inner[None, :]) / width_px
    if shape == "bin":
        return np.outer((np.abs(y) <= 0.5).mean(axis=1), (np.abs(x) <= 0.5).mean(axis=1))
    inside = y[:, None, :, None] ** 2 + x[None, :, None, :] ** 2 <= 0.25
    return inside.mean(axis=(2, 3))
