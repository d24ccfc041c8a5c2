from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.metrics.genes.judged_slides import bins, spots

from lamella.metrics.genes.resolution import pooled, resolutions


@settings(max_examples=25)
@given(st.integers(2, 8), st.integers(0, 3))
def test_counts_are_summed_exactly_over_whole_blocks(factor, seed):
    slide = bins(seed, side=20)
    coarse = pooled(slide, factor)
    blocks = {}
    for place, (row, col) in enumerate(slide.rc):
        blocks.setdefault((row // factor, col // factor), []).append(place)
    whole = {key: places for key, places in blocks.items() if len(places) == factor**2}
    assert {tuple(rc) for rc in coarse.rc} == set(whole)
    for number, rc in enumerate(coarse.rc):
        places = whole[tuple(rc)]
        assert np.array_equal(coarse.truth[number], slide.truth[places].sum(axis=0))
        assert coarse.total[number] == slide.total[places].sum()
        assert coarse.predicted[number] == pytest.approx(slide.predicted[places].sum(axis=0), rel=1e-5)
        assert coarse.darkness[number] == pytest.approx(slide.darkness[places].mean(), rel=1e-5)
    assert coarse.bin_um == 2.0 * factor
    assert coarse.training_mean == pytest.approx(slide.training_mean * factor**2)


def test_values_on_a_log_scale_are_averaged():
    slide = bins()
    from dataclasses import replace

    coarse = pooled(replace(slide, scale="log"), 4)
    assert coarse.truth.mean() == pytest.approx(pooled(slide, 4).truth.mean() / 16, rel=1e-5)
    assert coarse.training_mean == pytest.approx(slide.training_mean)


def test_resolutions_are_the_own_and_whole_multiples():
    assert [each.bin_um for each in resolutions(bins(), (2, 8, 16, 5, 1))] == [2, 8, 16]
    assert resolutions(bins(), (2,))[0].truth.shape == bins().truth.shape
    assert len(resolutions(spots(), (2, 8, 16))) == 1


def test_two_places_in_one_bin_are_refused():
    from dataclasses import replace

    slide = bins(side=8, hole=False)
    rc = slide.rc.copy()
    rc[:] = rc[0]
    with pytest.raises(ValueError, match="has 64 places"):
        pooled(replace(slide, rc=rc), 2)
