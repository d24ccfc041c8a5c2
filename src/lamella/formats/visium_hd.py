"""Visium HD as Space Ranger writes it: `binned_outputs/square_{002,008,016}um`.

Of each bin size: `filtered_feature_bc_matrix.h5` (or the folder of that name), `spatial/tissue_positions.parquet` and
`spatial/scalefactors_json.json`. Places come from tissue_positions alone: the chip lies mirrored and turned by about a
degree under the tissue. Source of the layout: 10x Genomics, "Visium HD outputs".
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from lamella.errors import first_line
from lamella.formats.lattice import agreed_mpp, fit_lattice
from lamella.formats.placed_matrix import read_placed
from lamella.formats.spatial_counts import ExpressionError, SpatialCounts
from lamella.formats.tissue_positions import Positions, positions_file
from lamella.geometry import BinGrid

Matrix = Literal["filtered", "raw"]

_SQUARE = re.compile(r"square_(\d{3})um")
_SCALES = "scalefactors_json.json"


def read_visium_hd(
    folder: Path | str,
    *,
    bin_um: float | None = None,
    mpp: float | tuple[float, float] | None = None,
    genes: Sequence[str] | None = None,
    matrix: Matrix = "filtered",
    name: str | None = None,
) -> SpatialCounts:
    """Read the bins of one size.

    Args:
        folder: A `square_XXXum`, the `binned_outputs` that has several, or the run's `outs`.
        bin_um: Which size; the finest, if None. A size that is not there is read from the largest one that divides it,
            to be pooled by the caller.
        mpp: Micrometres per pixel of the full-resolution image as the image says (x and y, or one number); the run's
            scale file says it too, and both must agree with the bins.
        genes: Only these; all, if None.
        matrix: `filtered` has the bins that the vendor saw tissue under, `raw` all.
        name: Of the slide; the folder's, if None.

    Raises:
        ExpressionError: A file is missing or damaged, matrix and positions disagree, the places lie on no lattice, or
            micrometres per pixel are missing or contradict the bins.
    """
    folder = Path(folder)
    square = square_folder(folder, bin_um)
    scales = read_scales(square / "spatial" / _SCALES)
    side_um = bin_side_um(square, scales)

    def fit(chip: Positions) -> BinGrid:
        return fit_lattice(chip.source, chip.array_rc, chip.places_px0, side_um)

    placed = read_placed(matrix_file(square, matrix), positions_file(square / "spatial"), fit, genes)
    read, notes = placed.read, placed.read.notes
    if matrix == "filtered" and not placed.all_flagged:
        notes += ("the matrix is filtered: of bins where the vendor saw no tissue nothing is known, which is not zero",)
    return SpatialCounts(
        name=name or _name(folder),
        source=square,
        counts=read.counts,
        genes=read.genes,
        places_px0=placed.places_px0,
        shape="bin",
        size_um=side_um,
        mpp=agreed_mpp(square, placed.grid, mpp, scales.get("microns_per_pixel")),
        barcodes=read.barcodes,
        array_rc=placed.array_rc,
        grid=placed.grid,
        flagged=placed.flagged,
        gene_ids=read.ids,
        captured_rc=placed.extent_rc,
        all_measured=matrix == "raw" or placed.all_flagged,
        notes=notes,
    )


def is_visium_hd(path: Path) -> bool:
    """Whether the path is one of the folders that `read_visium_hd` takes."""
    return path.is_dir() and bool(_squares(path))


def _squares(folder: Path) -> dict[int, Path]:
    """Side in micrometres -> folder."""
    own = _SQUARE.fullmatch(folder.name)
    if own:
        return {int(own[1]): folder}
    for place in (folder, folder / "binned_outputs", folder / "outs" / "binned_outputs"):
        found = {
            int(match[1]): child
            for child in (sorted(place.iterdir()) if place.is_dir() else ())
            if (match := _SQUARE.fullmatch(child.name)) and child.is_dir()
        }
        if found:
            return found
    return {}


def square_folder(folder: Path, bin_um: float | None) -> Path:
    """The folder of a bin size, or of the largest one that divides it.

    Raises:
        ExpressionError: There is none.
    """
    if not folder.exists():
        raise ExpressionError(folder, "there is no such folder", "Correct the path.")
    squares = _squares(folder)
    if not squares:
        raise ExpressionError(
            folder,
            "it is no Visium HD output: it has no square_002um, square_008um or square_016um",
            "Give binned_outputs, the run's outs, or one square_XXXum.",
        )
    if bin_um is None:
        return squares[min(squares)]
    dividing = [side for side in squares if abs(bin_um / side - round(bin_um / side)) < 1e-6 and side <= bin_um + 1e-6]
    if not dividing:
        there = ", ".join(f"{side} um" for side in sorted(squares))
        raise ExpressionError(
            folder,
            f"bins of {bin_um:g} um are no multiple of its bins of {there}",
            "Set data.bin_um to a whole multiple of a size that is there.",
        )
    return squares[max(dividing)]


def matrix_file(folder: Path, matrix: Matrix) -> Path:
    """The matrix of a folder: the `.h5`, or the folder of the same name.

    Raises:
        ExpressionError: There is none.
    """
    path = folder / f"{matrix}_feature_bc_matrix.h5"
    if path.is_file():
        return path
    if path.with_suffix("").is_dir():
        return path.with_suffix("")
    raise ExpressionError(folder, f"it has no {path.name}, nor a folder {path.stem}", "Copy the run's folder whole.")


def read_scales(path: Path) -> dict[str, Any]:
    """The numbers of scalefactors_json.json.

    Raises:
        ExpressionError: The file is missing or no JSON object.
    """
    try:
        scales = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ExpressionError(
            path, "the file does not exist", "Copy the folder `spatial` of the run, whole."
        ) from error
    except (OSError, ValueError) as error:
        raise ExpressionError(path, f"it cannot be read as JSON ({first_line(error)})", "Copy it anew.") from error
    if not isinstance(scales, dict):
        raise ExpressionError(path, "it is no JSON object", "Copy it anew from the run.")
    wrong = [key for key, value in scales.items() if not isinstance(value, int | float) or not value > 0]
    if wrong:
        raise ExpressionError(path, f"{wrong[0]} is {scales[wrong[0]]!r}, no size", "Copy it anew from the run.")
    return scales


def bin_side_um(square: Path, scales: dict[str, Any]) -> float:
    """Side of the bins, on which name and scale file must agree.

    Raises:
        ExpressionError: They do not.
    """
    named = _SQUARE.fullmatch(square.name)
    said = scales.get("bin_size_um", None if named is None else int(named[1]))
    if named is None or said != int(named[1]):
        raise ExpressionError(
            square,
            f"its {_SCALES} is of bins of {said} um",
            "Give the folder under the name that Space Ranger gave it.",
        )
    return float(said)


def _name(folder: Path) -> str:
    """A name for people: the first part of the path that is none of Space Ranger's own."""
    own = ("binned_outputs", "outs", "spatial")
    parts = [part for part in reversed(folder.absolute().parts) if part not in own and not _SQUARE.fullmatch(part)]
    return parts[0]
