"""Tiles from another program's file laid on a slide of the index: size, micrometres and place become known, or refused.

A tile of the field's files is a square of level-0 pixels, ours one of micrometres: side_um = side_px0 x the slide's own
micrometres per pixel (the geometric mean of both axes), never a magnification.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa

from lamella.errors import SlideError
from lamella.formats.placed_tiles import FeatureRows, PlacedTiles
from lamella.slides.grid import TILE_COLUMNS, one_tile_px, tile_corners_px0, tile_table
from lamella.slides.index import IndexedSlide

# Two statements of one slide's micrometres per pixel differ by their rounding, 40x against 0.2528, but not by more
# where both were measured.
_MPP_TOLERANCE = 0.02
_SAME_FOV = 1e-6  # sizes in a table that differ by this share are rounding
_PATCHES = "_patches"  # TRIDENT's coordinates of slide a are a_patches.h5


@dataclass(frozen=True)
class Stated:
    """What the user says where a file is silent."""

    mpp: float | None = None
    tile_px: int | None = None
    place: Literal["corner", "centre"] | None = None


def slides_by_name(slides: Iterable[IndexedSlide]) -> dict[str, IndexedSlide]:
    """Every name that others use for a slide: its slide_id, and the name of its file where that is unique."""
    slides = tuple(slides)
    found: dict[str, IndexedSlide | None] = {}
    for slide in slides:
        for name in {slide.wsi_path.stem, slide.wsi_path.name}:
            found[name] = None if name in found else slide
    unique = {name: slide for name, slide in found.items() if slide is not None}
    return {**unique, **{slide.slide_id: slide for slide in slides}}


def slide_of(tiles: PlacedTiles, names: Mapping[str, IndexedSlide]) -> IndexedSlide:
    """The slide that a file belongs to: by its own name, or by the name it gives inside.

    Args:
        tiles: As read.
        names: From `slides_by_name`.

    Raises:
        SlideError: There is none, or the two names are two slides.
    """
    file_name = stem(tiles.source)
    by_file, by_name = names.get(file_name), names.get(tiles.name)
    if by_file is not None and by_name is not by_file and tiles.name != file_name:
        raise SlideError(
            tiles.source,
            f"the file is named after slide {by_file.slide_id}, but says inside that it belongs to {tiles.name}",
            "Rename the file, or make it again.",
        )
    found = by_file or by_name
    if found is None:
        raise SlideError(
            tiles.source, f"the index has no slide {tiles.name}", "Index it, or name the file after its slide_id."
        )
    return found


def stem(path: Path) -> str:
    """The slide's name in a file's name: `a` of a.h5, a_patches.h5, a.coordinates.npz, a.geojson.gz."""
    name = path.name
    for suffix in (".coordinates.npz", ".geojson.gz", ".json.gz", ".geojson.zip", path.suffix):
        if suffix and name.endswith(suffix):
            name = name.removesuffix(suffix)
            break
    return name.removesuffix(_PATCHES)


def settle(tiles: PlacedTiles, slide: IndexedSlide | None, stated: Stated) -> PlacedTiles:
    """Fill in what the file does not say, from the slide and the user; places become corners.

    Args:
        tiles: As read.
        slide: The slide they lie on; without one the file's own statements must do.
        stated: Used only where the file is silent. Rectangles without a pixel count are read at `stated.mpp`.

    Raises:
        SlideError: Something stays unknown, the file speaks of another slide, or a tile lies off the slide.
    """
    if slide is not None:
        tiles = _on_slide(tiles, slide)
    side, pixels, mpp0 = tiles.side_px0, tiles.tile_px, tiles.level0_mpp
    if side is None and stated.mpp is not None and stated.tile_px is not None and mpp0 is not None:
        side, pixels = stated.mpp * stated.tile_px / mpp0, stated.tile_px
    if pixels is None and side is not None:
        by_mpp = None if stated.mpp is None or mpp0 is None else max(1, round(side * mpp0 / stated.mpp))
        pixels = by_mpp if by_mpp is not None else stated.tile_px
    place = tiles.place or stated.place
    if place is None:
        raise SlideError(
            tiles.source,
            "it does not say whether its places are corners or centres of tiles",
            "Run `lamella convert` on it with place=corner or place=centre.",
        )
    if side is None:
        raise SlideError(
            tiles.source,
            "it does not say how large its tiles are",
            "Run `lamella convert` on it with mpp=..., tile_px=... and --index INDEX.",
        )
    corners = tiles.places_px0 - side / 2 if place == "centre" else tiles.places_px0
    tiles = replace(tiles, places_px0=corners, place="corner", side_px0=side, tile_px=pixels)
    if tiles.level0_size_px is not None:
        check_inside(tiles.source, tiles.name, corners, side, tiles.level0_size_px)
    return tiles


def to_table(tiles: PlacedTiles) -> pa.Table:
    """Settled tiles as Lamella's tile table; their further columns are kept."""
    table = tile_table(tiles.name, tiles.places_px0, tiles.side * tiles.mpp0, tiles.mpp)
    for name, values in tiles.columns.items():
        table = table.append_column(name, pa.array(values))
    return table


def from_table(source: Path, table: pa.Table, slide: IndexedSlide) -> PlacedTiles:
    """The rows of one slide of a tile table, in level-0 pixels.

    Raises:
        SlideError: The tiles have several sizes, which the other formats cannot express, or lie off the slide.
    """
    fov_um = table.column("fov_um").to_numpy()
    if np.ptp(fov_um) > _SAME_FOV * fov_um[0]:
        raise SlideError(
            slide.slide_id,
            f"its tiles have sides from {fov_um.min():g} to {fov_um.max():g} um",
            "Give one table for each size.",
        )
    columns = {
        name: table.column(name).to_numpy()
        for name in table.column_names
        if name not in TILE_COLUMNS and pa.types.is_floating(table.schema.field(name).type)
    }
    tiles = PlacedTiles(
        source,
        slide.slide_id,
        tile_corners_px0(table),
        side_px0=float(fov_um[0]) / slide.frame.mpp,
        tile_px=one_tile_px(table, slide.slide_id),
        features=_feature_column(table),
        columns=columns,
    )
    return settle(tiles, slide, Stated())


def _feature_column(table: pa.Table) -> FeatureRows | None:
    """The list column `features` that `lamella convert to=parquet` writes."""
    if "features" not in table.column_names or not pa.types.is_fixed_size_list(table.schema.field("features").type):
        return None
    lists = table.column("features").combine_chunks()
    return FeatureRows.of(lists.flatten().to_numpy(zero_copy_only=False).reshape(len(lists), lists.type.list_size))


def _on_slide(tiles: PlacedTiles, slide: IndexedSlide) -> PlacedTiles:
    frame = slide.frame
    size = (frame.width_px, frame.height_px)
    if tiles.level0_size_px not in (None, size):
        raise SlideError(
            tiles.source,
            f"it was made for a slide of {_by(tiles.level0_size_px)} pixels, slide {slide.slide_id} has {_by(size)}",
            "Give the file that belongs to this slide.",
        )
    stated = tiles.level0_mpp
    if stated is not None and abs(stated / frame.mpp - 1) > _MPP_TOLERANCE:
        raise SlideError(
            tiles.source,
            f"it was made at {stated:.4g} um per level-0 pixel, the index gives slide {slide.slide_id} {frame.mpp:.4g}",
            "Correct the one that is wrong, and make it again.",
        )
    return replace(tiles, name=slide.slide_id, level0_mpp=frame.mpp, level0_size_px=size)


def check_inside(
    source: Path, slide_id: str, corners_px0: np.ndarray, side_px0: float | np.ndarray, size_px0: tuple[int, int]
) -> None:
    """Every tile must share some of the slide; one that only reaches over the edge is padded when it is read.

    Args:
        source: Named in the error.
        slide_id: Named in the error.
        corners_px0: (N, 2).
        side_px0: One, or (N, 2) for both axes of each tile.
        size_px0: Width and height of the slide.

    Raises:
        SlideError: A tile lies off the slide.
    """
    outside = np.flatnonzero(((corners_px0 >= size_px0) | (corners_px0 + side_px0 <= 0)).any(axis=1))
    if len(outside):
        x, y = corners_px0[outside[0]]
        raise SlideError(
            source,
            f"{len(outside)} of its {len(corners_px0)} tiles lie off slide {slide_id} of {_by(size_px0)} pixels "
            f"(tile {outside[0]} at {x:g}, {y:g})",
            "Give the file that belongs to this slide, with coordinates in level-0 pixels.",
        )


def _by(size: tuple[int, int] | None) -> str:
    return "x".join(map(str, size or ()))
