"""Tiles that other programs wrote: CLAM, TRIDENT, slide2vec, QuPath; and our own tables. Told by content, not by name.

A file of the others holds the tiles of one slide and is named after it; a folder holds one such file for each slide.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa

from lamella.errors import LamellaError
from lamella.formats.clam import read_clam
from lamella.formats.geojson import GeoObject, read_geojson, signed_area
from lamella.formats.h5 import read_trident
from lamella.formats.placed_tiles import DAMAGE, PlacedTiles
from lamella.formats.slide2vec import COORDINATES, read_npy, read_npz
from lamella.slides.grid import read_tile_table, tile_corners_px0
from lamella.slides.index import IndexedSlide
from lamella.slides.placing import Stated, check_inside, settle, slide_of, slides_by_name, stem, to_table

TABLES = (".csv", ".parquet")
# Where the others put the files of a job, best first: with features, without.
_FOLDERS = (("h5_files", (".h5",)), ("patches", (".h5",)), ("tiles", (COORDINATES,)), ("coordinates", (".npy",)))
_SUFFIXES = (".h5", ".hdf5", ".npy", COORDINATES, ".geojson", ".geojson.gz", ".zip", *TABLES)
_NOT_TILES = ("failed.csv", "report.csv")
# A rectangle that was rounded to hundredths or whole pixels is still a square and still as large as its neighbours.
_ROUNDING_PX0 = 1.0
_FILLED = 0.98  # share of its bounding box that a rectangle, drawn or rounded, fills at least


def tile_files(source: Path | str) -> list[Path]:
    """The files of tiles of a folder, by name; or the one file.

    Raises:
        LamellaError: There is none, or the folder holds several kinds.
    """
    source = Path(source)
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise LamellaError(source, "it does not exist", "Correct the path.")
    folder, suffixes = next(
        ((source / name, own) for name, own in _FOLDERS if (source / name).is_dir()), (source, _SUFFIXES)
    )
    files = sorted(
        path
        for path in folder.iterdir()
        if path.name.lower().endswith(suffixes) and not path.name.startswith(".") and path.name not in _NOT_TILES
    )
    kinds = {path.suffix.lower() for path in files}
    if len(kinds) != 1:
        cause = f"it holds several kinds of files of tiles ({', '.join(sorted(kinds))})" if kinds else "no tiles in it"
        raise LamellaError(folder, cause, "Give one file, or a folder with one .h5, .npy, .geojson or table per slide.")
    return files


def read_tile_file(path: Path | str) -> PlacedTiles:
    """The tiles of one slide from a file of another program.

    Raises:
        LamellaError: It cannot be read, or is of no known layout.
    """
    path = Path(path)
    name = path.name.lower()
    if name.endswith((".h5", ".hdf5")):
        return read_trident(path) if _is_trident(path) else read_clam(path)
    if name.endswith(".npy"):
        return read_npy(path)
    if name.endswith(".npz"):
        return read_npz(path)
    if name.endswith((".geojson", ".json", ".geojson.gz", ".json.gz", ".zip")):
        return _read_objects(path)
    raise LamellaError(path, "it is no file of tiles", f"Give one of {', '.join(_SUFFIXES)}.")


def read_tiles(path: Path | str, slides: Iterable[IndexedSlide], *, mpp: float, tile_px: int) -> dict[str, pa.Table]:
    """The tiles that a user brings, as tile tables by slide; rows keep their order.

    Args:
        path: A CSV or Parquet tile table, a file of CLAM, TRIDENT, slide2vec or QuPath, or a folder of these. A slide
            whose file has no tiles is left out.
        slides: The slides they may lie on.
        mpp: For tables without `mpp` and rectangles without a pixel count.
        tile_px: For tables without `fov_um`, and for points.

    Raises:
        LamellaError: A file cannot be read, does not say what its tiles are, names an unknown slide, was made for
            another slide, or has tiles that lie off the slide.
    """
    names = slides_by_name(slides)
    found: dict[str, pa.Table] = {}
    for file in tile_files(path):
        for slide_id, table in _tables(file, names, mpp, tile_px):
            if slide_id in found:
                raise LamellaError(file, f"slide {slide_id} stands in another file too", "Keep one file per slide.")
            found[slide_id] = table
    return found


def tables_by_slide(
    path: Path, table: pa.Table, names: Mapping[str, IndexedSlide]
) -> Iterator[tuple[IndexedSlide, pa.Table]]:
    """A tile table split by slide, slides in order of appearance; rows keep their order.

    Args:
        path: Named in errors.
        table: A tile table.
        names: slide_id -> slide.

    Raises:
        LamellaError: It names slides that are not among `names`, or a tile lies off its slide.
    """
    ids = table.column("slide_id").combine_chunks().dictionary_encode()
    unknown = [name for name in ids.dictionary.to_pylist() if name not in names or names[name].slide_id != name]
    if unknown:
        raise LamellaError(
            path,
            f"it names {len(unknown)} slide(s) that the index does not have ({', '.join(unknown[:3])})",
            "Index these slides too, or remove their rows.",
        )
    numbers = ids.indices.to_numpy()
    order = np.argsort(numbers, kind="stable")  # one pass, however many slides
    starts = np.searchsorted(numbers[order], np.arange(len(ids.dictionary) + 1))
    for number, slide_id in enumerate(ids.dictionary.to_pylist()):
        rows, frame = table.take(order[starts[number] : starts[number + 1]]), names[slide_id].frame
        sides_px0 = rows.column("fov_um").to_numpy()[:, None] / (frame.mpp_x, frame.mpp_y)
        check_inside(path, slide_id, tile_corners_px0(rows), sides_px0, (frame.width_px, frame.height_px))
        yield names[slide_id], rows


def _tables(path: Path, names: Mapping[str, IndexedSlide], mpp: float, tile_px: int) -> Iterator[tuple[str, pa.Table]]:
    if path.suffix.lower() in TABLES:
        table = read_tile_table(path, mpp=mpp, tile_px=tile_px)
        if "features" in table.column_names:  # of `lamella convert to=parquet`; many slides of them fill the memory
            table = table.drop_columns("features")
        yield from ((slide.slide_id, rows) for slide, rows in tables_by_slide(path, table, names))
        return
    tiles = read_tile_file(path)
    if not len(tiles):
        return
    # Points and rectangles are drawn by a user for tiles of the encoder's size, as rows of a table are. An HDF5 file
    # or an array without a size was made for some other tiles, and guessing theirs would be silently wrong.
    drawn = tiles.place == "centre" or tiles.side_px0 is not None
    tiles = settle(tiles, slide_of(tiles, names), Stated(mpp, tile_px) if drawn else Stated())
    yield tiles.name, to_table(tiles)


def _is_trident(path: Path) -> bool:
    with suppress(*DAMAGE), h5py.File(path, "r") as file:  # what is wrong is told by the reader that follows
        return "coords" in file and "target_magnification" in file["coords"].attrs
    return False


def _read_objects(path: Path) -> PlacedTiles:
    """Tiles drawn in QuPath: all rectangles, a tile each; or all points, the centre of a tile each."""
    boxes: list[tuple[float, float, float, float]] = []
    points: list[np.ndarray] = []
    for number, item in enumerate(read_geojson(path, crossings="keep"), 1):
        if item.points is not None:
            points.append(item.points)
        elif _is_rectangle(item):
            boxes.append(item.bounds_px0())
        else:
            raise LamellaError(path, f"object {number} is no rectangle and no point", "Export tiles or points only.")
    if bool(boxes) == bool(points):
        cause = "it holds points and rectangles" if boxes else "it holds no tiles"
        raise LamellaError(path, cause, "Export tiles only, or points only.")
    if points:
        return PlacedTiles(path, stem(path), np.concatenate(points), place="centre")
    corners = np.asarray(boxes)
    sides = np.concatenate([corners[:, 2] - corners[:, 0], corners[:, 3] - corners[:, 1]])
    if np.ptp(sides) > _ROUNDING_PX0:
        raise LamellaError(
            path,
            f"its rectangles have sides from {sides.min():g} to {sides.max():g} pixels",
            "Export square tiles of one size, one file for each size.",
        )
    return PlacedTiles(path, stem(path), corners[:, :2], side_px0=float(np.median(sides)))


def _is_rectangle(item: GeoObject) -> bool:
    if len(item.polygons) != 1 or len(item.polygons[0]) != 1:
        return False
    area = abs(signed_area(item.polygons[0][0]))
    x0, y0, x1, y1 = item.bounds_px0()
    return area > 0 and area >= _FILLED * (x1 - x0) * (y1 - y0)
