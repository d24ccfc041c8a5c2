"""Where tissue is, and how much of each bin or spot lies on it. The image says so, never the counts.

Mistake of the source: a tissue mask made from labels calls every empty bin background, and then a model is never asked
for the zeros that it should predict.
"""

from __future__ import annotations

import functools
import math
from pathlib import Path

import numpy as np

from lamella.data.expression import ExpressionSlide
from lamella.errors import EmptyTissueError
from lamella.formats.spatial_counts import Shape
from lamella.geometry import BinGrid, Frame, mask_frame
from lamella.slides.masks import is_tissue, open_mask
from lamella.slides.slide import open_slide
from lamella.slides.tissue import TissueSettings, find_tissue
from lamella.slides.tissue_map import TissueMap

# A disk's share of tissue is a mean over so many even points: to about a hundredth, finer than any threshold is known.
_POINTS = 256
_KEPT_SLIDES = 16  # masks at 8 um: about a megabyte each
_AT_ONCE = 2**19  # places whose boxes are asked for together: 16 MB


def slide_tissue(slide: ExpressionSlide, settings: TissueSettings) -> TissueMap:
    """The tissue of a slide: its given mask, or found on the image. Kept by this process.

    Raises:
        SlideError: The image or mask cannot be read, or shows no tissue.
    """
    return _found(slide.wsi_path, slide.mpp_stated, slide.mask_path, slide.mask_mpp, settings.model_dump_json())


@functools.lru_cache(maxsize=_KEPT_SLIDES)
def _found(
    wsi_path: Path, mpp: tuple[float, float], mask_path: Path | None, mask_mpp: float | None, settings_json: str
) -> TissueMap:
    settings = TissueSettings.model_validate_json(settings_json)
    with open_slide(wsi_path, mpp=mpp) as slide:
        if mask_path is None:
            mask = find_tissue(slide, settings)
            return TissueMap(mask, slide.frame.resized(mask.shape[1], mask.shape[0]))
        file = open_mask(mask_path)
        height_px, width_px = file.values.shape
        stated = (mask_mpp, mask_mpp) if mask_mpp else file.mpp
        frame = mask_frame(
            slide.frame, width_px, height_px, mpp=stated, tolerance=settings.mask_tolerance, name=mask_path
        )
    mask = is_tissue(file.values, settings.mask_values)
    if not mask.any():
        raise EmptyTissueError(mask_path, "the mask shows no tissue", "Give another mask, or leave mask_path empty.")
    return TissueMap(mask, frame)


def place_fractions(
    tissue: TissueMap, frame: Frame, places_px0: np.ndarray, size_um: float, shape: Shape
) -> np.ndarray:
    """(N,) float32: the share of every place that is tissue.

    Bins are taken as upright squares: turned by the degree or so of real chips, a bin's corners move by a hundredth of
    its side. Of disks the share is that of 256 points spread evenly over them.

    Args:
        tissue: Of the slide.
        frame: Level 0 of the slide.
        places_px0: (N, 2) float centres in level-0 pixels.
        size_um: Side of a bin, or diameter of a spot.
        shape: Which.
    """
    centres_um = np.asarray(places_px0, np.float64) * (frame.mpp_x, frame.mpp_y)
    if shape == "spot":
        return _of_disks(tissue, centres_um, size_um)
    fractions = np.empty(len(centres_um), np.float32)
    for start in range(0, len(centres_um), _AT_ONCE):
        part = centres_um[start : start + _AT_ONCE]
        fractions[start : start + _AT_ONCE] = tissue.fractions(
            np.concatenate([part - size_um / 2, part + size_um / 2], axis=1)
        )
    return fractions


def lattice_fractions(tissue: TissueMap, frame: Frame, grid: BinGrid, box_rc: tuple[int, int, int, int]) -> np.ndarray:
    """(rows, cols) float32: the share of tissue of all bins of a stretch of a lattice, band by band.

    Args:
        tissue: Of the slide.
        frame: Level 0 of the slide.
        grid: The lattice.
        box_rc: First row and column, and those behind the last.
    """
    row0, col0, row1, col1 = box_rc
    columns = np.arange(col0, col1, dtype=np.float64)
    fractions = np.empty((row1 - row0, col1 - col0), np.float32)
    band = max(1, _AT_ONCE // max(1, len(columns)))
    for top in range(row0, row1, band):
        rows = np.arange(top, min(row1, top + band), dtype=np.float64)
        x_px0, y_px0 = grid.place_px0(rows[:, None], columns[None, :])
        places = np.stack([x_px0, y_px0], axis=-1).reshape(-1, 2)
        part = place_fractions(tissue, frame, places, grid.bin_um, "bin")
        fractions[top - row0 : top - row0 + len(rows)] = part.reshape(len(rows), len(columns))
    return fractions


def disk_points(count: int = _POINTS) -> np.ndarray:
    """(count, 2) float64 points spread evenly over a disk of diameter 1 about the origin: a sunflower's seeds.

    Radii are those of equal areas, angles turn by the golden angle (Vogel, "A better way to construct the sunflower
    head", 1979).
    """
    number = np.arange(count)
    radius, angle = 0.5 * np.sqrt((number + 0.5) / count), number * math.pi * (3 - math.sqrt(5))
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def _of_disks(tissue: TissueMap, centres_um: np.ndarray, diameter_um: float) -> np.ndarray:
    """The mean of the mask at the points of every disk; outside the mask is no tissue."""
    frame, (height, width) = tissue.frame, tissue.mask.shape
    hits = np.zeros(len(centres_um), np.float32)
    for x_um, y_um in disk_points() * diameter_um:
        column = np.floor((centres_um[:, 0] + x_um) / frame.mpp_x).astype(np.int64)
        row = np.floor((centres_um[:, 1] + y_um) / frame.mpp_y).astype(np.int64)
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        hits[inside] += tissue.mask[row[inside], column[inside]]
    return hits / _POINTS
