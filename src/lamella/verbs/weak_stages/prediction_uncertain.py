"""The active-learning list of stage 5: of all predicted slides, the tiles where the model is least sure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lamella.formats.geojson import GeoObject, write_geojson
from lamella.formats.tables import read_parquet, write_csv
from lamella.verbs.weak_stages.prediction_outputs import DOUBTS
from lamella.verbs.weak_stages.prediction_settings import UncertainSettings

UNCERTAIN, OUTLINES = "uncertain_tiles.csv", "uncertain_tiles.geojson"
_CLASS = "Uncertain"  # in QuPath: outlines of tiles must not look like those of tissue
_COLUMNS = ("slide_id", "x_px0", "y_px0", "fov_um", "mpp", "margin", "entropy", "likeliest")


def write_uncertain(folder: Path, slides: Sequence[Mapping[str, Any]], settings: UncertainSettings) -> int:
    """Write the list, a tile table, the least sure first, and its tiles as outlines in each slide's folder.

    Nothing is written where the list would be empty; what an earlier run listed is replaced.

    Args:
        folder: Of the predictions; each slide's folder has its tiles.
        slides: metadata.json of each finished slide.
        settings: How many, by what.

    Returns:
        How many tiles it has.

    Raises:
        LamellaError: A slide's table of tiles is missing or damaged.
        StorageError: The disk refused the write.
    """
    tables = [_first(read_parquet(folder / slide["slide_id"] / DOUBTS, _COLUMNS), settings) for slide in slides]
    listed = pa.concat_tables(tables) if tables else pa.table({name: [] for name in _COLUMNS})
    listed = listed.take(_order(listed, settings.by)[: settings.count])
    _write_outlines(folder, slides, listed)
    if listed.num_rows:
        write_csv(folder / UNCERTAIN, listed.to_pylist(), list(_COLUMNS))
    else:
        (folder / UNCERTAIN).unlink(missing_ok=True)
    return int(listed.num_rows)


def _first(table: pa.Table, settings: UncertainSettings) -> pa.Table:
    """The tiles of one slide that may be listed."""
    most = min(settings.count, settings.most_per_slide or settings.count)
    return table.take(_order(table, settings.by)[:most])


def _order(table: pa.Table, by: str) -> np.ndarray:
    """Rows from the least sure on; equal ones as they stand."""
    values = table.column(by).to_numpy()
    order: np.ndarray = np.argsort(values if by == "margin" else -values, kind="stable")
    return order


def _write_outlines(folder: Path, slides: Sequence[Mapping[str, Any]], listed: pa.Table) -> None:
    """The listed tiles of each slide for QuPath, where it has some."""
    ids = np.array(listed.column("slide_id").to_pylist())
    for slide in slides:
        path, rows = folder / slide["slide_id"] / OUTLINES, np.flatnonzero(ids == slide["slide_id"])
        if not len(rows):
            path.unlink(missing_ok=True)
            continue
        mpp = np.array(slide["slide_mpp"])
        write_geojson(path, [_outline(row, mpp) for row in listed.take(rows).to_pylist()])


def _outline(row: Mapping[str, Any], mpp: np.ndarray) -> GeoObject:
    corner = np.array([row["x_px0"], row["y_px0"]])
    square = corner + np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * (row["fov_um"] / mpp)
    return GeoObject(
        polygons=((square,),),
        name=f"{row['likeliest']}?",
        classification=_CLASS,
        measurements={"Margin": row["margin"], "Entropy": row["entropy"]},
    )
