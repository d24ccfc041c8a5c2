"""Rows of a sparse table by the bins' row and column: a tile's bins are found without a map of the whole chip.

Shapes: N rows of the table, n bins along a tile's side, k bins of a tile that are in the table, G genes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse


@dataclass(frozen=True, eq=False)
class BinRows:
    """A table sorted by row and column of its bins, so that each row of a tile is one stretch of it.

    Attributes:
        keys: (N,) int64, ascending: (row - row0) * columns + (col - col0).
        box_rc: First row and column, and those behind the last, that keys are counted in.
        values: (N, G) float32 sparse, in the keys' order.
        total: (N,) float32 in the same order.
    """

    keys: np.ndarray
    box_rc: tuple[int, int, int, int]
    values: sparse.csr_array
    total: np.ndarray

    @classmethod
    def of(
        cls, array_rc: np.ndarray, values: sparse.csr_array, total: np.ndarray, box_rc: tuple[int, int, int, int]
    ) -> BinRows:
        """Sort a table.

        Args:
            array_rc: (N, 2) rows and columns, all inside the box and no pair twice.
            values: (N, G).
            total: (N,).
            box_rc: See the class.

        Raises:
            ValueError: A row or column lies outside the box.
        """
        row0, col0, row1, col1 = box_rc
        rc = array_rc.astype(np.int64)
        if len(rc) and ((rc < (row0, col0)).any() or (rc >= (row1, col1)).any()):
            raise ValueError(f"bins lie outside rows and columns {box_rc}")
        keys = (rc[:, 0] - row0) * (col1 - col0) + rc[:, 1] - col0
        order = np.argsort(keys, kind="stable")
        if np.array_equal(order, np.arange(len(order))):  # as files have it, as a rule: no second copy then
            return cls(keys, box_rc, values, total.astype(np.float32))
        return cls(keys[order], box_rc, sparse.csr_array(values[order]), total[order].astype(np.float32))

    def window(self, row: int, col: int, bins: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Which rows of the table lie in a tile, and where in it.

        Args:
            row: Of the tile's first bin; it may lie outside the box, as any part of the tile may.
            col: Of the same.
            bins: Along the tile's side.

        Returns:
            (k,) rows of the table, and (k,) row and column in the tile.
        """
        row0, col0, row1, col1 = self.box_rc
        rows = np.arange(max(row, row0), min(row + bins, row1))
        first, last = max(col, col0), min(col + bins, col1)
        if not len(rows) or last <= first:
            return (np.zeros(0, np.int64),) * 3
        line = (rows - row0) * (col1 - col0) - col0
        start, end = np.searchsorted(self.keys, line + first), np.searchsorted(self.keys, line + last)
        found = ranges(start, end - start)
        i = np.repeat(rows - row, end - start)
        return found, i, self.keys[found] - np.repeat(line, end - start) - col

    def dense(self, row: int, col: int, bins: int) -> np.ndarray:
        """(G, n, n) float32: a tile; bins that are not in the table are 0."""
        found, i, j = self.window(row, col, bins)
        tile = np.zeros((self.values.shape[1], bins, bins), np.float32)
        start = self.values.indptr[found].astype(np.int64)
        count = self.values.indptr[found + 1] - start
        entries = ranges(start, count)
        tile[self.values.indices[entries], np.repeat(i, count), np.repeat(j, count)] = self.values.data[entries]
        return tile

    def dense_total(self, row: int, col: int, bins: int) -> np.ndarray:
        """(n, n) float32: the total of each bin of a tile."""
        found, i, j = self.window(row, col, bins)
        tile = np.zeros((bins, bins), np.float32)
        tile[i, j] = self.total[found]
        return tile


def ranges(start: np.ndarray, count: np.ndarray) -> np.ndarray:
    """start[0], start[0] + 1, ... (count[0] of them), start[1], ...: one array."""
    total = int(count.sum())
    before = np.cumsum(count) - count
    return np.arange(total) - np.repeat(before - start, count)
