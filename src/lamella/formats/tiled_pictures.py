"""Pictures of tiles at several scales, as studies of Visium HD prepare them: `multiscale/P1/scale_8um/patch_*.png`.

A scale is in micrometres per pixel, and all pictures of a tile have its centre in common, so that a coarser scale shows
more around it. What lies outside the slide is white and flagged in `pictures.json`: a picture at the border is padded,
never stretched. `pictures.json` is ours, and states what the names leave open: pixels, micrometres per pixel, and which
pictures reach over the border.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from lamella.errors import ImageError, first_line
from lamella.formats.atomic import whole_file, write_json
from lamella.formats.tiled_labels import TILE_BINS, Tile
from lamella.geometry import BinGrid

SCALES_UM = (2.0, 8.0, 32.0, 128.0)
PICTURE_PX = 256
PICTURES = "pictures.json"

_SCALE = re.compile(r"scale_(\d+(?:\.\d+)?)um")
_OUTSIDE = 255  # white, as glass is

Sampler = Callable[[np.ndarray, np.ndarray, float], tuple[np.ndarray, np.ndarray]]
"""x and y, (H, W), in level-0 pixels, and the micrometres between them -> (H, W, 3) uint8, and (H, W) bool: seen."""


class TilePicture(NamedTuple):
    """A picture as read.

    Attributes:
        pixels: (H, W, 3) uint8.
        um_per_px: Its scale.
        seen: Share of its pixels that lie on the slide; None where nobody says it.
    """

    pixels: np.ndarray
    um_per_px: float
    seen: float | None


def scale_folder(um_per_px: float) -> str:
    """Name of the folder of a scale."""
    return f"scale_{um_per_px:g}um"


def tile_centre(tile: Tile, tile_bins: int = TILE_BINS) -> tuple[float, float]:
    """Row and column of a tile's centre on the lattice of bins, from the middle of bin 0."""
    return (tile.row + 0.5) * tile_bins - 0.5, (tile.col + 0.5) * tile_bins - 0.5


def picture_places(
    grid: BinGrid, centre_rc: tuple[float, float], um_per_px: float, pixels: int
) -> tuple[np.ndarray, np.ndarray]:
    """(x, y), each (H, W), in level-0 pixels: the middles of a picture's pixels, along rows and columns of the lattice.

    Args:
        grid: The lattice of the bins; the picture is turned and mirrored as it is, so that it lies over the labels.
        centre_rc: Its middle, row and column on the lattice.
        um_per_px: Between two pixels.
        pixels: H and W.
    """
    steps = (np.arange(pixels) - (pixels - 1) / 2) * um_per_px / grid.bin_um
    x, y = grid.place_px0(centre_rc[0] + steps[:, None], centre_rc[1] + steps[None, :])
    return x, y


def write_tile_pictures(
    folder: Path | str,
    tiles: Sequence[Tile],
    grid: BinGrid,
    sample: Sampler,
    *,
    tile_bins: int = TILE_BINS,
    scales_um: Sequence[float] = SCALES_UM,
    pixels: int = PICTURE_PX,
) -> None:
    """Write pictures of tiles at every scale.

    Args:
        folder: Of one slide: `multiscale/P1`.
        tiles: Of the labels.
        grid: The lattice of their bins.
        sample: Reads the slide.
        tile_bins: Bins along the side of a tile.
        scales_um: Micrometres per pixel.
        pixels: Along the side of a picture.

    Raises:
        StorageError: The disk refused a write.
    """
    folder = Path(folder)
    facts: dict[str, Any] = {"pixels": pixels, "scales": {}}
    for um_per_px in scales_um:
        seen_share: dict[str, float] = {}
        for tile in tiles:
            x, y = picture_places(grid, tile_centre(tile, tile_bins), um_per_px, pixels)
            picture, seen = sample(x, y, um_per_px)
            # mistake: a picture clipped at the border and stretched to full size
            picture = np.where(seen[..., None], picture, np.uint8(_OUTSIDE))
            with whole_file(folder / scale_folder(um_per_px) / f"{tile.name}.png") as part:
                Image.fromarray(picture).save(part)
            if not seen.all():
                seen_share[tile.name] = round(float(seen.mean()), 4)
        facts["scales"][f"{um_per_px:g}"] = {"fov_um": um_per_px * pixels, "clipped": seen_share}
    write_json(folder / PICTURES, facts)


def picture_scales(folder: Path | str) -> dict[float, Path]:
    """Micrometres per pixel -> folder, finest first.

    Raises:
        ImageError: There is none.
    """
    folder = Path(folder)
    found = {
        float(match[1]): child
        for child in (folder.iterdir() if folder.is_dir() else ())
        if (match := _SCALE.fullmatch(child.name)) and child.is_dir()
    }
    if not found:
        raise ImageError(folder, "it has no folder such as scale_2um", "Give multiscale/<slide>.")
    return dict(sorted(found.items()))


def read_tile_picture(folder: Path | str, um_per_px: float, tile: Tile) -> TilePicture:
    """Read one picture.

    Args:
        folder: `multiscale/P1`.
        um_per_px: Its scale.
        tile: Of the labels.

    Raises:
        ImageError: It is missing, damaged or no colour picture.
    """
    folder = Path(folder)
    path = folder / scale_folder(um_per_px) / f"{tile.name}.png"
    try:
        with Image.open(path) as image:
            if image.mode != "RGB":
                raise ImageError(path, f"its pixels are {image.mode}, not RGB", "Save it as an RGB picture.")
            pixels = np.asarray(image)
    except FileNotFoundError as error:
        raise ImageError(path, "the file does not exist", "Copy the folder whole.") from error
    except (OSError, ValueError, SyntaxError) as error:
        raise ImageError(path, f"it cannot be read ({first_line(error)})", "Copy it anew.") from error
    return TilePicture(pixels, um_per_px, _seen(folder, um_per_px, tile))


def _seen(folder: Path, um_per_px: float, tile: Tile) -> float | None:
    path = folder / PICTURES
    if not path.is_file():
        return None
    try:
        clipped = json.loads(path.read_text(encoding="utf-8"))["scales"][f"{um_per_px:g}"]["clipped"]
        return float(clipped.get(tile.name, 1.0))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ImageError(path, "it cannot be read", "Delete it, or make the pictures again.") from error
