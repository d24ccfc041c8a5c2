"""Generated slides for every test. Real data is read by tests/real only."""

from __future__ import annotations

import os

# Two cores, two test processes: more threads than that cost tenfold. Set before numpy and torch are imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

SlideMaker = Callable[..., Path]


def textured(height: int, width: int, seed: int = 0) -> np.ndarray:
    """(H, W, 3) uint8: purple tissue with a smooth texture in the middle, white glass around it."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(90, 200, (max(2, height // 32), max(2, width // 32), 3), dtype=np.uint8)
    pixels = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)).copy()
    pixels[..., 1] = pixels[..., 1] // 2
    y, x = np.mgrid[:height, :width]
    glass = ((x / width - 0.5) ** 2 + (y / height - 0.5) ** 2) > 0.17
    pixels[glass] = 243
    return pixels


def write_pyramid(
    path: Path,
    pixels: np.ndarray,
    *,
    mpp: float | None = 0.5,
    levels: int = 3,
    tile_px: int = 256,
    compression: str | None = None,
) -> Path:
    """A tiled TIFF pyramid of `pixels` (H, W, 3), each level half of the one before; no spacing if mpp is None."""
    with tifffile.TiffWriter(path) as writer:
        for level in range(levels):
            factor = 2**level
            size = (max(1, pixels.shape[1] // factor), max(1, pixels.shape[0] // factor))
            image = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX)) if level else pixels
            spacing = (
                {}
                if mpp is None
                else {
                    "resolution": (1e4 / (mpp * factor), 1e4 / (mpp * factor)),
                    "resolutionunit": "CENTIMETER",
                }
            )
            writer.write(
                image,
                tile=(tile_px, tile_px),
                photometric="rgb",
                compression=compression,
                subfiletype=1 if level else 0,
                metadata=None,
                **spacing,
            )
    return path


@pytest.fixture
def make_slide(tmp_path: Path) -> SlideMaker:
    """make_slide(name="a.tif", height=1024, width=1536, mpp=0.5, levels=3, seed=0, folder=None) -> path."""

    def make(
        name: str = "slide.tif",
        height: int = 1024,
        width: int = 1536,
        *,
        seed: int = 0,
        folder: Path | None = None,
        **options: object,
    ) -> Path:
        return write_pyramid((folder or tmp_path) / name, textured(height, width, seed), **options)

    return make
