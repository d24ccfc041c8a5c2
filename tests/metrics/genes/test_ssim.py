from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from skimage.metrics import structural_similarity
from tests.metrics.genes.judged_slides import bins, prepared, shuffled_slides, spots

from lamella.metrics.genes.ssim import JOINT, SEPARATE, SKILL, Maps, mean_of, shuffled_ssim, skill_of, ssim_sums


def as_map(slide, values):
    rows, cols = (slide.rc - slide.rc.min(axis=0)).T
    found = np.full((rows.max() + 1, cols.max() + 1), np.nan)
    found[rows, cols] = values
    return found


def stretched(values):
    span = np.ptp(values)
    return (values - values.min()) / span if span else np.zeros_like(values)


def plain(slide, predicted=None):
    """(separate, joint) of all genes, by scikit-image: the mean over the windows that lie in the judged places."""
    predicted = slide.predicted if predicted is None else predicted
    found = []
    for x, y in zip(np.log1p(predicted.astype(float)).T, np.log1p(slide.truth.astype(float)).T, strict=True):
        joint = max(x.max(), y.max()) - min(x.min(), y.min())
        both = []
        for one, other, span in ((stretched(x), stretched(y), 1.0), (x, y, joint)):
            first, second = as_map(slide, one), as_map(slide, other)
            judged = np.isfinite(first)
            _, local = structural_similarity(
                np.nan_to_num(first), np.nan_to_num(second), win_size=7, data_range=span, full=True
            )
            padded = np.pad(judged, 3)
            whole = np.lib.stride_tricks.sliding_window_view(padded, (7, 7)).all(axis=(2, 3))
            both.append(local[whole].mean())
        found.append(both)
    return np.array(found).T


@pytest.mark.parametrize("hole", [False, True], ids=["rectangle", "hole"])
def test_both_definitions_equal_scikit_image(hole):
    slide = bins(side=30, hole=hole, level=1)
    pairs, arrangement, _ = prepared(slide)
    found = ssim_sums(pairs, Maps.of(slide, arrangement), None)
    separate, joint = plain(slide)
    assert mean_of(found[SEPARATE].sum(axis=0)) == pytest.approx(separate, abs=1e-9)
    assert mean_of(found[JOINT].sum(axis=0)) == pytest.approx(joint, abs=1e-9)


def test_all_genes_count():
    """Mistake of the source: SSIM on the first 10 genes only."""
    slide = bins(genes=25, level=1)
    predicted = slide.truth.copy()
    predicted[:, 10:] = 0.5 + slide.truth[:, 10:].max() - slide.truth[:, 10:]  # wrong from the eleventh on
    pairs, arrangement, _ = prepared(slide.with_predicted(predicted))
    found = mean_of(ssim_sums(pairs, Maps.of(slide, arrangement), None)[SEPARATE].sum(axis=0))
    assert found.shape == (25,)
    assert found[:10] == pytest.approx(np.ones(10))
    assert (found[10:] < 0.5).all()


def test_skill_is_against_the_better_of_zeros_and_the_mean_map():
    slide = bins(level=2)
    pairs, arrangement, _ = prepared(slide)
    maps = Maps.of(slide, arrangement)
    sums = ssim_sums(pairs, maps, slide.training_mean)
    for name, number in ((SEPARATE, 0), (JOINT, 1)):
        own = plain(slide)[number]
        zeros = plain(slide, np.zeros_like(slide.truth))[number]
        mean = plain(slide, np.broadcast_to(slide.training_mean, slide.truth.shape))[number]
        best = np.maximum(zeros, mean)
        assert skill_of(sums[SKILL[name]].sum(axis=0)) == pytest.approx((own - best) / (1 - best), abs=1e-9)
    for constant in (np.zeros_like(slide.truth), np.broadcast_to(slide.training_mean, slide.truth.shape)):
        pairs, _, _ = prepared(slide.with_predicted(np.asarray(constant)))
        again = ssim_sums(pairs, maps, slide.training_mean)
        assert (skill_of(again[SKILL[JOINT]].sum(axis=0)) <= 1e-12).all()


def test_empty_maps_agree_for_being_empty():
    """Why SSIM is descriptive: at 2 um zeros score high, and their skill is none."""
    slide = bins(level=0.002, side=60)
    pairs, arrangement, _ = prepared(slide.with_predicted(np.zeros_like(slide.predicted)))
    sums = ssim_sums(pairs, Maps.of(slide, arrangement), slide.training_mean)
    assert (mean_of(sums[JOINT].sum(axis=0)) > 0.6).all()
    assert (skill_of(sums[SKILL[JOINT]].sum(axis=0)) <= 1e-12).all()


def test_separate_ranges_forgive_a_wrong_level_and_a_joint_one_does_not():
    slide = bins(level=3, side=30)
    tenth = replace(slide, scale="log").with_predicted(slide.truth / 10)
    pairs, arrangement, _ = prepared(tenth)
    sums = ssim_sums(pairs, Maps.of(tenth, arrangement), None)
    assert mean_of(sums[SEPARATE].sum(axis=0)) == pytest.approx(np.ones(6), abs=1e-5)
    assert (mean_of(sums[JOINT].sum(axis=0)) < 0.6).all()


def test_shuffled_equals_the_measure_of_moved_truth_and_bands_are_its_parts():
    slide = bins(level=1)
    pairs, arrangement, _ = prepared(slide)
    maps, goes = Maps.of(slide, arrangement), arrangement.shuffles(3, 0)
    found = shuffled_ssim(pairs, maps, goes, len(slide.truth))
    for number, other in enumerate(shuffled_slides(slide)):
        separate, joint = plain(other)
        assert found[SEPARATE][number] == pytest.approx(separate, abs=1e-9)
        assert found[JOINT][number] == pytest.approx(joint, abs=1e-9)
    bands = shuffled_ssim(pairs, maps, goes, 600)
    assert bands[JOINT].shape == found[JOINT].shape
    assert bands[JOINT].mean() == pytest.approx(found[JOINT].mean(), abs=0.1)
    assert not np.array_equal(bands[JOINT], found[JOINT])


def test_a_gene_without_variation_and_spots_have_none():
    slide = bins()
    truth = slide.truth.copy()
    truth[:, 1] = 0
    pairs, arrangement, _ = prepared(replace(slide, truth=truth))
    for sums in ssim_sums(pairs, Maps.of(slide, arrangement), slide.training_mean).values():
        assert np.array_equal(np.isnan(sums[..., 0].sum(axis=0)), [0, 1, 0, 0, 0, 0])
    with pytest.raises(ValueError, match="no map"):
        Maps.of(spots(), arrangement)
