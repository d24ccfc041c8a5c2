"""Predicted genes of a slide beside its image: those whose maps have most contrast.

Shapes: Y rows and X columns of a picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from lamella.formats.ome_zarr import StoredRaster
from lamella.geometry import choose_level
from lamella.slides.slide import Slide
from lamella.view.expression_pictures import coloured
from lamella.view.marks import draw_scale_bar
from lamella.view.panels import Cell, panel_px, sheet, write_sheet

_COLUMNS, _MOST_GENES = 4, 11  # three rows: the tissue and eleven genes
_RANGE = (0.01, 0.99)  # quantiles of a map: a few odd bins leave the rest its colours
_COLOURS, _LETTERS_PX = "viridis", 12  # colour-blind readers tell them apart


def draw_predicted_genes(
    slide: Slide, raster: StoredRaster, path: Path, *, heading: str, facts: Sequence[str] = ()
) -> tuple[str, ...]:
    """Write a page; the genes on it.

    Args:
        slide: Open.
        raster: Finished maps over it, one a gene.
        path: PNG to write, whole or not at all.
        heading: The slide's name, and whose prediction it is.
        facts: Sentences under it.

    Raises:
        SlideError: The slide cannot be read.
        StorageError: The disk refused the write.
    """
    side_px = panel_px(_COLUMNS)
    pixels = slide.thumbnail(side_px).pixels
    tissue = Image.fromarray(pixels)
    frame = slide.frame.resized(tissue.width, tissue.height)
    mpps = [raster.level_frame(level).mpp for level in range(len(raster.levels))]
    level = choose_level(mpps, frame.mpp).level
    shown = sorted(
        (_contrast(raster, level, gene), gene) for gene in range(len(raster.names))
    )[::-1][:_MOST_GENES]  # fmt: skip
    draw_scale_bar(tissue, frame.mpp_x, _LETTERS_PX)
    cells = [Cell(tissue, "tissue")]
    for _, gene in shown:
        values = _on(np.asarray(raster.levels[level][gene]), raster, level, tissue, frame.mpp_x, frame.mpp_y)
        low, high = _range(values)
        mean = float(np.nanmean(values)) if np.isfinite(values).any() else math.nan
        cells.append(Cell(coloured(values, low, high, _COLOURS), f"{raster.names[gene]}: mean {mean:.3g}"))
    rows = [cells[first : first + _COLUMNS] for first in range(0, len(cells), _COLUMNS)]
    few = f"{len(shown)} of {len(raster.names)} genes: those with most contrast. Each map has its own range of colours."
    write_sheet(sheet(heading, [*facts, few], rows), path)
    return tuple(raster.names[gene] for _, gene in shown)


def _contrast(raster: StoredRaster, level: int, gene: int) -> float:
    """Deviation over mean size of a map: no gene is preferred because it is high everywhere."""
    values = np.asarray(raster.levels[level][gene])
    values = values[np.isfinite(values)]
    return float(values.std() / max(float(np.abs(values).mean()), 1e-12)) if len(values) else 0.0


def _on(
    values: np.ndarray, raster: StoredRaster, level: int, picture: Image.Image, mpp_x: float, mpp_y: float
) -> np.ndarray:
    """(Y, X): the value at the middle of each pixel of a picture over the same slide."""
    frame = raster.level_frame(level)
    rows = ((np.arange(picture.height) + 0.5) * mpp_y / frame.mpp_y).astype(np.int64)
    columns = ((np.arange(picture.width) + 0.5) * mpp_x / frame.mpp_x).astype(np.int64)
    # The slide may reach a fraction of a pixel beyond the raster.
    return values[rows.clip(0, frame.height_px - 1)[:, None], columns.clip(0, frame.width_px - 1)]


def _range(values: np.ndarray) -> tuple[float, float]:
    seen = values[np.isfinite(values)]
    if not len(seen):
        return 0.0, 1.0
    low, high = (float(value) for value in np.quantile(seen, _RANGE))
    return (low, high) if high > low else (low, low + 1)
