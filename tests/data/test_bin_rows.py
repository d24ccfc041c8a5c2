"""A sparse table of bins, asked for tiles."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from tests.data.tiny_expression import full_rc

from lamella.data.bin_rows import BinRows, ranges

BOX = (3, -2, 13, 7)  # 10 rows, 9 columns


def table(seed: int = 0) -> tuple[BinRows, np.ndarray, np.ndarray]:
    """Half of the bins in any order; and the same dense, with a margin of 20 around the box."""
    rng = np.random.default_rng(seed)
    rc = rng.permutation(full_rc(10, 9, 3, -2))[:45]
    values = rng.poisson(0.5, (45, 3)).astype(np.float32)
    total = rng.uniform(size=45).astype(np.float32)
    dense, totals = np.zeros((3, 50, 49), np.float32), np.zeros((50, 49), np.float32)
    dense[:, rc[:, 0] + 17, rc[:, 1] + 22] = values.T
    totals[rc[:, 0] + 17, rc[:, 1] + 22] = total
    return BinRows.of(rc, sparse.csr_array(values), total, BOX), dense, totals


@settings(max_examples=60)
@given(row=st.integers(-10, 20), col=st.integers(-12, 12), bins=st.integers(1, 12))
def test_tiles_are_those_of_the_dense_table(row: int, col: int, bins: int) -> None:
    """mistake: swapped rows and columns; and tiles that reach over the chip's edge are padded, not moved."""
    rows, dense, totals = table()
    window = slice(row + 17, row + 17 + bins), slice(col + 22, col + 22 + bins)
    assert (rows.dense(row, col, bins) == dense[:, window[0], window[1]]).all()
    assert (rows.dense_total(row, col, bins) == totals[window]).all()


def test_a_sorted_table_is_not_copied() -> None:
    rc = full_rc(2, 2)
    values = sparse.csr_array(np.eye(4, dtype=np.float32))
    assert BinRows.of(rc, values, np.ones(4), (0, 0, 2, 2)).values is values


def test_bins_outside_the_box_are_refused() -> None:
    with pytest.raises(ValueError, match="outside"):
        BinRows.of(np.array([[0, 2]]), sparse.csr_array(np.ones((1, 1))), np.ones(1), (0, 0, 2, 2))


def test_ranges() -> None:
    assert ranges(np.array([5, 9, 1]), np.array([2, 0, 3])).tolist() == [5, 6, 1, 2, 3]
    assert ranges(np.zeros(0, int), np.zeros(0, int)).tolist() == []
