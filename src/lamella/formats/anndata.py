"""Tile features as AnnData: one `.h5ad` a slide, as scanpy, squidpy and LazySlide read it.

X holds the features, `obsm["spatial"]` the centres of the tiles in level-0 pixels, `obs` slide, row and corner.
`uns["spatial"]` is squidpy's (a tile is drawn as a spot of `spot_diameter_fullres` pixels), `uns["spatialdata_attrs"]`
is SpatialData's and LazySlide's: the columns that tie a row to its tile. `uns["lamella"]` states mpp, size and encoder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lamella.errors import LamellaError, MissingExtraError
from lamella.formats.atomic import whole_file
from lamella.formats.placed_tiles import PlacedTiles

_REGION, _INSTANCE = "slide_id", "tile_id"


def write_anndata(path: Path | str, tiles: PlacedTiles) -> None:
    """Write a slide's features, whole or not at all; they are held in memory.

    Args:
        path: `.h5ad`.
        tiles: With features and micrometres.

    Raises:
        LamellaError: The tiles have no features.
        MissingExtraError: anndata is not installed.
        SlideError: A feature is not a number.
        StorageError: The disk refused the write.
    """
    try:
        import anndata  # type: ignore[import-untyped]
        import pandas  # type: ignore[import-untyped]
    except ImportError as error:
        raise MissingExtraError("anndata", "spatial") from error
    if tiles.features is None:
        raise LamellaError(tiles.source, "it has no features", "Give features; a tile table is exported with to=csv.")
    obs = pandas.DataFrame(
        {
            _REGION: pandas.Categorical([tiles.name] * len(tiles), categories=[tiles.name]),
            _INSTANCE: np.arange(len(tiles)),
            "x_px0": tiles.places_px0[:, 0].astype(np.float64),
            "y_px0": tiles.places_px0[:, 1].astype(np.float64),
            **tiles.columns,
        },
        index=[str(row) for row in range(len(tiles))],
    )
    data = anndata.AnnData(
        X=tiles.features.whole(tiles.source),
        obs=obs,
        obsm={"spatial": tiles.places_px0 + tiles.side / 2},
        uns=_uns(tiles),
    )
    with whole_file(path) as part:
        data.write_h5ad(part)


def _uns(tiles: PlacedTiles) -> dict[str, Any]:
    lamella: dict[str, Any] = {
        **tiles.own,
        "mpp": tiles.mpp,
        "fov_um": tiles.side * tiles.mpp0,
        "tile_px": tiles.pixels,
        "side_px0": tiles.side,
        "level0_mpp": tiles.mpp0,
    }
    if tiles.level0_size_px is not None:
        lamella["level0_width_px"], lamella["level0_height_px"] = tiles.level0_size_px
    scales = {"spot_diameter_fullres": tiles.side, "tissue_hires_scalef": 1.0}
    return {
        "lamella": lamella,
        "spatial": {tiles.name: {"images": {}, "scalefactors": scales}},
        "spatialdata_attrs": {"region": tiles.name, "region_key": _REGION, "instance_key": _INSTANCE},
    }
