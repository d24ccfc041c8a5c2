"""Visium (spots of 55 um, 100 um apart) as Space Ranger writes it: a matrix, and the folder `spatial`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lamella.formats.lattice import agreed_mpp, fit_lattice
from lamella.formats.placed_matrix import read_placed
from lamella.formats.spatial_counts import ExpressionError, SpatialCounts
from lamella.formats.tissue_positions import FILES, Positions, positions_file
from lamella.formats.visium_hd import Matrix, matrix_file, read_scales
from lamella.geometry import BinGrid

SPOT_UM = 55.0
PITCH_UM = 100.0
# Space Ranger: `spot_diameter_fullres` is the diameter of a theoretical spot of 65 um, for drawing.
_DRAWN_UM = 65.0
# A hexagonal array: columns are numbered by halves of the pitch, rows are the pitch times the root of 3/4 apart.
_COLUMN_UM, _ROW_UM = PITCH_UM / 2, PITCH_UM * 0.75**0.5


def is_visium_spots(path: Path) -> bool:
    """Whether the path is a run of Visium with spots."""
    return path.is_dir() and any((path / "spatial" / name).is_file() for name in FILES)


def read_visium_spots(
    folder: Path | str,
    *,
    mpp: float | tuple[float, float] | None = None,
    genes: Sequence[str] | None = None,
    matrix: Matrix = "filtered",
    name: str | None = None,
) -> SpatialCounts:
    """Read the spots of a run.

    Args:
        folder: The run's `outs`.
        mpp: Micrometres per pixel of the full-resolution image as the image says; the run's scale file says it too, and
            both must agree with the spots' distances.
        genes: Only these; all, if None.
        matrix: `filtered` has the spots that the vendor saw tissue under, `raw` all.
        name: Of the slide; the folder's, if None.

    Raises:
        ExpressionError: A file is missing or damaged, matrix and positions disagree, the spots lie on no array, or
            micrometres per pixel are missing or contradict the spots' distances.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ExpressionError(folder, "there is no such folder", "Correct the path.")
    scales = read_scales(folder / "spatial" / "scalefactors_json.json")

    def fit(chip: Positions) -> BinGrid:
        # In units of the pitch rows and columns are a square lattice, so that one fit serves bins and spots.
        square = chip.array_rc * [_ROW_UM / PITCH_UM, _COLUMN_UM / PITCH_UM]
        return fit_lattice(chip.source, square, chip.places_px0, PITCH_UM)

    placed = read_placed(matrix_file(folder, matrix), positions_file(folder / "spatial"), fit, genes)
    read = placed.read
    drawn_px = scales.get("spot_diameter_fullres")
    own = None if drawn_px is None else _DRAWN_UM / float(drawn_px)
    return SpatialCounts(
        name=name or (folder.parent if folder.name == "outs" else folder).absolute().name,
        source=folder,
        counts=read.counts,
        genes=read.genes,
        places_px0=placed.places_px0,
        shape="spot",
        size_um=SPOT_UM,
        mpp=agreed_mpp(folder, placed.grid, mpp, own),
        barcodes=read.barcodes,
        array_rc=placed.array_rc,
        flagged=placed.flagged,
        gene_ids=read.ids,
        all_measured=matrix == "raw" or placed.all_flagged,
        notes=read.notes,
    )
