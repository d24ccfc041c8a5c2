from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage
from tests.metrics.genes.judged_slides import bins, spots

from lamella.metrics.genes.controls import (
    BLURRED,
    DARKNESS,
    KINDS,
    MEAN_MAP,
    MEANINGS,
    NEIGHBOURS,
    TOTAL,
    blurred,
    controls,
)
from lamella.metrics.genes.settings import GeneMetricSettings

SETTINGS = GeneMetricSettings(block_um=20)


def test_what_each_control_says():
    slide = bins()
    found = controls(slide, SETTINGS)
    assert set(found) == {MEAN_MAP, TOTAL, DARKNESS, BLURRED, NEIGHBOURS}
    assert set(found) < set(KINDS) == set(MEANINGS)
    assert np.array_equal(found[MEAN_MAP].predicted, np.tile(slide.training_mean, (len(slide.truth), 1)))
    expected = slide.total[:, None] / slide.total.mean() * slide.training_mean
    assert found[TOTAL].predicted == pytest.approx(expected, rel=1e-5)
    assert found[TOTAL].predicted.mean(axis=0) == pytest.approx(slide.training_mean, rel=1e-5)
    ratio = found[DARKNESS].predicted[:, 1] / slide.darkness
    assert np.ptp(ratio) < 1e-5 * ratio.mean()


def test_on_a_log_scale_the_total_is_logarithmic():
    slide = spots()
    found = controls(slide, SETTINGS)
    assert found[TOTAL].predicted[:, 3] == pytest.approx(np.log1p(slide.total))
    assert found[DARKNESS].predicted[:, 3] == pytest.approx(slide.darkness)


def test_without_a_training_mean_nothing_is_made_up():
    assert set(controls(replace(bins(), training_mean=None), SETTINGS)) == {BLURRED, NEIGHBOURS}
    assert set(controls(replace(spots(), training_mean=None), SETTINGS)) == {TOTAL, DARKNESS, BLURRED, NEIGHBOURS}


def test_blurred_truth_is_a_gaussian_over_the_judged_places():
    slide = bins(side=30)
    rows, cols = (slide.rc - slide.rc.min(axis=0)).T
    truth, judged = np.zeros((30, 30)), np.zeros((30, 30))
    truth[rows, cols], judged[rows, cols] = slide.truth[:, 0], 1
    sums, weights = (ndimage.gaussian_filter(each, 3, mode="constant") for each in (truth, judged))
    assert blurred(slide, 6.0)[0][:, 0] == pytest.approx((sums / weights)[rows, cols], abs=1e-5)


@pytest.mark.parametrize("slide", [bins(side=16, genes=2), spots(genes=2)], ids=["bins", "spots"])
def test_neighbours_leave_the_own_place_out(slide):
    """Another truth at one place changes its own blurred value, and not what its neighbours say of it."""
    changed = slide.truth.copy()
    changed[7] += 50
    before, after = blurred(slide, 6.0), blurred(replace(slide, truth=changed), 6.0)
    assert (after[0][7] - before[0][7] > 0.5).all()
    assert after[1][7] == pytest.approx(before[1][7], abs=1e-3)
    assert np.abs(after[1] - before[1]).max() > 0.1  # but what it says of the others


def test_a_lonely_spot_gets_the_mean_of_the_slide():
    slide = spots(genes=2)
    places = slide.places_um.copy()
    places[3] = 1e6
    assert blurred(replace(slide, places_um=places), 6.0)[1][3] == pytest.approx(slide.truth.mean(axis=0))


def test_ceilings_see_the_truth_and_the_neighbours_less_of_it():
    slide = bins(side=60, level=2)
    found = controls(slide, SETTINGS)
    seen = {name: np.corrcoef(found[name].predicted[:, 0], slide.truth[:, 0])[0, 1] for name in (BLURRED, NEIGHBOURS)}
    assert seen[BLURRED] > seen[NEIGHBOURS] > 0.3
