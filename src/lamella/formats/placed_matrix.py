"""The barcodes of a matrix find their places on the chip; places without a barcode get their zeros."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy import sparse

from lamella.formats.feature_matrix import (
    FeatureMatrix,
    read_barcodes,
    read_feature_matrix,
    refuse_repeated,
)
from lamella.formats.feature_names import listed
from lamella.formats.spatial_counts import ExpressionError
from lamella.formats.tissue_positions import Positions, read_positions
from lamella.geometry import BinGrid

# More of the places under tissue without any molecule, and the matrix is of another run, or was cut.
_MOST_EMPTY = 0.9


@dataclass(frozen=True)
class PlacedMatrix:
    """A matrix and where its rows lie.

    Attributes:
        read: Of N places.
        places_px0: (N, 2) float64 x and y in pixels of the full-resolution image.
        array_rc: (N, 2) int32 row and column on the chip.
        flagged: (N,) bool, the vendor's `in_tissue`.
        grid: The lattice of the chip.
        extent_rc: First row and column of the chip, and those behind the last ones.
        all_flagged: Whether the vendor saw tissue everywhere.
    """

    read: FeatureMatrix
    places_px0: np.ndarray
    array_rc: np.ndarray
    flagged: np.ndarray
    grid: BinGrid
    extent_rc: tuple[int, int, int, int]
    all_flagged: bool


@dataclass(frozen=True)
class _Join:
    rows: np.ndarray
    """(N,) numbers of positions: those of the barcodes, then those without one."""
    added: np.ndarray
    """(Z,) bytes: the barcodes that the matrix lacks."""
    notes: tuple[str, ...]


def read_placed(
    matrix: Path, positions: Path, fit: Callable[[Positions], BinGrid], genes: Sequence[str] | None
) -> PlacedMatrix:
    """Read a matrix and the positions of the same run.

    The barcodes are joined, and the chip's many positions forgotten, before the matrix is read, so that both are never
    in memory together.

    Args:
        matrix: `.h5` or folder.
        positions: `tissue_positions`.
        fit: Finds the lattice of all positions.
        genes: Only these; all, if None.

    Raises:
        ExpressionError: A file is missing or damaged, a barcode has no position, most places under tissue have no
            barcode, or the places lie on no lattice.
    """
    chip = read_positions(positions)
    barcodes = read_barcodes(matrix)
    grid, join = fit(chip), _joined(barcodes, chip, matrix)
    places_px0, array_rc, flagged = chip.places_px0[join.rows], chip.array_rc[join.rows], chip.flagged[join.rows]
    extent_rc, all_flagged = chip.extent_rc, bool(chip.flagged.all())
    del chip
    pa.default_memory_pool().release_unused()
    read = read_feature_matrix(matrix, genes=genes, barcodes=barcodes)
    if len(join.added):
        read = _with_zeros(read, join)
    return PlacedMatrix(read, places_px0, array_rc, flagged, grid, extent_rc, all_flagged)


def _joined(barcodes: np.ndarray, positions: Positions, matrix: Path) -> _Join:
    """Find the barcodes.

    Space Ranger (since 1.3) leaves barcodes without a read out of its matrices. Under tissue those are places where
    nothing was caught: rows of zeros are put behind the others, and it is said how many.
    """
    rows = _rows(barcodes, positions)
    unplaced = np.flatnonzero(rows < 0)
    if len(unplaced):
        refuse_repeated(matrix, barcodes)  # of two with one name only the first would be found
        raise ExpressionError(
            matrix,
            f"{len(unplaced)} of its {len(barcodes)} barcodes have no position in {positions.source.name}, such as "
            f"{listed([name.decode() for name in barcodes[unplaced[:3]].tolist()])}",
            "Give matrix and positions of the same run and bin size, both whole.",
        )
    empty = positions.flagged.copy()
    empty[rows] = False
    missing = np.flatnonzero(empty)
    if not len(missing):
        return _Join(rows, np.zeros(0, "S1"), ())
    taken = positions.barcodes.take(pa.array(missing))
    under = int(positions.flagged.sum())
    if len(missing) > _MOST_EMPTY * under:
        raise ExpressionError(
            matrix,
            f"{len(missing)} of the {under} positions under tissue have no barcode in it, such as "
            f"{listed(taken.slice(0, 3).to_pylist())}",
            "Give matrix and positions of the same run and bin size, both whole.",
        )
    note = (
        f"{len(missing)} of {under} places under tissue have no barcode in the matrix: nothing was caught there (zeros)"
    )
    added = refuse_repeated(positions.source, np.array(taken.to_pylist(), np.bytes_))
    return _Join(np.concatenate([rows, missing]), added, (note,))


def _rows(barcodes: np.ndarray, positions: Positions) -> np.ndarray:
    """(N,) int32 numbers of the barcodes' positions; -1 where there is none."""
    names = pa.array(barcodes, pa.binary()).cast(pa.string())
    # The matrix has fewer barcodes than the chip: the table to look in is made of these.
    number = pc.fill_null(pc.index_in(positions.barcodes, value_set=names), -1).to_numpy()
    placed = np.flatnonzero(number >= 0)
    rows = np.full(len(barcodes), -1, np.int32)
    rows[number[placed]] = placed
    if np.count_nonzero(rows >= 0) < len(placed):
        raise ExpressionError(positions.source, "a barcode stands twice", "Give the positions of one run.")
    return rows


def _with_zeros(read: FeatureMatrix, join: _Join) -> FeatureMatrix:
    """Rows of zeros behind the others; the entries are not copied."""
    counts, more = read.counts, len(join.added)
    starts = np.concatenate([counts.indptr, np.full(more, counts.indptr[-1], counts.indptr.dtype)])
    shape = (counts.shape[0] + more, counts.shape[1])
    return read._replace(
        counts=sparse.csr_array((counts.data, counts.indices, starts), shape=shape),
        barcodes=np.concatenate([read.barcodes, join.added]),
        notes=(*read.notes, *join.notes),
    )
