from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from tests.metrics.genes.judged_slides import bins, spots

from lamella.metrics.genes.controls import controls
from lamella.metrics.genes.measures import measures
from lamella.metrics.genes.resolution import pooled
from lamella.metrics.genes.scores import ALL_ZERO, CONSTANT_PREDICTION, CONSTANT_TRUTH, NO_ZERO, GeneScores
from lamella.metrics.genes.scoring import score, score_slide
from lamella.metrics.genes.settings import GeneMetricSettings

SETTINGS = GeneMetricSettings(block_um=20)


def test_every_measure_of_bins_at_every_resolution():
    slides = [bins(side=80, level=0.01), bins(1, level=0.01, slide_id="other", patient="B")]
    scores = score(slides, SETTINGS)
    assert scores.resolutions == (2, 8, 16)
    assert scores.patients == ("A", "B")
    for slide in scores.slides:
        expected = set(measures(SETTINGS))
        if slide.resolution_um < 8:
            expected -= {name for name in expected if name.endswith("_skill")}
        if slide.slide_id == "other" and slide.resolution_um == 16:
            expected -= {name for name in expected if name.startswith("ssim")}  # no 7 x 7 bins of 16 um
        assert set(slide.values) == expected
        assert slide.own == (slide.resolution_um == 2)
        for name, values in slide.values.items():
            assert np.isfinite(values).all(), name
            if not name.startswith("moran_") or name == "moran_excess":
                assert slide.shuffled[name].shape == (20, 6)
    coarse = pooled(slides[0], 4)
    found = next(each for each in scores.at(8) if each.slide_id == "slide").values["spearman"]
    assert found[2] == pytest.approx(stats.spearmanr(coarse.predicted[:, 2], coarse.truth[:, 2]).statistic)


def test_spots_have_no_maps_and_values_no_deviance():
    (slide,) = score([spots()], SETTINGS).slides
    assert slide.resolution_um == 100
    assert slide.own
    assert not [name for name in slide.values if name.startswith(("ssim", "poisson", "nb"))]


def test_genes_in_chunks_are_the_same_as_at_once(monkeypatch):
    slide = bins(level=0.1)
    whole = score_slide(slide, SETTINGS)
    monkeypatch.setattr("lamella.metrics.genes.scoring._CHUNK", 2 * len(slide.truth))
    parts = score_slide(slide, SETTINGS)
    for name in whole.values:
        assert parts.values[name] == pytest.approx(whole.values[name], abs=1e-12), name
        assert parts.sums[name] == pytest.approx(whole.sums[name], abs=1e-6), name
    for name in whole.shuffled:
        assert parts.shuffled[name] == pytest.approx(whole.shuffled[name], abs=1e-12), name


def test_the_order_of_the_places_does_not_matter():
    slide = bins()
    mixed = np.random.default_rng(5).permutation(len(slide.truth))
    again = replace(
        slide,
        truth=slide.truth[mixed],
        predicted=slide.predicted[mixed],
        total=slide.total[mixed],
        darkness=slide.darkness[mixed],
        rc=slide.rc[mixed],
        places_um=slide.places_um[mixed],
    )
    first, second = score_slide(slide, SETTINGS), score_slide(again, SETTINGS)
    for name in first.values:
        assert second.values[name] == pytest.approx(first.values[name], abs=1e-12), name


def test_undefined_genes_are_nan_with_their_reason_and_never_zero():
    """Bad input: an all-zero gene."""
    slide = bins()
    truth, predicted = slide.truth.copy(), slide.predicted.copy()
    truth[:, 0], truth[:, 1], predicted[:, 2] = 0, 2, 0.3
    found = score_slide(replace(slide, truth=truth, predicted=predicted), SETTINGS)
    assert found.reasons == (ALL_ZERO, CONSTANT_TRUTH, CONSTANT_PREDICTION, "", "", "")
    for name, values in found.values.items():
        assert np.isnan(values[:2]).all(), name
        assert np.isfinite(values[3:]).all(), name
    for name in ("pearson", "spearman"):
        assert np.isnan(found.values[name][2])
    assert found.values["auroc"][2] == pytest.approx(0.5)


@pytest.mark.parametrize("where", ["truth", "predicted"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_none_are_refused(where, value):
    slide = bins()
    broken = getattr(slide, where).copy()
    broken[3, 4] = value
    with pytest.raises(ValueError, match=r"1 gene\(s\) is not finite \(gene4\)"):
        score([replace(slide, **{where: broken})], SETTINGS)


def test_raw_outputs_cannot_be_scored_as_counts():
    """Mistake of the source: raw outputs (logarithms of rates) scored instead of expected counts."""
    slide = bins(level=0.1)
    with pytest.raises(ValueError, match="never negative; are these the logarithms"):
        score([slide.with_predicted(np.log(slide.predicted))], SETTINGS)


def test_shapes_that_do_not_fit_are_refused():
    slide = bins()
    with pytest.raises(ValueError, match="are not"):
        slide.with_predicted(slide.predicted[:-1])
    with pytest.raises(ValueError, match="5 training means of 6 genes"):
        replace(slide, training_mean=slide.training_mean[:5])
    with pytest.raises(ValueError, match="totals, darkness and lattice"):
        replace(slide, total=slide.total[:-2])


def test_nothing_to_score_is_refused():
    slide = bins()
    with pytest.raises(ValueError, match="no slides"):
        score([], SETTINGS)
    with pytest.raises(ValueError, match="twice"):
        GeneScores(score([slide], SETTINGS).slides * 2)


def test_fewer_than_twenty_shuffles_are_refused():
    with pytest.raises(ValueError, match="greater than or equal to 20"):
        GeneMetricSettings(permutations=19)


def test_a_gene_that_all_places_express_lacks_only_what_needs_zeros():
    slide = bins()
    truth = slide.truth.copy()
    truth[:, 5] += 1
    found = score_slide(replace(slide, truth=truth), SETTINGS)
    assert found.reasons == ("",) * 5 + (NO_ZERO,)
    assert {name for name, values in found.values.items() if np.isnan(values[5])} == {"auroc", "auprc"}


def test_a_good_prediction_beats_the_shuffle_and_constants_do_not():
    slide = bins(side=60, level=1)
    good = score_slide(slide, SETTINGS)
    for name in ("pearson", "spearman", "auroc", "auprc", "poisson_d2", "nb_d2", "hot_5pct"):
        assert (good.values[name] > good.shuffled[name].max(axis=0)).all(), name
    flat = score_slide(controls(slide, SETTINGS)["training mean map"], SETTINGS)
    assert np.isnan(flat.values["pearson"]).all()
    assert (flat.values["poisson_d2"] <= 0).all()
