"""Tile features in HDF5, in TRIDENT's layout, so that its tools and those that read its files can use them.

Two datasets of N rows: `coords` (N, 2), the tiles' top-left corners in level-0 pixels, and `features` (N, D). TRIDENT's
attributes stand on `coords`: patch_size (pixels as read), patch_size_level0, level0_magnification,
target_magnification, overlap, name, savetodir, level0_width, level0_height. It computes a tile's extent from the ratio
of the two magnifications; they are written as 10 / mpp, unrounded, so that the extent is the true one also for a slide
at 0.2528 mpp. It takes whole corners only; a fractional one, from a table that a user brings, is kept as a float. Our
own attributes (mpp, resample, reader, encoder, ...) stand beside them.
Source of the layout: mahmoodlab/TRIDENT, `coords_to_h5` in trident/IO.py and `extract_patch_features` in
trident/wsi_objects/WSI.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from lamella.errors import LamellaError, SlideError
from lamella.formats.atomic import whole_file
from lamella.formats.h5_room import h5_with_room
from lamella.formats.h5_tiles import read_h5_tiles
from lamella.formats.placed_tiles import DAMAGE, Attribute, PlacedTiles

# The field's convention: 10x is 1 um per pixel, so magnification = 10 / mpp.
_SKIPPED = "skipped"
_UM_PER_PX_AT_1X = 10.0


@dataclass(frozen=True)
class TridentAttributes:
    """What TRIDENT keeps on `coords`. Sizes in pixels; `overlap` in pixels of the tile as read."""

    patch_size: int
    patch_size_level0: int
    level0_magnification: float
    target_magnification: float
    overlap: int
    name: str
    savetodir: str
    level0_width: int
    level0_height: int


def trident_attributes(
    *,
    slide_id: str,
    folder: Path | str,
    tile_px: int,
    mpp: float,
    overlap_px: int,
    level0_mpp: float,
    level0_size_px: tuple[int, int],
) -> TridentAttributes:
    """TRIDENT's attributes from micrometres.

    Args:
        slide_id: Becomes `name`.
        folder: Becomes `savetodir`.
        tile_px: Side of a tile as read.
        mpp: Micrometres per pixel of a tile as read.
        overlap_px: Pixels of a tile, as read, that its neighbour shares.
        level0_mpp: Micrometres per pixel of level 0.
        level0_size_px: Width and height of level 0.
    """
    return TridentAttributes(
        patch_size=tile_px,
        patch_size_level0=round(tile_px * mpp / level0_mpp),
        level0_magnification=_UM_PER_PX_AT_1X / level0_mpp,
        target_magnification=_UM_PER_PX_AT_1X / mpp,
        overlap=overlap_px,
        name=slide_id,
        savetodir=str(folder),
        level0_width=level0_size_px[0],
        level0_height=level0_size_px[1],
    )


_TRIDENT_KEYS = frozenset(field.name for field in fields(TridentAttributes))


@dataclass(frozen=True)
class Features:
    """A feature file as read."""

    coords_px0: np.ndarray
    """(N, 2) int64, or float64 where a corner is fractional."""
    features: np.ndarray
    """(N, D) float32 or float16, as stored."""
    attributes: dict[str, Attribute]


def write_features(
    path: Path | str,
    coords_px0: np.ndarray,
    batches: Iterable[np.ndarray],
    *,
    dim: int,
    trident: TridentAttributes,
    own: Mapping[str, Attribute],
    half: bool = False,
    skipped: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Write a feature file, whole or not at all; memory holds one batch.

    Args:
        path: Where to.
        coords_px0: (N, 2) top-left corners in level-0 pixels, stored as integers if they are whole.
        batches: (B, D) features, N rows in all, in the order of the corners.
        dim: D.
        trident: Attributes of TRIDENT's layout.
        own: Further attributes of `coords`.
        half: Store 16 instead of 32 bits.
        skipped: Tiles that were left out and why, as plain values; kept as JSON in a dataset of bytes.

    Raises:
        SlideError: A feature is not finite (or does not fit 16 bits); nothing was written.
        ValueError: The batches do not add up to (N, D).
        StorageError: The disk refused the write.
    """
    coords = _whole_if_possible(np.asarray(coords_px0).reshape(-1, 2))
    dtype = np.float16 if half else np.float32
    data_bytes = coords.nbytes + len(coords) * dim * np.dtype(dtype).itemsize
    with whole_file(path) as part, h5_with_room(part, data_bytes) as file:
        file.create_dataset("coords", data=coords)
        features = file.create_dataset("features", (len(coords), dim), dtype)  # contiguous: fastest to read whole
        row = 0
        for batch in batches:
            if batch.ndim != 2 or batch.shape[1] != dim or row + len(batch) > len(coords):
                raise ValueError(f"features {batch.shape} after row {row} do not fit ({len(coords)}, {dim})")
            features[row : row + len(batch)] = _finite(path, batch, dtype)
            row += len(batch)
        if row != len(coords):
            raise ValueError(f"{row} rows of features for {len(coords)} tiles")
        file["coords"].attrs.update({**own, **asdict(trident)})
        file["features"].attrs.update({"name": trident.name, "savetodir": trident.savetodir})
        if skipped:
            text = json.dumps(list(skipped), ensure_ascii=False).encode()
            file.create_dataset(_SKIPPED, data=np.frombuffer(text, np.uint8))


def read_skipped(path: Path | str) -> list[dict[str, Any]]:
    """The tiles that were left out of a feature file; none in a file of another program.

    Raises:
        LamellaError: The file is missing or damaged.
    """
    try:
        with h5py.File(path, "r") as file:
            entries: list[dict[str, Any]] = json.loads(file[_SKIPPED][:].tobytes()) if _SKIPPED in file else []
            return entries
    except (OSError, ValueError) as error:
        raise _unreadable(path) from error


def write_coords(
    path: Path | str, coords_px0: np.ndarray, *, trident: TridentAttributes, own: Mapping[str, Attribute]
) -> None:
    """Write tiles without features, as TRIDENT keeps them in `patches/<name>_patches.h5`; whole or not at all.

    Raises:
        StorageError: The disk refused the write.
    """
    corners = _whole_if_possible(np.asarray(coords_px0).reshape(-1, 2))
    with whole_file(path) as part, h5_with_room(part, corners.nbytes) as file:
        coords = file.create_dataset("coords", data=corners)
        coords.attrs.update({**own, **asdict(trident)})


def read_trident(path: Path | str) -> PlacedTiles:
    """The tiles of a file of TRIDENT, or of `lamella embed`, with their features if it has some.

    The side of a tile at level 0 is patch_size times the exact ratio of the two magnifications, as TRIDENT itself
    computes it when it reads (trident/wsi_objects/WSIPatcher.py); its attribute patch_size_level0 is rounded down. The
    magnifications alone are no micrometres: TRIDENT puts a slide at 0.2528 mpp down as 40x. Only a file that states
    `mpp`, as ours do, gives them.

    Raises:
        LamellaError: An attribute is missing or absurd, or coords and features do not belong together.
    """
    path = Path(path)
    found = read_h5_tiles(path)
    attributes = {name: _plain(value) for name, value in found.attributes.items()}
    tile_px, finer, coarser = (
        _number(path, attributes, key) for key in ("patch_size", "level0_magnification", "target_magnification")
    )
    level0_mpp = None
    if "mpp" in attributes:
        level0_mpp = _number(path, attributes, "mpp") * coarser / finer
    size = [int(_number(path, attributes, key)) for key in ("level0_width", "level0_height") if key in attributes]
    return PlacedTiles(
        path,
        str(attributes.get("name", path.stem)),
        found.places_px0,
        side_px0=tile_px * finer / coarser,
        tile_px=int(tile_px),
        overlap_px=int(_number(path, {"overlap": 0, **attributes}, "overlap", least=0)),
        level0_mpp=level0_mpp,
        level0_size_px=(size[0], size[1]) if len(size) == 2 else None,
        features=found.features,
        own={key: value for key, value in attributes.items() if key not in _TRIDENT_KEYS},
    )


def _number(path: Path, attributes: Mapping[str, Attribute], key: str, least: float = 1e-6) -> float:
    """A size or a scale; `least` keeps out 0."""
    try:
        value = float(attributes[key])
    except KeyError as error:
        raise LamellaError(path, f"its coords have no attribute {key}", "Make the coordinates again.") from error
    except (TypeError, ValueError) as error:
        raise LamellaError(path, f"its {key} is {attributes[key]!r}, no number", "Make it again.") from error
    if not least <= value < float("inf"):
        raise LamellaError(path, f"its {key} is {value:g}", "Make the coordinates again.")
    return value


def read_features(path: Path | str) -> Features:
    """Read a feature file, ours or TRIDENT's.

    Raises:
        LamellaError: The file is missing, no HDF5, or lacks coords or features of equal length.
    """
    try:
        with h5py.File(path, "r") as file:
            missing = [name for name in ("coords", "features") if name not in file]
            if missing:
                raise LamellaError(
                    path, f"it has no dataset {', '.join(missing)}", "Give a feature file in TRIDENT's layout."
                )
            coords, features = file["coords"][:], file["features"][:]
            attributes = {name: _plain(value) for name, value in file["coords"].attrs.items()}
    except DAMAGE as error:
        raise _unreadable(path) from error
    if features.ndim != 2 or coords.shape != (len(features), 2):
        raise LamellaError(
            path,
            f"its coords {coords.shape} and features {features.shape} do not belong together",
            "Delete it and run `lamella embed` again.",
        )
    return Features(coords, features, attributes)


def read_attributes(path: Path | str) -> dict[str, Attribute]:
    """The attributes of `coords`, without reading a row.

    Raises:
        LamellaError: The file is missing, no HDF5, or has no coords.
    """
    try:
        with h5py.File(path, "r") as file:
            return {name: _plain(value) for name, value in file["coords"].attrs.items()}
    except DAMAGE as error:
        raise _unreadable(path) from error


def _unreadable(path: Path | str) -> LamellaError:
    return LamellaError(path, "it cannot be read as a feature file", "Delete it and run `lamella embed` again.")


def _finite(path: Path | str, batch: np.ndarray, dtype: type) -> np.ndarray:
    with np.errstate(over="ignore"):  # what does not fit becomes infinite and is refused below
        stored: np.ndarray = np.asarray(batch).astype(dtype)
    if not np.isfinite(stored).all():
        finite = bool(np.isfinite(batch).all())
        raise SlideError(
            path,
            "a feature does not fit 16 bits" if finite else "the encoder returned a feature that is not a number",
            "Set half=false." if finite else "Check the model; it may have diverged.",
        )
    return stored


def _whole_if_possible(coords: np.ndarray) -> np.ndarray:
    whole = np.rint(coords).astype(np.int64)
    return whole if np.array_equal(whole, coords) else coords.astype(np.float64)


def _plain(value: object) -> Attribute:
    if isinstance(value, bytes):
        return value.decode()
    return value.item() if isinstance(value, np.generic) else value  # type: ignore[return-value]
