"""Weak studies of a few small generated images, each tile of one flat colour that tells which tile of which it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from lamella.data.bags import Bag, LabelsAre, Part, WeakStudy
from lamella.geometry import Frame

TILE = 32
CLASSES = ("red", "blue")


def colour_of(bag: int, row: int) -> tuple[int, int, int]:
    return 20 + 10 * bag, 30 + 12 * row, 90


def bag_of(
    folder: Path,
    number: int,
    labels: Sequence[int] | None,
    *,
    tiles: int = 4,
    group: str | None = None,
    part: Part | None = "train",
    tile_labels: np.ndarray | None = None,
    mask: np.ndarray | None = None,
) -> Bag:
    """A row of `tiles` tiles, and half a tile of white on every side."""
    half = TILE // 2
    pixels = np.full((2 * TILE, tiles * TILE + TILE, 3), 255, np.uint8)
    for row in range(tiles):
        pixels[half : half + TILE, half + row * TILE : half + (row + 1) * TILE] = colour_of(number, row)
    path = folder / f"s{number:02d}.png"
    Image.fromarray(pixels).save(path)
    mask_path = None
    if mask is not None:
        mask_path = folder / f"s{number:02d}_mask.png"
        Image.fromarray(mask).save(mask_path)
    corners = np.stack([half + TILE * np.arange(tiles), np.full(tiles, half)], axis=1).astype(np.float64)
    return Bag(
        path.stem,
        path,
        Frame(pixels.shape[1], pixels.shape[0], 0.5, 0.5),
        corners,
        None if labels is None else tuple(labels),
        tile_labels,
        group or path.stem,
        part,
        mask_path,
    )


def study_of(
    bags: Sequence[Bag], *, labels_are: LabelsAre = "slide", background: str | None = "background"
) -> WeakStudy:
    values = {"red": (1,), "blue": (2,), "background": (0,)}
    return WeakStudy(CLASSES, background, tuple(bags), 0.5, TILE, values, "patient", (), labels_are)
