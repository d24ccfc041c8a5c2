from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.metrics.genes.judged_slides import bins, spots

from lamella.metrics.genes.arrangement import Arrangement


def test_blocks_are_squares_of_neighbours():
    slide = bins()
    found = Arrangement.of(slide, 20.0)
    assert sorted(found.order) == list(range(len(slide.truth)))
    assert found.sizes.sum() == len(slide.truth)
    for start, size in zip(found.starts, found.sizes, strict=True):
        rc = slide.rc[found.order[start : start + size]]
        assert (np.ptp(rc, axis=0) * slide.bin_um < found.block_um).all()


@settings(max_examples=25)
@given(st.floats(1, 1e5), st.integers(20, 40))
def test_about_the_wanted_side_and_neither_few_nor_many_blocks(wanted, side):
    found = Arrangement.of(bins(side=side, genes=1, hole=False), wanted)
    assert 16 <= len(found.starts) <= 48


def test_a_fitting_side_is_taken_as_it_is():
    # 40 bins of 2 um are 5 x 5 blocks of 16 um.
    assert Arrangement.of(bins(hole=False), 16.0).block_um == 16.0
    assert len(Arrangement.of(bins(hole=False), 16.0).starts) == 25


def test_shuffles_are_permutations_and_blocks_stay_together():
    found = Arrangement.of(bins(), 20.0)
    for goes in found.shuffles(5, 0):
        assert sorted(goes) == list(range(len(goes)))
        for start, size in zip(found.starts, found.sizes, strict=True):
            assert (np.diff(goes[start : start + size]) == 1).all()


def test_spots_are_shuffled_one_by_one():
    goes = Arrangement.of(spots(), 500.0).shuffles(1, 0)[0]
    assert (np.diff(goes) == 1).sum() < len(goes) / 4


def test_another_seed_is_another_shuffle_and_the_same_the_same():
    found = Arrangement.of(bins(), 20.0)
    assert np.array_equal(found.shuffles(2, 1), found.shuffles(2, 1))
    assert not np.array_equal(found.shuffles(2, 1), found.shuffles(2, 2))
