"""Where spots lie: a CSV or TSV with a name and a place in pixels of the image for each.

Shapes: N spots.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from lamella.errors import first_line
from lamella.formats.feature_names import listed
from lamella.formats.sparse_counts import damaged
from lamella.formats.spatial_counts import ExpressionError
from lamella.formats.tables import read_csv

# What the columns are called: ours, and those of the ST spot detector and of published tables.
_IDS = ("id", "spot", "spot_id", "barcode")
_X_PX, _Y_PX = ("px", "pixel_x", "x_px0", "pxl_col_in_fullres"), ("py", "pixel_y", "y_px0", "pxl_row_in_fullres")
_ARRAY_X, _ARRAY_Y = ("array_x", "x", "array_col"), ("array_y", "y", "array_row")


def read_spot_places(path: Path) -> tuple[list[str], np.ndarray, np.ndarray | None]:
    """Read the places of spots.

    Returns:
        N names, (N, 2) float64 x and y in pixels of the image, and (N, 2) int32 rows and columns of the array where
        they are whole.

    Raises:
        ExpressionError: A column is missing, a value is no number, or a spot stands twice.
    """
    delimiter = "\t" if ".tsv" in path.name else ","
    rows = _table_rows(path, delimiter)
    columns = list(rows[0])

    def column(names: tuple[str, ...]) -> str | None:
        return next((name for name in names if name in columns), None)

    own, x_px, y_px = column(_IDS), column(_X_PX), column(_Y_PX)
    array_x, array_y = column(_ARRAY_X), column(_ARRAY_Y)
    if x_px is None or y_px is None:
        # mistake: numbers of the array taken for places; the array lies as it was put on the glass
        raise ExpressionError(
            path,
            f"it has no places in pixels of the image ({_X_PX[0]} and {_Y_PX[0]}), only {', '.join(columns)}",
            "Add them, as the spot detector measured them.",
        )
    array: np.ndarray | None = None
    names: list[str] = []
    if array_x is not None and array_y is not None:
        array = _numbers(path, rows, array_y, array_x)
        names = [f"{row[array_x]}x{row[array_y]}" for row in rows]
    if own is not None:
        names = [row[own] for row in rows]
    if not names:
        raise ExpressionError(path, f"it has no column that names the spots ({_IDS[0]})", "Add it.")
    repeated = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if repeated:
        raise ExpressionError(path, f"{len(repeated)} spots stand twice: {listed(repeated)}", "Give each spot once.")
    if array is not None:  # of the spot detector they are fractional: no lattice
        array = np.rint(array).astype(np.int32) if np.array_equal(array, np.rint(array)) else None
    return names, _numbers(path, rows, x_px, y_px), array


def _table_rows(path: Path, delimiter: str) -> list[dict[str, str]]:
    if delimiter == ",":
        rows = read_csv(path)
    else:
        table = text_table(path, delimiter)
        texts = [[str(value) for value in column.to_pylist()] for column in table.columns]
        rows = [dict(zip(table.column_names, values, strict=True)) for values in zip(*texts, strict=True)]
    if not rows:
        raise ExpressionError(path, "it lists no spot", "Give the table of the section's spots.")
    return rows


def _numbers(path: Path, rows: list[dict[str, str]], *columns: str) -> np.ndarray:
    try:
        values = np.array([[float(row[column]) for column in columns] for row in rows])
    except ValueError as error:
        raise ExpressionError(
            path, f"{' or '.join(columns)} is no number ({first_line(error)})", "Correct the table."
        ) from error
    if not np.isfinite(values).all():
        raise ExpressionError(path, f"{' or '.join(columns)} is not finite", "Correct the table.")
    return values


def text_table(path: Path, delimiter: str) -> pa.Table:
    """A CSV or TSV, packed or not, with a header.

    Raises:
        ExpressionError: It is missing or no table.
    """
    try:
        return pa_csv.read_csv(
            path,
            parse_options=pa_csv.ParseOptions(delimiter=delimiter),
            read_options=pa_csv.ReadOptions(block_size=2**26),  # a line of 30,000 genes must fit
        )
    except FileNotFoundError as error:
        raise ExpressionError(path, "the file does not exist", "Correct the path.") from error
    except (OSError, pa.ArrowException) as error:
        raise damaged(path, first_line(error)) from error
