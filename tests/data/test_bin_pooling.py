"""Bins summed to coarser bins."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse
from tests.data.tiny_expression import GRID, counts_of, full_rc, spots_of

from lamella.data.bin_pooling import pooled, sums_by_block
from lamella.formats.spatial_counts import ExpressionError


@settings(max_examples=25)
@given(
    table=hnp.arrays(np.int64, st.tuples(st.just(35), st.integers(1, 3)), elements=st.integers(0, 5)),
    factor=st.integers(1, 9),
    origin=st.tuples(st.integers(0, 9), st.integers(0, 9)),
)
def test_no_count_is_gained_or_lost(table: np.ndarray, factor: int, origin: tuple[int, int]) -> None:
    counts = counts_of(table, full_rc(5, 7, *origin))
    summed = pooled(counts, factor)
    assert summed.counts.dtype == np.int32
    assert (summed.counts.sum(axis=0) == table.sum(axis=0)).all()
    for place, (row, col) in enumerate(summed.array_rc.tolist()):  # against a mask over all bins
        inside = (counts.array_rc // factor == (row, col)).all(axis=1)
        assert (summed.counts[[place]].toarray()[0] == table[inside].sum(axis=0)).all()


def test_in_two_steps_or_in_one() -> None:
    counts = counts_of(np.random.default_rng(0).poisson(0.4, (256, 3)), full_rc(16, 16))
    at_once, stepwise = pooled(counts, 8), pooled(pooled(counts, 4), 2)
    assert (at_once.counts.toarray() == stepwise.counts.toarray()).all()
    assert np.allclose(at_once.places_px0, stepwise.places_px0)
    assert at_once.size_um == stepwise.size_um == 16
    assert at_once.barcodes.tolist()[1] == b"s_016um_00000_00001-1"


def test_a_block_lies_in_the_middle_of_its_bins() -> None:
    """Also on a mirrored and turned chip, and where only some bins of a block are there."""
    counts = counts_of(np.ones((16, 1), int), full_rc(4, 4), captured_rc=(0, 0, 6, 5))
    blocks = pooled(counts, 2)
    for place, (row, col) in enumerate(blocks.array_rc.tolist()):
        inside = (counts.array_rc // 2 == (row, col)).all(axis=1)
        assert blocks.places_px0[place] == pytest.approx(counts.places_px0[inside].mean(axis=0))
    assert blocks.grid == GRID.coarser(2)
    assert blocks.captured_rc == (0, 0, 3, 3)
    part = pooled(counts.of_places(np.arange(1)), 2)
    assert part.places_px0[0] == pytest.approx(blocks.places_px0[0])


def test_a_block_is_flagged_where_any_bin_is() -> None:
    flagged = np.zeros(16, bool)
    flagged[5] = True
    counts = counts_of(np.ones((16, 1), int), full_rc(4, 4), flagged=flagged)
    assert pooled(counts, 2).flagged.tolist() == [True, False, False, False]


def test_values_that_are_no_counts_stay_fractions() -> None:
    assert pooled(counts_of(np.full((4, 1), 0.25), full_rc(2, 2)), 2).counts.toarray().tolist() == [[1.0]]


def test_sums_beyond_32_bits_are_refused_and_below_are_exact() -> None:
    high = sparse.csr_array(np.full((3, 1), 2**30, np.int32))
    with pytest.raises(ExpressionError, match="above 2"):
        sums_by_block(high, np.zeros(3, np.int64), 1)
    assert sums_by_block(high, np.array([0, 1, 2]), 3).toarray().ravel().tolist() == [2**30] * 3


def test_spots_are_not_pooled() -> None:
    with pytest.raises(ExpressionError, match="only bins"):
        pooled(spots_of(np.ones((2, 1), int), np.zeros((2, 2)), 55), 2)
