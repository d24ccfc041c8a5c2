"""Rasters whose value at every place is known beforehand, and slides that they lie over."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lamella.formats.ome_zarr import LabelStore, ProbabilityStore, ValueStore
from lamella.geometry import Box, Frame
from lamella.view.server.pyramid import Pyramid

SLIDE = Frame(3000, 2000, 0.5, 0.4)
"""Anisotropic: 1500 x 800 um."""
MPP = 2.0
"""Of the rasters: 750 x 400 pixels over the slide; they are made larger, so that they reach over its edge."""
HEIGHT, WIDTH = 410, 770
BLOCK = 32
"""Labels come in blocks of so many pixels a side, so that the first halvings keep them."""


def label_at(x_um, y_um):
    """0, 1 or 2 in blocks; 255 in every seventh column of blocks."""
    column, row = (np.floor(np.asarray(place) / (BLOCK * MPP)).astype(int) for place in (x_um, y_um))
    return np.where(column % 7 == 6, 255, (column + row) % 3)


def centres_um(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    return (np.arange(width) + 0.5) * MPP, (np.arange(height)[:, None] + 0.5) * MPP


def write_labels(folder: Path) -> Path:
    store = LabelStore(folder, ["background", "tumour", "stroma"], HEIGHT, WIDTH, MPP, chunk_px=128)
    store.write(0, label_at(*centres_um(HEIGHT, WIDTH)).astype(np.uint8))
    store.finish()
    return folder


def write_probabilities(folder: Path) -> Path:
    """The probability of `tumour` is x / 1540 um; nobody looked right of 1200 um."""
    x, _ = centres_um(HEIGHT, WIDTH)
    tumour = np.broadcast_to(x / (WIDTH * MPP) * 255, (HEIGHT, WIDTH)).astype(np.uint8)
    values = np.stack([255 - tumour, tumour])
    values[:, :, int(1200 / MPP) :] = 0
    store = ProbabilityStore(folder, ["background", "tumour"], HEIGHT, WIDTH, MPP, chunk_px=128)
    store.write(0, values)
    store.finish()
    return folder


def write_values(folder: Path, names: tuple[str, ...] = ("AAA", "BBB")) -> Path:
    """The first is x in um, the second y - 400 um; the others 0. NaN above 100 um."""
    x, y = centres_um(HEIGHT, WIDTH)
    values = np.zeros((len(names), HEIGHT, WIDTH), np.float32)
    values[0], values[1] = x, y - 400
    values[:, : int(100 / MPP)] = np.nan
    store = ValueStore(folder, names, HEIGHT, WIDTH, MPP, chunk_px=128, dtype="float32")
    store.write(0, values)
    store.finish()
    return folder


def tiles(slide: Frame = SLIDE, downs: tuple[int, ...] = (1, 4, 16)):
    """Tiles at the corners and in the middle of some levels: (box, width, height, x, y of its pixels' centres)."""
    pyramid = Pyramid.over(slide)
    for level in range(pyramid.max_level + 1):
        if pyramid.downsample(level) not in downs:
            continue
        columns, rows = pyramid.tiles(level)
        for row in sorted({0, rows // 2, rows - 1}):
            for column in sorted({0, columns // 2, columns - 1}):
                box, width, height = pyramid.tile(level, column, row)
                yield box, width, height, *places_um(box, width, height, slide)


def places_um(box: Box, width: int, height: int, slide: Frame = SLIDE) -> tuple[np.ndarray, np.ndarray]:
    x = (box.x0 + (np.arange(width) + 0.5) * box.width / width) * slide.mpp_x
    y = (box.y0 + (np.arange(height)[:, None] + 0.5) * box.height / height) * slide.mpp_y
    return x, y
