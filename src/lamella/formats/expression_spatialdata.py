"""Measured expression as SpatialData (`.zarr`), in and out, through the library of that name (extra `spatialdata`).

A table of counts annotates shapes: circles for spots, squares for bins, in pixels of the full-resolution image, which
is the coordinate system `global` or, of spatialdata-io's newer stores, the one named after the slide.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from lamella.errors import MissingExtraError, first_line
from lamella.formats.expression_anndata import expression_of_anndata
from lamella.formats.expression_h5ad import lattice_facts
from lamella.formats.placed_tiles import DAMAGE
from lamella.formats.sparse_counts import damaged
from lamella.formats.spatial_counts import ExpressionError, SpatialCounts
from lamella.formats.visium_spots import SPOT_UM

EXTRA = "spatialdata"
GLOBAL = "global"
_SMALLER = "downscaled"  # spatialdata-io's name for the systems of the smaller images

_REGION, _INSTANCE = "region", "instance_id"
_SQUARE = re.compile(r"(?:^|_)square_(\d+)um$")
_UNFIT = re.compile(r"[^\w.-]")  # what names of elements may not hold


def is_spatialdata(path: Path) -> bool:
    """Whether the path is a store of SpatialData, by what its metadata say."""
    for name in ("zarr.json", ".zattrs"):
        if path.is_dir() and (path / name).is_file():
            try:
                attributes = json.loads((path / name).read_text(encoding="utf-8"))
            except (OSError, ValueError):
                return False
            return "spatialdata_attrs" in attributes.get("attributes", attributes)
    return False


@contextmanager
def _library() -> Iterator[Any]:
    """The library, quiet about what it thinks of other libraries."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import spatialdata  # type: ignore[import-not-found]
        except ImportError as error:
            raise MissingExtraError("spatialdata", EXTRA) from error
        yield spatialdata


def read_expression_spatialdata(
    path: Path | str,
    *,
    mpp: float | tuple[float, float] | None = None,
    bin_um: float | None = None,
    table: str | None = None,
    name: str | None = None,
) -> SpatialCounts:
    """Read one table of a store.

    Args:
        path: `.zarr`.
        mpp: Micrometres per pixel of the full-resolution image.
        bin_um: Which bins, where the store has several sizes; the finest, if None.
        table: Which table; None: by `bin_um`.
        name: Of the slide; the store's, if None.

    Raises:
        ExpressionError: The store is damaged, has no such table, or its places cannot be told.
        MissingExtraError: spatialdata is not installed.
    """
    path = Path(path)
    with _library() as library:
        try:
            store = library.read_zarr(path)
        except DAMAGE as error:
            raise damaged(path, first_line(error)) from error
        found = {key: _places(path, library, store, key) for key in _chosen(path, store, table)}
    sizes = {key: places[1] for key, places in found.items()}
    wanted = [key for key, side in sizes.items() if bin_um is None or _divides(side.get("size_um"), bin_um)]
    if not wanted:
        raise ExpressionError(
            path,
            f"none of its tables ({', '.join(sizes)}) has bins of {bin_um:g} um, or of a size that divides it",
            "Set data.bin_um to a size that is there.",
        )

    def size(key: str) -> float:
        return float(sizes[key].get("size_um", np.inf))

    # Without a wish the finest; with one the largest that divides it, so that little is left to be pooled.
    key = min(wanted, key=size) if bin_um is None else max(wanted, key=size)
    places_px0, facts = found[key]
    return expression_of_anndata(
        path, store.tables[key], mpp=mpp, name=name or path.stem, places_px0=places_px0, own_facts=facts
    )


def _chosen(path: Path, store: Any, table: str | None) -> list[str]:
    names = [key for key, data in store.tables.items() if "spatialdata_attrs" in data.uns]
    if table is not None:
        names = [key for key in names if key == table]
    if not names:
        raise ExpressionError(
            path,
            f"it has no table {table or ''} that annotates places (tables: {', '.join(store.tables) or 'none'})",
            "Give a store with counts of bins or spots.",
        )
    return names


def _divides(side: Any, bin_um: float) -> bool:
    if side is None:
        return False
    ratio = bin_um / float(side)
    return ratio > 1 - 1e-6 and abs(ratio - round(ratio)) < 1e-6


def _places(path: Path, library: Any, store: Any, key: str) -> tuple[np.ndarray, dict[str, Any]]:
    """(N, 2) x and y of a table's rows in level-0 pixels, and shape, size_um and mpp as far as they are known."""
    data = store.tables[key]
    attributes = data.uns["spatialdata_attrs"]
    regions = np.unique(np.asarray(attributes["region"], str))
    if len(regions) != 1 or str(regions[0]) not in store.shapes:
        raise ExpressionError(
            path,
            f"table {key} annotates {', '.join(regions)}, which is not one set of shapes",
            "Give one slide a store.",
        )
    shapes = store.shapes[str(regions[0])]
    shapes = library.transform(shapes, to_coordinate_system=_pixels(path, library, shapes))
    wanted = data.obs[attributes["instance_key"]].to_numpy()
    absent = sorted(set(wanted.tolist()) - set(shapes.index.tolist()), key=str)
    if absent:
        raise ExpressionError(
            path, f"{len(absent)} rows of table {key} have no shape, such as {absent[0]}", "Write the store again."
        )
    shapes = shapes.loc[wanted]
    centres = shapes.geometry.centroid
    places = np.stack([centres.x.to_numpy(), centres.y.to_numpy()], 1)
    own = data.uns.get("lamella")
    if isinstance(own, dict) and "size_um" in own:
        return places, dict(own)
    side_um = _side_um(str(regions[0]))
    if side_um is not None:
        return places, {"shape": "bin", "size_um": side_um}
    if "radius" in shapes:
        # Visium's circles: their diameter is the spot's, as spatialdata-io takes it from the scale file.
        return places, {"shape": "spot", "size_um": SPOT_UM}
    raise ExpressionError(
        path, f"nothing says of which size the places of table {key} are", 'Set uns["lamella"] of the table.'
    )


def _pixels(path: Path, library: Any, shapes: Any) -> str:
    """The coordinate system of the full-resolution image's pixels.

    It is `global` in the library's default and in older stores of spatialdata-io; newer ones name it after the slide,
    beside those of the smaller images.
    """
    systems = list(library.transformations.get_transformation(shapes, get_all=True))
    whole = [system for system in systems if _SMALLER not in system]
    if GLOBAL in whole:
        return GLOBAL
    if len(whole) != 1:
        raise ExpressionError(
            path,
            f"which of its coordinate systems ({', '.join(systems)}) holds full-resolution pixels is not said",
            f"Name that one {GLOBAL}.",
        )
    return str(whole[0])


def _side_um(region: str) -> float | None:
    """Of spatialdata-io's names: `<slide>_square_008um`."""
    found = _SQUARE.search(region)
    return float(found[1]) if found else None


def write_expression_spatialdata(path: Path | str, counts: SpatialCounts) -> None:
    """Write a store with one table and its shapes.

    Args:
        path: `.zarr`; must not be there.
        counts: Of one slide.

    Raises:
        ExpressionError: The path is taken.
        MissingExtraError: spatialdata is not installed.
    """
    path = Path(path)
    if path.exists():
        raise ExpressionError(path, "it is there already", "Choose another path, or remove it.")
    with _library() as library:
        import anndata  # type: ignore[import-untyped]
        import pandas  # type: ignore[import-untyped]

        key = f"square_{counts.size_um:03g}um" if counts.grid is not None else "spots"
        region = f"{_UNFIT.sub('_', counts.name)}_{key}"
        columns: dict[str, Any] = {
            _REGION: pandas.Categorical([region] * len(counts), categories=[region]),
            _INSTANCE: np.arange(len(counts)),
        }
        if counts.array_rc is not None:
            columns |= {"array_row": counts.array_rc[:, 0], "array_col": counts.array_rc[:, 1]}
        if counts.flagged is not None:
            columns["in_tissue"] = counts.flagged
        facts = {"shape": counts.shape, "size_um": counts.size_um, "mpp": counts.mpp, "slide": counts.name}
        if counts.grid is not None:
            facts |= lattice_facts(counts.grid, counts.mpp)
        var = pandas.DataFrame({"gene_ids": counts.gene_ids} if counts.gene_ids else {}, index=list(counts.genes))
        data = anndata.AnnData(
            counts.counts, pandas.DataFrame(columns, index=counts.names), var, uns={"lamella": facts},
            obsm={"spatial": counts.places_px0},
        )  # fmt: skip
        parse = library.models.TableModel.parse
        table = parse(data, region=region, region_key=_REGION, instance_key=_INSTANCE)
        library.SpatialData(shapes={region: _shapes(library, counts)}, tables={key: table}).write(path)


def _shapes(library: Any, counts: SpatialCounts) -> Any:
    """Circles of spots, or squares along the lattice."""
    if counts.grid is None:
        radius = counts.size_um / 2 / counts.mpp
        return library.models.ShapesModel.parse(counts.places_px0, geometry=0, radius=radius)
    import geopandas  # type: ignore[import-untyped]
    import shapely  # type: ignore[import-untyped]

    row, col = np.array(counts.grid.row_step_px0) / 2, np.array(counts.grid.col_step_px0) / 2
    around = np.stack([-row - col, -row + col, row + col, row - col])
    squares = shapely.polygons(counts.places_px0[:, None] + around[None])
    return library.models.ShapesModel.parse(geopandas.GeoDataFrame(geometry=squares))
