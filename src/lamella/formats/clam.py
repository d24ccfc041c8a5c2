"""CLAM's files: `patches/<slide>.h5` with coordinates, `h5_files/<slide>.h5` with features.

`coords` (N, 2) are top-left corners in level-0 pixels; a tile is patch_size pixels at pyramid level patch_level, so its
side at level 0 is patch_size times that level's downsample, which is taken as the file states it, never rounded. In a
feature file of CLAM `coords` has no attribute: it does not say how large a tile is.
Source of the layout: mahmoodlab/CLAM, `process_contour` in wsi_core/WholeSlideImage.py, `save_hdf5` in
wsi_core/wsi_utils.py and `compute_w_loader` in extract_features_fp.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lamella.errors import LamellaError, first_line
from lamella.formats.atomic import whole_file
from lamella.formats.h5_room import h5_with_room
from lamella.formats.h5_tiles import read_h5_tiles
from lamella.formats.placed_tiles import Attribute, PlacedTiles, whole_px0

_OWN_SIDE, _OWN_TILE = "side_px0", "tile_px"
# CLAM's attributes and those that repeat what PlacedTiles holds; the others are ours.
_KNOWN = (
    "patch_size", "patch_level", "downsample", "downsampled_level_dim", "level_dim", "name", "save_path",
    "custom_downsample", "level0_mpp", _OWN_SIDE, _OWN_TILE,
)  # fmt: skip


@dataclass(frozen=True)
class PatchLevel:
    """How CLAM is to read a tile: `patch_size` pixels at level `level`."""

    level: int
    patch_size: int
    downsample: tuple[float, float]
    level_size_px: tuple[int, int] | None
    """Width and height of the level."""


def level0_patches(tiles: PlacedTiles) -> PatchLevel:
    """Tiles read at level 0: CLAM scales them to its encoder's size afterwards."""
    return PatchLevel(0, max(1, round(tiles.side)), (1.0, 1.0), tiles.level0_size_px)


def read_clam(path: Path | str) -> PlacedTiles:
    """The tiles of a file of CLAM, with their features if it has some.

    Raises:
        LamellaError: It is no such file, or coords and features do not belong together.
    """
    path = Path(path)
    found = read_h5_tiles(path)
    attributes = found.attributes
    try:
        side_px0, tile_px = _side(path, attributes)
        size = _level0_size(attributes)
    except (TypeError, ValueError, IndexError) as error:
        raise LamellaError(
            path, f"the attributes of its coords are no sizes ({first_line(error)})", "Make the coordinates again."
        ) from error
    name = attributes.get("name", path.stem)
    return PlacedTiles(
        path,
        name.decode(errors="replace") if isinstance(name, bytes) else str(name),
        found.places_px0,
        side_px0=side_px0,
        tile_px=tile_px,
        level0_mpp=_number(path, attributes, "level0_mpp", 1e-6) if "level0_mpp" in attributes else None,
        level0_size_px=size,
        features=found.features,
        own={key: _plain(value) for key, value in attributes.items() if key not in _KNOWN},
    )


def write_clam(
    path: Path | str,
    tiles: PlacedTiles,
    read: PatchLevel,
    *,
    features: bool,
) -> None:
    """Write `coords` and, if asked for, `features` (float32, as CLAM's networks take them), whole or not at all.

    Corners are whole pixels in CLAM: fractional ones are rounded. The exact side, the pixels and the micrometres are
    kept beside its attributes, so that Lamella reads back what was written.

    Raises:
        SlideError: A feature is not a number.
        StorageError: The disk refused the write.
    """
    corners = whole_px0(tiles.places_px0).astype(np.int32)
    shape = (tiles.features.rows, tiles.features.dim) if features and tiles.features is not None else (0, 0)
    data_bytes = corners.nbytes + shape[0] * shape[1] * np.dtype(np.float32).itemsize
    with whole_file(path) as part, h5_with_room(part, data_bytes) as file:
        coords = file.create_dataset("coords", data=corners)
        coords.attrs.update(_attributes(path, tiles, read))
        if features and tiles.features is not None:
            rows, row = file.create_dataset("features", shape, np.float32), 0
            for batch in tiles.features.checked(tiles.source):
                rows[row : row + len(batch)] = batch
                row += len(batch)


def _attributes(path: Path | str, tiles: PlacedTiles, read: PatchLevel) -> dict[str, object]:
    attributes: dict[str, object] = {
        **tiles.own,
        "patch_size": read.patch_size,
        "patch_level": read.level,
        "downsample": read.downsample,
        "name": tiles.name,
        "save_path": str(Path(path).parent),
        _OWN_SIDE: tiles.side,
    }
    if read.level_size_px is not None:
        attributes |= {"level_dim": read.level_size_px, "downsampled_level_dim": read.level_size_px}
    if tiles.tile_px is not None:
        attributes[_OWN_TILE] = tiles.tile_px
    if tiles.level0_mpp is not None:
        attributes["level0_mpp"] = tiles.level0_mpp
    return attributes


def _side(path: Path, attributes: Mapping[str, object]) -> tuple[float | None, int | None]:
    """Side at level 0 and pixels of a tile; None for both where the file says nothing."""
    if "patch_size" not in attributes:
        return None, None
    patch_px = _number(path, attributes, "patch_size")
    # Old versions read a larger patch and shrank it by this factor: patch_size pixels is what the encoder saw.
    shrunk = float(np.asarray(attributes.get("custom_downsample", 1)))
    level = _number(path, attributes, "patch_level", least=0)
    if "downsample" in attributes:
        down = np.atleast_1d(np.asarray(attributes["downsample"], np.float64))
        side_px0 = patch_px * shrunk * math.sqrt(down[0] * down[-1])
    elif level == 0:
        side_px0 = patch_px * shrunk
    else:
        raise LamellaError(path, f"it was made at level {level:g} and states no downsample", "Make it again.")
    if not 0 < side_px0 < math.inf:
        raise LamellaError(path, f"its tiles would be {side_px0:g} pixels wide", "Make the coordinates again.")
    stated = float(np.asarray(attributes.get(_OWN_SIDE, side_px0)))
    exact = stated if abs(stated - side_px0) < 1 else side_px0  # ours differs by CLAM's rounding only
    return exact, int(np.asarray(attributes.get(_OWN_TILE, patch_px)))


def _level0_size(attributes: Mapping[str, object]) -> tuple[int, int] | None:
    """Only a file made at level 0 knows it exactly: a level's size is rounded."""
    if "level_dim" not in attributes or int(np.asarray(attributes.get("patch_level", -1))) != 0:
        return None
    width, height = np.asarray(attributes["level_dim"]).tolist()
    return int(width), int(height)


def _number(path: Path, attributes: Mapping[str, object], key: str, least: float = 1) -> float:
    try:
        value = float(np.asarray(attributes[key]))
    except (KeyError, TypeError, ValueError) as error:
        raise LamellaError(path, f"its coords have no number {key}", "Make the coordinates again.") from error
    if not least <= value < float("inf"):
        raise LamellaError(path, f"its {key} is {value:g}", "Make the coordinates again.")
    return value


def _plain(value: object) -> Attribute:
    return value.item() if isinstance(value, np.generic) else str(value)
