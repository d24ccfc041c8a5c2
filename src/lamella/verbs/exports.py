"""One slide's tiles and features into each of the layouts that `lamella convert` writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa

from lamella.errors import LamellaError
from lamella.formats.anndata import write_anndata
from lamella.formats.clam import PatchLevel, level0_patches, write_clam
from lamella.formats.geojson import GeoObject, write_geojson
from lamella.formats.h5 import TridentAttributes, trident_attributes, write_coords, write_features
from lamella.formats.placed_tiles import PlacedTiles
from lamella.formats.slide2vec import ReadPlan, write_slide2vec
from lamella.formats.tables import write_csv, write_parquet
from lamella.formats.tensors import write_pt
from lamella.geometry import choose_level
from lamella.slides.index import IndexedSlide
from lamella.slides.placing import to_table

Target = Literal["trident", "clam", "slide2vec", "anndata", "geojson", "parquet", "csv"]
Export = Callable[[Path, PlacedTiles, IndexedSlide | None], list[Path]]
"""Takes the output folder, settled tiles and, if an index is given, their slide; returns what it wrote."""

# A tile whose size at a level is this near to the asked pixels is read there without scaling.
_SAME_PX = 0.5


def to_trident(folder: Path, tiles: PlacedTiles, slide: IndexedSlide | None) -> list[Path]:
    """`<slide>.h5` with features; without, `patches/<slide>_patches.h5`, so that FOLDER is TRIDENT's --coords_dir."""
    own = {**tiles.own, "mpp": tiles.mpp}
    if tiles.features is None:
        path = folder / "patches" / f"{tiles.name}_patches.h5"
        write_coords(path, tiles.places_px0, trident=_trident(folder, tiles), own=own)
        return [path]
    path, features = folder / f"{tiles.name}.h5", tiles.features
    write_features(
        path,
        tiles.places_px0,
        features.checked(tiles.source),
        dim=features.dim,
        trident=_trident(folder, tiles),
        own=own,
        half=features.half,
    )
    return [path]


def to_clam(folder: Path, tiles: PlacedTiles, slide: IndexedSlide | None) -> list[Path]:
    """`patches/<slide>.h5`; with features also `h5_files/<slide>.h5` and `pt_files/<slide>.pt`."""
    read = _patch_level(tiles, slide)
    patches = folder / "patches" / f"{tiles.name}.h5"
    write_clam(patches, tiles, read, features=False)
    if tiles.features is None:
        return [patches]
    both, tensor = folder / "h5_files" / f"{tiles.name}.h5", folder / "pt_files" / f"{tiles.name}.pt"
    write_clam(both, tiles, read, features=True)
    write_pt(tensor, tiles.features.whole(tiles.source).astype(np.float32))
    return [patches, both, tensor]


def to_slide2vec(folder: Path, tiles: PlacedTiles, slide: IndexedSlide | None) -> list[Path]:
    """`coordinates/`, `tiles/` and, with features, `tile_embeddings/`."""
    if slide is None:
        return write_slide2vec(folder, tiles, ReadPlan(0, 1.0, (1.0,), ""))
    levels = slide.levels or (slide.frame,)
    downsamples = tuple(level.mpp / slide.frame.mpp for level in levels)
    level = choose_level([level.mpp for level in levels], tiles.mpp).level
    return write_slide2vec(folder, tiles, ReadPlan(level, downsamples[level], downsamples, str(slide.wsi_path)))


def to_anndata(folder: Path, tiles: PlacedTiles, slide: IndexedSlide | None) -> list[Path]:
    """`<slide>.h5ad`."""
    write_anndata(folder / f"{tiles.name}.h5ad", tiles)
    return [folder / f"{tiles.name}.h5ad"]


def to_geojson(folder: Path, tiles: PlacedTiles, slide: IndexedSlide | None, suffix: str = ".geojson") -> list[Path]:
    """`<slide>.geojson`: each tile a tile object of QuPath, with its numbers as measurements; no features."""
    path = folder / f"{tiles.name}{suffix}"
    write_geojson(path, _rectangles(tiles))
    return [path]


def to_parquet(folder: Path, tiles: PlacedTiles, slide: IndexedSlide | None) -> list[Path]:
    """`<slide>.parquet`: the tile table, with a list column `features` if there are any."""
    table = to_table(tiles)
    if tiles.features is not None:
        rows = tiles.features.whole(tiles.source)
        values = pa.array(rows.reshape(-1))
        table = table.append_column("features", pa.FixedSizeListArray.from_arrays(values, tiles.features.dim))
    write_parquet(folder / f"{tiles.name}.parquet", table)
    return [folder / f"{tiles.name}.parquet"]


def to_csv(folder: Path, tiles: PlacedTiles, slide: IndexedSlide | None) -> list[Path]:
    """`<slide>.csv`: the tile table, without features."""
    table = to_table(tiles)
    write_csv(folder / f"{tiles.name}.csv", table.to_pylist(), table.column_names)
    return [folder / f"{tiles.name}.csv"]


EXPORTS: dict[Target, Export] = {
    "trident": to_trident,
    "clam": to_clam,
    "slide2vec": to_slide2vec,
    "anndata": to_anndata,
    "geojson": to_geojson,
    "parquet": to_parquet,
    "csv": to_csv,
}


def _trident(folder: Path, tiles: PlacedTiles) -> TridentAttributes:
    if tiles.level0_size_px is None:
        raise LamellaError(tiles.source, "it does not say how large its slide is", "Add --index INDEX.")
    return trident_attributes(
        slide_id=tiles.name,
        folder=folder,
        tile_px=tiles.pixels,
        mpp=tiles.mpp,
        overlap_px=tiles.overlap_px,
        level0_mpp=tiles.mpp0,
        level0_size_px=tiles.level0_size_px,
    )


def _patch_level(tiles: PlacedTiles, slide: IndexedSlide | None) -> PatchLevel:
    """The level at which a tile has the asked pixels, so that CLAM need not scale it; else level 0."""
    for number, level in enumerate(slide.levels if slide is not None and tiles.tile_px else ()):
        frame = slide.frame  # type: ignore[union-attr]
        downsample = (level.mpp_x / frame.mpp_x, level.mpp_y / frame.mpp_y)
        if abs(tiles.side / np.sqrt(downsample[0] * downsample[1]) - tiles.pixels) < _SAME_PX:
            return PatchLevel(number, tiles.pixels, downsample, (level.width_px, level.height_px))
    return level0_patches(tiles)


def _rectangles(tiles: PlacedTiles) -> Iterator[GeoObject]:
    corner = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * tiles.side
    for row, place in enumerate(tiles.places_px0):
        measurements = {name: float(values[row]) for name, values in tiles.columns.items()}
        yield GeoObject(polygons=((place + corner,),), object_type="tile", measurements=measurements)
