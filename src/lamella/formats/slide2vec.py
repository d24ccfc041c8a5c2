"""slide2vec's files: coordinates as `.npy` (versions 1 and 2), or `.coordinates.npz` with a `.coordinates.meta.json`.

Corners are whole level-0 pixels, the side at level 0 is `tile_size_lv0`; a tile is read as a square of
`tile_size_resized` (`read_tile_size_px`) pixels at a pyramid level and scaled to the target's pixels. Features stand in
a folder beside: `features/<slide>.pt` or `tile_embeddings/<slide>.pt`. What we write is in slide2vec's order, x before
y, coordinates and features alike, because it writes and expects that order.
Source of the layouts: clemsgrs/hs2p, `save_coordinates` (1.x) and hs2p/tiling/io.py (6.1.0); clemsgrs/slide2vec,
data/dataset.py (1.4.0, 2.0.2) and artifacts.py (7.1.4).
"""

from __future__ import annotations

import json
import math
import tokenize
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lamella.errors import LamellaError, first_line
from lamella.formats.atomic import whole_file, write_json
from lamella.formats.placed_tiles import DAMAGE, FeatureRows, PlacedTiles, checked_places, whole_px0
from lamella.formats.tensors import read_pt, write_pt

# What numpy raises on a damaged file: it parses a header as Python, and an .npz as a ZIP archive.
_DAMAGE = (*DAMAGE, EOFError, SyntaxError, tokenize.TokenError, zlib.error, zipfile.BadZipFile)
COORDINATES = ".coordinates.npz"
_META = ".coordinates.meta.json"
_FEATURE_FOLDERS = ("tile_embeddings", "features")  # from version 3; before
_FIELDS = np.dtype(
    [
        ("x", np.int64),
        ("y", np.int64),
        ("contour_index", np.int64),  # version 2 asks for it and uses it with restrict_to_tissue only: 0 here
        ("target_tile_size", np.int64),
        ("target_spacing", np.float64),
        ("tile_level", np.int64),
        ("resize_factor", np.float64),
        ("tile_size_resized", np.int64),
        ("tile_size_lv0", np.int64),
    ]
)


@dataclass(frozen=True)
class ReadPlan:
    """The pyramid level that slide2vec is to read from."""

    level: int
    downsample: float
    downsamples: tuple[float, ...]
    """Of all levels."""
    image_path: str


def read_npy(path: Path | str) -> PlacedTiles:
    """Tiles of a structured array of slide2vec 1 or 2, or bare (N, 2) places, which do not say what they are.

    Raises:
        LamellaError: It cannot be read without unpickling, lacks a field, or its tiles have several sizes.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            array = np.load(file, allow_pickle=False)
    except FileNotFoundError as error:
        raise LamellaError(path, "the file does not exist", "Correct the path.") from error
    except _DAMAGE as error:
        raise LamellaError(
            path,
            f"it cannot be read as an array ({first_line(error)})",
            "Save it as a plain array; pickled objects are never loaded.",
        ) from error
    if not isinstance(array, np.ndarray):
        raise LamellaError(path, "it is no single array", "Give coordinates as .npy.")
    if array.dtype.names is None:
        return PlacedTiles(path, path.stem, checked_places(path, array), place=None)
    missing = [name for name in ("x", "y", "tile_size_lv0") if name not in array.dtype.names]
    if missing or array.ndim != 1:
        raise LamellaError(path, f"it has no field {', '.join(missing)}", "Give coordinates of slide2vec.")
    places = checked_places(path, np.stack([array["x"], array["y"]], axis=1))
    side_px0, tile_px = (None, None) if not len(array) else (_one(path, array["tile_size_lv0"]), _tile_px(path, array))
    return PlacedTiles(
        path, path.stem, places, side_px0=side_px0, tile_px=tile_px, features=_features(path, path.stem, len(places))
    )


def read_npz(path: Path | str) -> PlacedTiles:
    """Tiles of `<slide>.coordinates.npz` with the `.coordinates.meta.json` beside it.

    Raises:
        LamellaError: One of them is missing, damaged or of another layout.
    """
    path = Path(path)
    name = path.name.removesuffix(COORDINATES)
    meta_path = path.with_name(name + _META)
    try:
        # Opened here: numpy does not close a file that turns out to be damaged.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            places = checked_places(path, np.stack([arrays["x"], arrays["y"]], axis=1))
            columns = {"tissue_fraction": arrays["tissue_fractions"]} if "tissue_fractions" in arrays else {}
        meta = json.loads(meta_path.read_text(encoding="utf-8"))
        tiling, slide = meta["tiling"], meta["slide"]
        side_px0, tile_px = float(tiling["tile_size_lv0"]), int(tiling["requested_tile_size_px"])
        mpp, size = slide["base_spacing_um"], slide["dimensions"]
        # An unknown fraction is written as NaN, and is no column.
        columns = {key: values for key, values in columns.items() if np.isfinite(values).all()}
        return PlacedTiles(
            path,
            str(meta["provenance"]["sample_id"]),
            places,
            side_px0=side_px0,
            tile_px=tile_px,
            overlap_px=round(float(tiling["overlap"]) * tile_px),
            level0_mpp=None if mpp is None else float(mpp),
            level0_size_px=None if size is None else (int(size[0]), int(size[1])),
            features=_features(path, name, len(places)),
            columns=columns,
        )
    except FileNotFoundError as error:
        raise LamellaError(error.filename or path, "the file does not exist", "Keep both files together.") from error
    except _DAMAGE as error:
        raise LamellaError(
            path, f"it or its {_META} cannot be read ({first_line(error)})", "Make the coordinates again."
        ) from error


def write_slide2vec(folder: Path, tiles: PlacedTiles, plan: ReadPlan) -> list[Path]:
    """Write one slide: coordinates in the old and the new layout, and features if there are any.

    Args:
        folder: Gets coordinates/, tiles/ and tile_embeddings/.
        tiles: With their micrometres; fractional corners are rounded.
        plan: Where a tile is read from.

    Returns:
        What was written.

    Raises:
        SlideError: A feature is not a number.
        StorageError: The disk refused the write.
    """
    corners = whole_px0(tiles.places_px0)
    order = np.lexsort((corners[:, 1], corners[:, 0]))
    corners = corners[order]
    npy = folder / "coordinates" / f"{tiles.name}.npy"
    with whole_file(npy) as part, open(part, "wb") as file:
        np.save(file, _structured(tiles, corners, plan), allow_pickle=False)
    npz, meta = folder / "tiles" / f"{tiles.name}{COORDINATES}", folder / "tiles" / f"{tiles.name}{_META}"
    unknown = np.full(len(corners), np.nan, np.float32)
    fractions = np.asarray(tiles.columns.get("tissue_fraction", unknown), np.float32)[order]
    with whole_file(npz) as part, open(part, "wb") as file:
        index = np.arange(len(corners), dtype=np.int32)
        np.savez_compressed(file, tile_index=index, x=corners[:, 0], y=corners[:, 1], tissue_fractions=fractions)
    write_json(meta, _meta(tiles, plan))
    if tiles.features is None:
        return [npy, npz, meta]
    features = tiles.features.whole(tiles.source)[order]
    embeddings = folder / _FEATURE_FOLDERS[0] / f"{tiles.name}.pt"
    write_pt(embeddings, features)
    write_json(embeddings.with_suffix(".meta.json"), _embedding_meta(tiles, embeddings, features, npz, meta))
    return [npy, npz, meta, embeddings, embeddings.with_suffix(".meta.json")]


def _structured(tiles: PlacedTiles, corners: np.ndarray, plan: ReadPlan) -> np.ndarray:
    read_px = max(1, round(tiles.side / plan.downsample))
    factor = read_px / tiles.pixels
    while int(read_px / factor) < tiles.pixels:  # slide2vec 1 cuts the quotient off; 223.999 must not become 223
        factor = math.nextafter(factor, 0)
    array = np.zeros(len(corners), _FIELDS)
    array["x"], array["y"] = corners.T
    array["target_tile_size"], array["target_spacing"] = tiles.pixels, tiles.mpp
    array["tile_level"], array["resize_factor"] = plan.level, factor
    array["tile_size_resized"], array["tile_size_lv0"] = read_px, max(1, round(tiles.side))
    return array


def _meta(tiles: PlacedTiles, plan: ReadPlan) -> dict[str, Any]:
    """hs2p refuses a missing key and an unknown one; null where Lamella did not do what the key speaks of."""
    read_px = max(1, round(tiles.side / plan.downsample))
    overlap = tiles.overlap_px / tiles.pixels
    segmentation = (
        "tissue_method requested_seg_downsample seg_downsample seg_level seg_spacing_um sthresh sthresh_up mthresh "
        "close sam2_checkpoint_path sam2_config_path mask_path ref_tile_size_px tissue_mask_tissue_value mask_level "
        "mask_spacing_um"
    )
    filtering = (
        "a_t a_h filter_white filter_black white_threshold black_threshold fraction_threshold filter_grayspace "
        "grayspace_saturation_threshold grayspace_fraction_threshold filter_blur blur_threshold qc_spacing_um"
    )
    provenance = "mask_path requested_backend spacing_at_level_0 mask_backend requested_mask_backend"
    return {
        "provenance": dict.fromkeys(provenance.split())
        | {"sample_id": tiles.name, "image_path": plan.image_path, "backend": "lamella"},
        "slide": {
            "dimensions": None if tiles.level0_size_px is None else list(tiles.level0_size_px),
            "base_spacing_um": tiles.mpp0,
            "level_downsamples": list(plan.downsamples),
        },
        "tiling": {
            "requested_tile_size_px": tiles.pixels,
            "requested_spacing_um": tiles.mpp,
            "read_level": plan.level,
            "read_tile_size_px": read_px,
            "read_spacing_um": tiles.mpp0 * plan.downsample,
            "tile_size_lv0": max(1, round(tiles.side)),
            "tolerance": None,
            "step_px_lv0": max(1, round(tiles.side * (1 - overlap))),
            "overlap": overlap,
            "min_tissue_fraction": None,
            "is_within_tolerance": read_px == tiles.pixels,
            "n_tiles": len(tiles),
        },
        "segmentation": dict.fromkeys(segmentation.split()),
        "filtering": dict.fromkeys(filtering.split()),
        "artifact": {
            "coordinate_space": "level0_px",
            "tile_order": "x_then_y",
            "annotation": None,
            "selection_strategy": None,
            "output_mode": None,
        },
    }


def _embedding_meta(tiles: PlacedTiles, path: Path, features: np.ndarray, npz: Path, meta: Path) -> dict[str, Any]:
    return {
        "sample_id": tiles.name,
        "artifact_type": "tile_embeddings",
        "format": path.suffix.removeprefix("."),
        "feature_dim": features.shape[1],
        "num_tiles": len(features),
        "annotation": None,
        "coordinates_npz_path": f"../tiles/{npz.name}",
        "coordinates_meta_path": f"../tiles/{meta.name}",
        "encoder_name": tiles.own.get("encoder"),
        "encoder_fingerprint": tiles.own.get("encoder_fingerprint"),
    }


def _tile_px(path: Path, array: np.ndarray) -> int | None:
    names = array.dtype.names or ()
    if "target_tile_size" in names:
        return int(_one(path, array["target_tile_size"]))
    if "tile_size_resized" in names and "resize_factor" in names:
        return round(_one(path, array["tile_size_resized"]) / _one(path, array["resize_factor"]))
    return None


def _one(path: Path, values: np.ndarray) -> float:
    found = np.unique(values)
    if len(found) > 1 or not found[0] > 0:
        raise LamellaError(
            path, f"its tiles have {len(found)} sizes ({found[0]:g} to {found[-1]:g})", "Give one file for each size."
        )
    return float(found[0])


def _features(path: Path, name: str, tiles: int) -> FeatureRows | None:
    """The features of a slide, if they stand where slide2vec puts them."""
    for folder in _FEATURE_FOLDERS:
        file = path.parent.parent / folder / f"{name}.pt"
        if file.is_file():
            features = read_pt(file)
            if len(features) != tiles:
                raise LamellaError(
                    file, f"it has {len(features)} rows for the {tiles} tiles of {path.name}", "Make it again."
                )
            return FeatureRows.of(features)
    return None
