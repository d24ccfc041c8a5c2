"""Bins summed to coarser bins: 2 um to 8 um to 16 um, no count gained or lost."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy import sparse

from lamella.formats.spatial_counts import ExpressionError, SpatialCounts

_MOST = int(np.iinfo(np.int32).max)


def pooled(counts: SpatialCounts, factor: int) -> SpatialCounts:
    """Sum blocks of factor x factor bins; block (0, 0) begins with array row and column 0, as Space Ranger's do.

    Blocks of which only some bins are there (at the edge of what was captured) are the sums of those. Values that are
    no counts are summed too.

    Args:
        counts: Of bins.
        factor: Bins along a block's side.

    Returns:
        Of (P, G), P blocks in order of row and column, named after Space Ranger's pattern.

    Raises:
        ExpressionError: They are spots, or bins without a lattice.
    """
    if factor == 1:
        return counts
    if counts.shape != "bin" or counts.grid is None or counts.array_rc is None:
        raise ExpressionError(
            counts.source,
            "only bins with rows and columns can be summed to coarser ones, and these are none",
            "Give binned data.",
        )
    block_rc, block_N = _blocks(counts.array_rc, factor)
    grid = counts.grid.coarser(factor)
    x_px0, y_px0 = grid.place_px0(block_rc[:, 0].astype(np.float64), block_rc[:, 1].astype(np.float64))
    summed = sums_by_block(counts.counts, block_N, len(block_rc))
    flagged = None
    if counts.flagged is not None:
        flagged = np.bincount(block_N, counts.flagged, len(block_rc)) > 0
    names = [f"s_{grid.bin_um:03.0f}um_{row:05d}_{col:05d}-1".encode() for row, col in block_rc.tolist()]
    return replace(
        counts,
        counts=summed,
        places_px0=np.stack([x_px0, y_px0], axis=1),
        size_um=counts.size_um * factor,
        barcodes=np.array(names),
        array_rc=block_rc.astype(np.int32),
        grid=grid,
        flagged=flagged,
        captured_rc=_coarser(counts.captured_rc, factor),
    )


def _blocks(array_rc: np.ndarray, factor: int) -> tuple[np.ndarray, np.ndarray]:
    """(P, 2) row and column of the blocks that have a bin, in order, and (N,) the number of each bin's block."""
    rc = np.floor_divide(array_rc.astype(np.int64), factor)
    first = rc.min(axis=0)
    columns = int(rc[:, 1].max() - first[1]) + 1
    # As one number each: sorting pairs would take ten times as long.
    keys, block_N = np.unique((rc[:, 0] - first[0]) * columns + rc[:, 1] - first[1], return_inverse=True)
    return np.stack([keys // columns, keys % columns], axis=1) + first, block_N.reshape(-1)


def sums_by_block(values: sparse.csr_array, block_N: np.ndarray, blocks: int) -> sparse.csr_array:
    """(P, G) sums of the rows of each block, in the type of the values; counts in whole numbers, so exact.

    Raises:
        ExpressionError: A sum of counts does not fit into 32 bits.
    """
    whole = values.dtype.kind in "iu"
    # Where all counts together fit into 32 bits no sum of some can overflow, and the matrix needs no wider copy.
    narrow = whole and values.data.sum(dtype=np.int64) <= _MOST
    kind = values.dtype if narrow else np.dtype(np.int64 if whole else np.float64)
    ones = np.ones(len(block_N), kind)
    summing = sparse.csr_array((ones, (block_N, np.arange(len(block_N)))), shape=(blocks, len(block_N)))
    summed = sparse.csr_array(summing @ (values if narrow else values.astype(kind)))
    summed.sort_indices()
    if whole and summed.nnz and summed.data.max() > _MOST:
        raise ExpressionError("counts", "a sum of counts is above 2**31", "Look at the file: no bin holds so many.")
    return summed.astype(np.int32 if whole else values.dtype)


def _coarser(box_rc: tuple[int, int, int, int] | None, factor: int) -> tuple[int, int, int, int] | None:
    """The blocks that hold any of a stretch of bins."""
    if box_rc is None:
        return None
    row0, col0, row1, col1 = box_rc
    return row0 // factor, col0 // factor, -(-row1 // factor), -(-col1 // factor)
