"""Where the barcodes of a chip lie on the image: Space Ranger's tissue_positions, as Parquet or CSV.

Columns: barcode, in_tissue, array_row, array_col, pxl_row_in_fullres (y), pxl_col_in_fullres (x). The Parquet file
(Visium HD) and `tissue_positions.csv` (Space Ranger 2) name them, `tissue_positions_list.csv` (Space Ranger 1) does
not. Source: 10x Genomics, "Spatial outputs".
Shapes: P positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from lamella.errors import first_line
from lamella.formats.spatial_counts import ExpressionError
from lamella.formats.tables import read_parquet

FILES = ("tissue_positions.parquet", "tissue_positions.csv", "tissue_positions_list.csv")
_LARGEST_CHIP = 10**9  # places; a chip of Visium HD has 11 million
_PLACES = ("pxl_row_in_fullres", "pxl_col_in_fullres")
_TYPES = {
    "barcode": pa.string(),
    "in_tissue": pa.int32(),
    "array_row": pa.int32(),
    "array_col": pa.int32(),
    **dict.fromkeys(_PLACES, pa.float64()),
}


@dataclass(frozen=True)
class Positions:
    """Positions of a chip.

    Attributes:
        source: Their file.
        barcodes: P names, as the file has them.
        flagged: (P,) bool, the vendor's `in_tissue`.
        array_rc: (P, 2) int32 row and column on the chip.
        places_px0: (P, 2) float64 x and y in pixels of the full-resolution image.
    """

    source: Path
    barcodes: pa.ChunkedArray
    flagged: np.ndarray
    array_rc: np.ndarray
    places_px0: np.ndarray

    @property
    def extent_rc(self) -> tuple[int, int, int, int]:
        """First row and column, and those behind the last ones."""
        (row, col), (last_row, last_col) = self.array_rc.min(0).tolist(), self.array_rc.max(0).tolist()
        return row, col, last_row + 1, last_col + 1


def positions_file(folder: Path) -> Path:
    """The positions in a folder `spatial`.

    Raises:
        ExpressionError: There are none.
    """
    for name in FILES:
        if (folder / name).is_file():
            return folder / name
    raise ExpressionError(folder, f"it has none of {', '.join(FILES)}", "Copy the folder `spatial` of the run, whole.")


def read_positions(path: Path | str) -> Positions:
    """Read positions.

    Raises:
        ExpressionError: The file is missing or damaged, lacks a column or a value, or names a barcode twice.
    """
    path = Path(path)
    table = _parquet(path) if path.suffix == ".parquet" else _csv(path)
    _refuse_columns(path, table.column_names)
    try:
        table = table.select(list(_TYPES)).cast(pa.schema(list(_TYPES.items())))
    except pa.ArrowException as error:
        raise ExpressionError(
            path, f"a column is not what it should be ({first_line(error)})", "Copy it anew."
        ) from error
    empty = [name for name in _TYPES if table[name].null_count]
    if empty or not len(table):
        what = f"values are missing in {', '.join(empty)}" if empty else "it lists no position"
        raise ExpressionError(path, what, "Copy it anew from the run.")
    y, x = (table[name].to_numpy() for name in _PLACES)
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ExpressionError(path, "a position is not a finite number", "Copy it anew from the run.")
    array_rc = np.stack([table["array_row"].to_numpy(), table["array_col"].to_numpy()], 1)
    _refuse_shared(path, array_rc)
    flagged = table["in_tissue"].to_numpy() != 0
    return Positions(path, table["barcode"], flagged, array_rc, np.stack([x, y], 1))


def _refuse_shared(path: Path, array_rc: np.ndarray) -> None:
    """Two positions at one row and column would be taken for one another."""
    first, last = array_rc.min(0).astype(np.int64), array_rc.max(0).astype(np.int64)
    rows, cols = (last - first + 1).tolist()
    if rows * cols > _LARGEST_CHIP:
        raise ExpressionError(
            path, f"its rows and columns span {rows} x {cols}, more than any chip has", "Copy it anew."
        )
    taken = np.zeros((rows, cols), bool)
    taken[array_rc[:, 0] - first[0], array_rc[:, 1] - first[1]] = True
    if np.count_nonzero(taken) < len(array_rc):
        raise ExpressionError(path, "two positions have the same row and column", "Give the positions of one run.")


def _parquet(path: Path) -> pa.Table:
    try:
        return read_parquet(path)
    except UnicodeDecodeError as error:  # of damaged names of columns
        raise ExpressionError(path, f"it cannot be read as Parquet ({error})", "Copy it anew from the run.") from error


def _csv(path: Path) -> pa.Table:
    try:
        with open(path, "rb") as file:
            headed = file.read(64).lstrip(b"\xef\xbb\xbf").lstrip(b'"').startswith(b"barcode")
        names = None if headed else list(_TYPES)
        return pa_csv.read_csv(path, read_options=pa_csv.ReadOptions(column_names=names))
    except FileNotFoundError as error:
        raise ExpressionError(path, "the file does not exist", "Correct the path.") from error
    except (OSError, pa.ArrowException) as error:
        raise ExpressionError(
            path, f"it cannot be read as a table ({first_line(error)})", "Copy it anew from the run."
        ) from error


def _refuse_columns(path: Path, names: list[str]) -> None:
    missing = [name for name in _TYPES if name not in names]
    if set(missing) & set(_PLACES):
        # mistake: rows and columns of the array taken for places. A chip lies mirrored and turned under the tissue.
        raise ExpressionError(
            path,
            f"it has no {', '.join(name for name in missing if name in _PLACES)}: rows and columns of the chip do not "
            "say where it lies on the image, as it may be mirrored and turned",
            "Give tissue_positions as Space Ranger writes it, with positions in the full-resolution image.",
        )
    if missing:
        raise ExpressionError(path, f"it has no column {', '.join(missing)}", "Give it as Space Ranger writes it.")
