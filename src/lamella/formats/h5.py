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

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import h5py
import numpy as np

from lamella.errors import LamellaError, SlideError
from lamella.formats.atomic import whole_file

Attribute = str | int | float

# The field's convention: 10x is 1 um per pixel, so magnification = 10 / mpp.
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

    Raises:
        SlideError: A feature is not finite (or does not fit 16 bits); nothing was written.
        ValueError: The batches do not add up to (N, D).
        StorageError: The disk refused the write.
    """
    coords = _whole_if_possible(np.asarray(coords_px0).reshape(-1, 2))
    dtype = np.float16 if half else np.float32
    with whole_file(path) as part, h5py.File(part, "w") as file:
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
    except OSError as error:
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
    except (OSError, KeyError) as error:
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
