"""Tile tables: regular grids over a slide's tissue, and tables that users bring.

A tile is a square of `fov_um` with its top-left corner at (x_px0, y_px0), read at `mpp`. Tiles of a table are kept in
the table's order, always.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Protocol

import numpy as np
import pyarrow as pa
from pydantic import Field

from lamella.config import Settings
from lamella.errors import LamellaError
from lamella.formats.tables import read_csv, read_parquet
from lamella.geometry import Frame
from lamella.slides.tissue_map import TissueMap

PLACE_COLUMNS = ("slide_id", "x_px0", "y_px0")
TILE_COLUMNS = (*PLACE_COLUMNS, "fov_um", "mpp")
# A step or an edge that misses a whole number by this much (in px0) is rounding.
_ROUNDING_PX0 = 1e-6


class GridSettings(Settings):
    """A regular grid of square tiles over the tissue."""

    overlap: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of a tile's side that its neighbour covers too."""
    min_tissue_fraction: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Least share of tissue in a tile."""
    border: Literal["inside", "flush", "over"] = "inside"
    """Right and lower edge. inside: whole steps inside the slide, what is left over is not covered. flush: one more row
    and column at the edge, overlapping their neighbours more. over: one more that reaches over it, padded white."""


class Place(Protocol):
    """What a grid needs of a slide; an IndexedSlide is one."""

    @property
    def slide_id(self) -> str: ...

    @property
    def frame(self) -> Frame: ...

    def tissue(self) -> TissueMap: ...


def tile_grid(slide: Place, mpp: float, tile_px: int, settings: GridSettings) -> pa.Table:
    """The tiles of a slide, row by row, each corner on a whole level-0 pixel.

    Corners are rounded one by one, so the grid does not drift where a step is no whole number of level-0 pixels.

    Args:
        slide: Its frame and its tissue.
        mpp: Micrometres per pixel of the tiles.
        tile_px: Side of a tile in pixels at `mpp`.
        settings: Overlap, border policy, least tissue.

    Returns:
        A table of TILE_COLUMNS and `tissue_fraction`; no rows where no tile holds enough tissue.
    """
    frame, fov_um = slide.frame, mpp * tile_px
    side_x_px0, side_y_px0 = fov_um / frame.mpp_x, fov_um / frame.mpp_y
    x_px0 = _starts(frame.width_px, side_x_px0, settings)
    y_px0 = _starts(frame.height_px, side_y_px0, settings)
    corners = np.stack(np.meshgrid(x_px0, y_px0), axis=-1).reshape(-1, 2)
    fractions = np.zeros(0)
    if len(corners):
        corners_um = corners * (frame.mpp_x, frame.mpp_y)
        boxes_um = np.concatenate([corners_um, corners_um + fov_um], axis=1)
        fractions = slide.tissue().fractions(boxes_um)
    kept = fractions >= settings.min_tissue_fraction
    return tile_table(slide.slide_id, corners[kept], fov_um, mpp).append_column(
        "tissue_fraction", pa.array(fractions[kept], pa.float64())
    )


def tile_table(slide_id: str, corners_px0: np.ndarray, fov_um: float, mpp: float) -> pa.Table:
    """A tile table of one slide from its (N, 2) corners."""
    rows = len(corners_px0)
    corners_px0 = np.asarray(corners_px0, np.float64).reshape(rows, 2)
    return pa.table(
        {
            "slide_id": pa.array([slide_id] * rows, pa.string()),
            "x_px0": pa.array(corners_px0[:, 0], pa.float64()),
            "y_px0": pa.array(corners_px0[:, 1], pa.float64()),
            "fov_um": pa.array(np.full(rows, fov_um), pa.float64()),
            "mpp": pa.array(np.full(rows, mpp), pa.float64()),
        }
    )


def tile_boxes_um(table: pa.Table, frame: Frame) -> np.ndarray:
    """(N, 4) x0, y0, x1, y1 in micrometres of the tiles of one slide."""
    corners_um = tile_corners_px0(table) * (frame.mpp_x, frame.mpp_y)
    fov_um = table.column("fov_um").to_numpy()
    return np.concatenate([corners_um, corners_um + fov_um[:, None]], axis=1)


def tile_corners_px0(table: pa.Table) -> np.ndarray:
    """(N, 2) float64 top-left corners in level-0 pixels."""
    return np.stack([table.column("x_px0").to_numpy(), table.column("y_px0").to_numpy()], axis=1)


def read_tile_table(path: Path, *, mpp: float | None, tile_px: int | None) -> pa.Table:
    """Read a tile table that a user brings, CSV or Parquet.

    `slide_id`, `x_px0` and `y_px0` must be there; `fov_um` and `mpp` are filled in where absent. Other columns are
    kept, as text if the file is a CSV.

    Args:
        path: The file.
        mpp: For tables without `mpp`; None if they must have it.
        tile_px: For tables without `fov_um`: a tile is `tile_px` pixels at its `mpp`; None if they must have it.

    Raises:
        LamellaError: A column is missing, the table is empty, a place is no number, or a size is not positive.
    """
    table = _read(Path(path))
    silent = [name for name, stated in (("mpp", mpp), ("fov_um", tile_px)) if stated is None]
    missing = [name for name in (*PLACE_COLUMNS, *silent) if name not in table.column_names]
    if missing:
        remedy = f"A tile table needs {', '.join(PLACE_COLUMNS)}."
        raise LamellaError(
            path,
            f"it has no column {', '.join(missing)}",
            f"{remedy[:-1]}; and mpp, fov_um unless mpp=... and tile_px=... are given." if silent else remedy,
        )
    if not table.num_rows:
        raise LamellaError(path, "it has no tiles", "Give a table with at least one row.")
    columns = {name: table.column(name) for name in table.column_names}
    columns["slide_id"] = columns["slide_id"].cast(pa.string())
    for name in ("x_px0", "y_px0"):
        columns[name] = _numbers(path, name, columns[name])
    spacing = columns["mpp"] if "mpp" in columns else np.full(table.num_rows, mpp)
    columns["mpp"] = _numbers(path, "mpp", spacing)
    fov_um = columns["fov_um"] if "fov_um" in columns else np.asarray(columns["mpp"]) * (tile_px or 0)
    columns["fov_um"] = _numbers(path, "fov_um", fov_um)
    for name in ("mpp", "fov_um"):
        if not (np.asarray(columns[name]) > 0).all():
            raise LamellaError(path, f"its column {name} holds values that are not positive", "Correct the table.")
    ordered = [*TILE_COLUMNS, *(name for name in columns if name not in TILE_COLUMNS)]
    return pa.table({name: columns[name] for name in ordered})


def one_tile_px(table: pa.Table, name: object = "tile table") -> int:
    """The side in pixels that all tiles share: a batch holds tiles of one size.

    Raises:
        LamellaError: The tiles have different sizes in pixels.
    """
    sides = np.unique(np.rint(table.column("fov_um").to_numpy() / table.column("mpp").to_numpy()).astype(int))
    if len(sides) > 1:
        raise LamellaError(
            name,
            f"its tiles have {len(sides)} sizes in pixels ({sides[0]} to {sides[-1]})",
            "Give fov_um and mpp with one ratio, or one table for each size.",
        )
    return int(max(1, sides[0])) if len(sides) else 1


def _starts(length_px0: int, side_px0: float, settings: GridSettings) -> np.ndarray:
    """Whole level-0 pixels at which the tiles of one axis start."""
    step_px0 = side_px0 * (1 - settings.overlap)
    last = (length_px0 - side_px0) / step_px0
    inside = int(np.floor(last + _ROUNDING_PX0)) + 1 if length_px0 - side_px0 > -_ROUNDING_PX0 else 0
    starts = np.arange(inside) * step_px0
    covered_px0 = starts[-1] + side_px0 if inside else 0.0
    if settings.border != "inside" and covered_px0 < length_px0 - _ROUNDING_PX0:
        if settings.border == "flush" and inside:
            starts = np.append(starts, length_px0 - side_px0)
        elif settings.border == "over":
            starts = np.append(starts, inside * step_px0)
    # Down, so that rounding never pushes a tile over the edge.
    return np.floor(starts + _ROUNDING_PX0)


def _read(path: Path) -> pa.Table:
    if path.suffix.lower() != ".csv":
        return read_parquet(path)
    rows = read_csv(path)
    names: Sequence[str] = list(rows[0]) if rows else []
    return pa.table({name: pa.array([row[name] for row in rows], pa.string()) for name in names})


def _numbers(path: Path, name: str, values: pa.ChunkedArray | pa.Array | np.ndarray) -> pa.Array:
    try:
        array = values if isinstance(values, (pa.Array, pa.ChunkedArray)) else pa.array(values)
        numbers = np.asarray(array.cast(pa.float64()).to_numpy(), np.float64)
    except pa.ArrowInvalid as error:
        raise LamellaError(
            path, f"its column {name} holds something that is no number", "Correct the table."
        ) from error
    if not np.isfinite(numbers).all():
        raise LamellaError(path, f"its column {name} has empty cells", "Give every tile its place.")
    return pa.array(numbers)
