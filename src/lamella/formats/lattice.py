"""The lattice that bins lie on, fitted to where they lie: any origin, turned, mirrored.

Shapes: P places.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from lamella.formats.spatial_counts import ExpressionError
from lamella.geometry import BinGrid

# A place may lie so far from the fitted lattice, in bins: beyond it a bin could be taken for its neighbour.
_FARTHEST_BINS = 0.5
# The image's own micrometres per pixel and those that follow from the bins may differ so much: scanners state theirs
# to a few percent; the wrong image or pyramid level is off by far more.
MPP_TOLERANCE = 0.05
# Rows and columns are at right angles and of one length; so much is left to lenses and non-square pixels.
_SKEW = 0.05
_AT_ONCE = 2**18  # places whose residuals are computed together: a few megabytes


def fit_lattice(source: Path | str, array_rc: np.ndarray, places_px0: np.ndarray, bin_um: float) -> BinGrid:
    """Fit place = origin + row * row_step + col * col_step by least squares.

    Args:
        source: For messages.
        array_rc: (P, 2) rows and columns on the chip.
        places_px0: (P, 2) x and y, in level-0 pixels.
        bin_um: Side of a bin.

    Raises:
        ExpressionError: There are too few places to know, or they lie on no lattice.
    """
    middle_rc, middle_px0 = array_rc.mean(0), places_px0.mean(0)
    # Normal equations over pieces, about the middle so that they are well conditioned.
    square_22, product_22 = np.zeros((2, 2)), np.zeros((2, 2))
    for piece in _pieces(len(array_rc)):
        rc = array_rc[piece] - middle_rc
        square_22 += rc.T @ rc
        product_22 += rc.T @ (places_px0[piece] - middle_px0)
    if np.linalg.matrix_rank(square_22) < 2:
        raise ExpressionError(
            source,
            f"its {len(array_rc)} places lie on one line of the chip, which leaves open how the chip lies",
            "Give the positions of the whole chip.",
        )
    steps_22 = np.linalg.solve(square_22, product_22)  # rows: of a row, of a column; columns: x, y
    origin = middle_px0 - middle_rc @ steps_22
    row, col = (float(steps_22[0, 0]), float(steps_22[0, 1])), (float(steps_22[1, 0]), float(steps_22[1, 1]))
    grid = BinGrid((float(origin[0]), float(origin[1])), row, col, bin_um)
    _refuse_crooked(source, grid, _farthest(grid, array_rc, places_px0))
    return grid


def _pieces(length: int) -> list[slice]:
    return [slice(first, first + _AT_ONCE) for first in range(0, length, _AT_ONCE)]


def _farthest(grid: BinGrid, array_rc: np.ndarray, places_px0: np.ndarray) -> float:
    """How far a place is from its bin at most, in level-0 pixels."""
    farthest = 0.0
    for piece in _pieces(len(array_rc)):
        x, y = grid.place_px0(array_rc[piece, 0], array_rc[piece, 1])
        farthest = max(farthest, float(np.hypot(x - places_px0[piece, 0], y - places_px0[piece, 1]).max()))
    return farthest


def _refuse_crooked(source: Path | str, grid: BinGrid, farthest_px: float) -> None:
    row_px, col_px = math.hypot(*grid.row_step_px0), math.hypot(*grid.col_step_px0)
    # mistake: places guessed from rows and columns although the chip is mirrored or turned
    if min(row_px, col_px) <= 0 or farthest_px > _FARTHEST_BINS * min(row_px, col_px):
        raise ExpressionError(
            source,
            f"its places lie on no lattice of rows and columns: one is {farthest_px:.3g} px from where its row and "
            f"column would be, and a bin has {min(row_px, col_px):.3g} px",
            "Give rows, columns and positions of the same run; a mirrored or turned chip needs its own positions.",
        )
    cosine = sum(a * b for a, b in zip(grid.row_step_px0, grid.col_step_px0, strict=True)) / (row_px * col_px)
    if abs(cosine) > _SKEW or abs(row_px / col_px - 1) > _SKEW:
        raise ExpressionError(
            source,
            f"its bins are no squares on the image: {row_px:.4g} x {col_px:.4g} px, "
            f"{math.degrees(math.acos(cosine)):.1f} degrees between rows and columns",
            "Check which of the columns are rows, x and y.",
        )


def agreed_mpp(
    source: Path | str,
    grid: BinGrid,
    stated: float | tuple[float, float] | None,
    own: float | None,
) -> float:
    """Micrometres per pixel of the full-resolution image, which image, file and bins must agree on.

    Args:
        source: For messages.
        grid: The fitted lattice, whose bins have a known side.
        stated: What the image or the user says, of both axes or of x and y.
        own: What the vendor's file says.

    Raises:
        ExpressionError: Nobody says it, or it contradicts the bins.
    """
    said = stated if stated is not None else own
    if said is None:
        raise no_mpp(source)
    mpp_x, mpp_y = said if isinstance(said, tuple) else (said, said)
    row_um = math.hypot(grid.row_step_px0[0] * mpp_x, grid.row_step_px0[1] * mpp_y)
    col_um = math.hypot(grid.col_step_px0[0] * mpp_x, grid.col_step_px0[1] * mpp_y)
    side_um = math.sqrt(row_um * col_um)
    mpp = math.sqrt(mpp_x * mpp_y)
    if not abs(side_um / grid.bin_um - 1) <= MPP_TOLERANCE:
        who = "the image or manifest" if stated is not None else "scalefactors_json.json"
        raise ExpressionError(
            source,
            f"{who} says {mpp:.4g} um per pixel, by which a bin would have {side_um:.3g} um instead of "
            f"{grid.bin_um:g}: by its bins the image has {mpp * grid.bin_um / side_um:.4g} um per pixel",
            "Give the full-resolution image that Space Ranger was given, or correct its mpp.",
        )
    return mpp


def no_mpp(source: Path | str) -> ExpressionError:
    """Nothing says how large a pixel is."""
    return ExpressionError(
        source,
        "nothing says how many micrometres a pixel of its image has",
        "State it in the manifest column `mpp`, or give the scale file of the run beside it.",
    )
