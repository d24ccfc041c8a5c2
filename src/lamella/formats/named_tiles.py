"""Tiles of many slides in one structured array: slide2vec's fields and the slide's name with each (`wsi_name`).

The source keeps names as Python objects, which only unpickling can read; here they are fixed-width text, and an array
of objects is refused. Corners and `tile_size_lv0` are in level-0 pixels; a tile is read as `tile_size_resized` pixels
of the pyramid level `tile_level` and becomes `tile_size` pixels (`resize_factor` = tile_size_resized / tile_size).
"""

from __future__ import annotations

import tokenize
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lamella.errors import LamellaError, first_line
from lamella.formats.atomic import whole_file
from lamella.formats.placed_tiles import DAMAGE, checked_places

_INTEGERS = ("x", "y", "tile_level", "tile_size_resized", "tile_size", "tile_size_lv0")
_NAME = "wsi_name"
_NEEDED = ("x", "y", "tile_size_lv0", _NAME)
# What numpy raises on a damaged file: it parses a header as Python.
_DAMAGE = (*DAMAGE, EOFError, SyntaxError, tokenize.TokenError)


@dataclass(frozen=True)
class NamedTiles:
    """Tiles of one or several slides. Shapes: N tiles.

    Attributes:
        source: The file.
        wsi_name: (N,) text, with or without extension.
        corners_px0: (N, 2) top-left corners.
        side_px0: (N,) their sides in level-0 pixels.
        tile_level: (N,) the pyramid level to read from; None where the file does not say.
        read_px: (N,) side in pixels of that level.
        tile_px: (N,) side in pixels of a tile as it is used.
    """

    source: Path
    wsi_name: np.ndarray
    corners_px0: np.ndarray
    side_px0: np.ndarray
    tile_level: np.ndarray | None = None
    read_px: np.ndarray | None = None
    tile_px: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.wsi_name)


def write_named_tiles(
    path: Path | str,
    wsi_names: np.ndarray | list[str],
    corners_px0: np.ndarray,
    *,
    tile_px: int,
    side_px0: np.ndarray,
    tile_level: np.ndarray,
    read_px: np.ndarray,
) -> None:
    """Write tiles as a structured array.

    Args:
        path: An .npy file.
        wsi_names: (N,) the file names of the slides.
        corners_px0: (N, 2) top-left corners; fractions are rounded.
        tile_px: Side of a tile as it is used.
        side_px0: (N,) sides in level-0 pixels.
        tile_level: (N,) the level to read from.
        read_px: (N,) side in pixels of that level.

    Raises:
        StorageError: The disk refused the write.
    """
    names = np.asarray(wsi_names, np.str_)
    width = max(1, names.dtype.itemsize // 4)  # numpy keeps 4 bytes a character; a width of 0 cannot be stored
    array = np.zeros(
        len(names), [*((name, np.int32) for name in _INTEGERS), ("resize_factor", np.float32), (_NAME, f"<U{width}")]
    )
    array["x"], array["y"] = np.rint(np.asarray(corners_px0, np.float64).reshape(-1, 2)).T
    array["tile_level"], array["tile_size_resized"], array["tile_size"] = tile_level, read_px, tile_px
    array["tile_size_lv0"] = np.rint(side_px0)
    array["resize_factor"] = np.asarray(read_px, np.float64) / tile_px
    array[_NAME] = names
    with whole_file(path) as part, open(part, "wb") as file:
        np.save(file, array, allow_pickle=False)


def load_array(path: Path | str) -> np.ndarray:
    """An .npy file without unpickling.

    Raises:
        LamellaError: It is missing, damaged, no single array, or holds Python objects.
    """
    try:
        with open(path, "rb") as file:
            array = np.load(file, allow_pickle=False)
    except FileNotFoundError as error:
        raise LamellaError(path, "the file does not exist", "Correct the path.") from error
    except _DAMAGE as error:
        if "allow_pickle" in str(error):
            raise LamellaError(
                path,
                "it holds Python objects, which only unpickling could read, and that may run any code",
                "Save wsi_name as fixed-width text, such as array.astype(...) with ('wsi_name', 'U128').",
            ) from error
        raise LamellaError(path, f"it cannot be read as an array ({first_line(error)})", "Make it again.") from error
    if not isinstance(array, np.ndarray):
        raise LamellaError(path, "it is no single array", "Give coordinates as .npy.")
    return array


def read_named_tiles(path: Path | str) -> NamedTiles:
    """Read a structured array with `wsi_name`.

    Raises:
        LamellaError: It cannot be read without unpickling, lacks a field, or holds an empty name or an absurd size.
    """
    array = load_array(path)
    names = array.dtype.names or ()
    missing = [name for name in _NEEDED if name not in names]
    if missing or array.ndim != 1:
        raise LamellaError(path, f"it has no field {', '.join(missing)}", "Give slide2vec's fields with wsi_name.")
    return named_tiles(Path(path), array)


def named_tiles(path: Path, array: np.ndarray) -> NamedTiles:
    """The tiles of a structured array with `wsi_name`; see `read_named_tiles`."""
    names = array[_NAME]
    if names.dtype.kind == "S":
        names = np.char.decode(names, "utf-8")
    if names.dtype.kind != "U":
        raise LamellaError(path, f"its wsi_name is {names.dtype}, not text", "Save wsi_name as fixed-width text.")
    if (np.char.strip(names) == "").any():
        raise LamellaError(path, "it has a tile without a wsi_name", "Run the step that makes coordinates again.")
    side = array["tile_size_lv0"].astype(np.float64)
    if not (np.isfinite(side) & (side > 0)).all():
        raise LamellaError(path, "its tile_size_lv0 is not always above 0", "Make it again.")
    fields = array.dtype.names or ()
    level = array["tile_level"].astype(np.int64) if "tile_level" in fields else None
    read_px = array["tile_size_resized"].astype(np.int64) if "tile_size_resized" in fields else None
    tile_px = array["tile_size"].astype(np.int64) if "tile_size" in fields else None
    places = checked_places(path, np.stack([array["x"], array["y"]], axis=1))
    return NamedTiles(path, names, places, side, level, read_px, tile_px)
