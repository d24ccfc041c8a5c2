"""The mistakes of the expression project that Lamella replaces, a short test each, as in test_past_mistakes.py.

Each says where the deeper tests are; `test_the_deeper_tests_are_there` holds these pointers to the truth.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from tests.data.tiny_expression import counts_of, full_rc, slide_of, study_of
from tests.metrics.genes.judged_slides import bins

from lamella.data.expression_tissue import slide_tissue
from lamella.data.gene_panel import PanelSettings, panel_of
from lamella.data.lopo import choosing_slides, folds, training_slides
from lamella.engine.optim import OptimSettings, adamw
from lamella.errors import LamellaError
from lamella.formats.spatial_counts import SpatialCounts
from lamella.geometry import BinGrid
from lamella.methods.count_losses import MseSettings, Poisson, PoissonSettings, ZinbSettings
from lamella.methods.expression import ExpressionMethod
from lamella.methods.focal_counts import focal_weights
from lamella.methods.zinb import nll
from lamella.metrics.genes.scoring import score
from lamella.metrics.genes.settings import GeneMetricSettings
from lamella.models.expression.contract import Prediction, ViewShape
from lamella.models.expression.expectation import expected
from lamella.models.expression.network import ExpressionNetwork
from lamella.models.expression.places import places_um, registered
from lamella.models.expression.rotary import turned, waves
from lamella.models.expression.settings import AddedSettings, ExpressionModelSettings, LinearDecoderSettings
from lamella.models.registry import find_entry
from lamella.slides.tissue import TissueSettings
from lamella.verbs.expression_stages.feature_encoder import feature_backbone
from lamella.verbs.expression_stages.feature_settings import FeatureSettings

TESTS = Path(__file__).parent
GENES, BINS = 3, 8
VIEWS = (ViewShape(4, 2.0, BINS), ViewShape(5, 8.0, 4))


def method_of(loss: ZinbSettings | PoissonSettings | MseSettings) -> ExpressionMethod:
    torch.manual_seed(0)
    settings = ExpressionModelSettings(fusion=AddedSettings(), decoder=LinearDecoderSettings(), width=8, dropout=0)
    mean = torch.full((GENES,), 0.2)
    network = ExpressionNetwork(settings, VIEWS, BINS, GENES, loss.needs, loss.rule("counts"), mean)
    return ExpressionMethod(network, loss, "counts").train()


def batch() -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(1)
    made = {"counts": torch.poisson(torch.full((2, GENES, BINS, BINS), 0.3), generator=rng)}
    made["mask"] = torch.ones(2, BINS, BINS, dtype=torch.bool)
    for number, view in enumerate(VIEWS):
        made[f"view{number}"] = torch.randn(2, view.width, view.tokens, view.tokens, generator=rng)
        made[f"seen{number}"] = torch.ones(2, view.tokens, view.tokens, dtype=torch.bool)
    return made


# ---- what is learnt --------------------------------------------------------------------------------------------------


def test_loss_parameters_not_optimised() -> None:
    """Deeper: methods/test_expression.py::test_every_parameter_is_in_the_optimiser_and_moves,
    models/expression/test_network.py::test_there_is_what_the_loss_needs_and_all_of_it_learns.
    """
    method = method_of(ZinbSettings(zero="gene"))
    held = {id(each) for group in adamw(method, OptimSettings()).param_groups for each in group["params"]}
    assert {name for name, each in method.named_parameters() if id(each) not in held} == set()
    assert "network.log_theta_G" in dict(method.named_parameters())


def test_pi_constant() -> None:
    """Deeper: methods/test_expression.py::test_every_parameter_is_in_the_optimiser_and_moves,
    models/expression/test_expectation.py::test_zero_inflation_takes_its_share.
    """
    method = method_of(ZinbSettings())
    method(batch())[0].backward()
    assert method.network.zero is not None
    assert float(method.network.zero.weight.grad.abs().max()) > 0


def test_exp_then_log_underflow() -> None:
    """Deeper: methods/test_zinb.py::test_tiny_rates_do_not_underflow,
    models/expression/test_expectation.py::test_rates_far_below_the_smallest_number_keep_their_logarithm.
    """
    log_mu = torch.full((1,), -120.0, requires_grad=True)  # exp of it is 0 in 32 bits
    loss = nll(torch.tensor([2.0]), log_mu, torch.zeros(1), torch.zeros(1))
    loss.sum().backward()
    assert bool(loss.isfinite().all())
    assert float(log_mu.grad) == pytest.approx(-2, rel=1e-3)  # d/d log_mu of -2 log_mu


def test_inverted_focal_weight() -> None:
    """Deeper: methods/test_count_losses.py::test_rare_counts_gain_weight,
    methods/test_count_losses.py::test_focal_share_grows_with_gamma.
    """
    counts = torch.tensor([0.0, 1.0]).view(1, 1, 1, 2)
    log_zero = torch.full_like(counts, np.log(0.97))  # a zero is expected, as nearly everywhere
    zero, some = focal_weights(counts, log_zero, gamma=2.0, alpha=0.5).flatten().tolist()
    assert some > 100 * zero


def test_projectors_inside_no_grad() -> None:
    """Deeper: models/expression/test_fusion.py::test_gradients_reach_every_projector_and_every_weight."""
    method = method_of(PoissonSettings())
    method(batch())[0].backward()
    grads = [each.grad for each in method.network.projectors.parameters()]
    assert all(grad is not None for grad in grads)
    assert all(float(grad.abs().max()) > 0 for grad in grads if grad is not None)


def test_masked_mean_divided_by_pixels_only() -> None:
    """Deeper: methods/test_count_losses.py::test_more_genes_of_the_same_do_not_change_the_loss,
    methods/test_zinb.py::test_fused_mean_is_the_mean_over_mask_and_genes,
    methods/test_count_losses.py::test_bins_off_the_mask_have_no_say.
    """
    counts, mask = torch.poisson(torch.full((1, 1, 4, 4), 0.5)), torch.rand(1, 4, 4) < 0.5
    mask[0, 0, 0] = True
    one, _ = Poisson()(Prediction(torch.zeros(1, 1, 4, 4)), counts, mask)
    many, _ = Poisson()(Prediction(torch.zeros(1, 50, 4, 4)), counts.expand(1, 50, 4, 4), mask)
    assert float(many) == pytest.approx(float(one), rel=1e-5)


# ---- where things are ------------------------------------------------------------------------------------------------


def test_no_positions_in_attention() -> None:
    """Deeper: models/expression/test_cross_scale.py::test_it_matters_where_a_token_lies,
    models/expression/test_cross_scale.py::test_a_token_is_heard_by_the_bins_in_its_reach_only,
    models/expression/test_rotary.py::test_what_a_query_thinks_of_a_key_depends_on_their_distance_alone.
    """
    rng = torch.Generator().manual_seed(0)
    query, key = (torch.randn(1, 1, 1, 1, 8, generator=rng) for _ in range(2))
    here, down = torch.zeros(1), torch.full((1,), 24.0)
    per_um = waves(8, 4.0, 256.0)

    def score(rows_um: torch.Tensor, cols_um: torch.Tensor) -> float:
        return float((turned(query, here, here, per_um) * turned(key, rows_um, cols_um, per_um)).sum())

    assert len({round(each, 4) for each in (score(here, here), score(down, here), score(here, down))}) == 3


def test_misregistered_crops() -> None:
    """Deeper: data/test_expression_views.py::test_all_scales_and_the_labels_agree_within_half_a_bin,
    models/expression/test_places.py::test_a_field_of_micrometres_comes_out_at_the_bins_own_places,
    data/test_expression_batches.py::test_views_and_labels_are_of_the_same_bins_however_they_are_turned,
    verbs/expression_stages/test_expected.py::test_every_bin_of_a_mirrored_and_turned_chip_gets_what_lies_there.
    """
    coarse = places_um(4, 8.0)[None, None, None].expand(1, 1, 4, 4).clone()  # each token says its own x
    bins = places_um(8, 2.0)
    found, _ = registered(coarse, torch.ones(1, 4, 4, dtype=torch.bool), 8.0, bins)
    torch.testing.assert_close(found[0, 0, 3], bins)


def test_swapped_rows_and_columns() -> None:
    """Deeper: data/test_expression_samples.py::test_a_sample_is_the_bins_around_its_centre,
    formats/test_feature_raster.py::test_places_keep_their_shape_and_rows_are_not_columns,
    formats/test_visium_hd.py::test_every_bin_lies_where_tissue_positions_say,
    slides/test_phantom_expression.py::test_markers_follow_their_class_where_the_positions_say.
    """
    grid = BinGrid((100.0, 50.0), (0.0, 4.0), (-4.0, 0.0), 2.0)  # mirrored: columns run to the left
    assert grid.place_px0(3, 0) == (100.0, 62.0)
    assert grid.place_px0(0, 3) == (88.0, 50.0)
    assert grid.mirrored


def test_clipped_border_patches_stretched() -> None:
    """Deeper: data/test_expression_views.py::test_a_field_that_leaves_the_slide_is_not_seen_there_and_not_stretched,
    formats/test_feature_raster.py::test_beyond_the_outermost_tokens_nothing_is_stretched.
    """
    coarse, seen = torch.ones(1, 1, 4, 4), torch.ones(1, 4, 4, dtype=torch.bool)
    seen[..., 2:] = False  # the slide ends in the middle of the view
    value, told = registered(coarse, seen, 8.0, places_um(8, 4.0))
    assert bool(told[0, :, :4].all())
    assert float(value[0, 0, 0, -1]) == 0
    assert not bool(told[0, :, -1].any())


def test_label_derived_tissue_mask(tmp_path) -> None:
    """Deeper: data/test_expression_tissue.py::test_counts_never_say_where_tissue_is,
    data/test_expression_samples.py::test_bins_without_counts_count_and_bins_off_the_chip_do_not,
    methods/test_count_losses.py::test_zeros_on_tissue_count.
    """
    half = np.zeros((160, 160), bool)
    half[:, :80] = True
    empty = slide_of(tmp_path, counts_of(np.zeros((16, 1), int), full_rc(4, 4)), tissue=half)
    assert (slide_tissue(empty, TissueSettings()).mask == half).all()  # not a count, and tissue all the same


# ---- encoders --------------------------------------------------------------------------------------------------------


def test_wrong_encoder_behind_a_name() -> None:
    """Deeper: models/test_registry.py::test_the_frozen_encoders_of_the_expression_source_are_what_they_are,
    verbs/expression_stages/test_feature_encoder.py::test_what_is_not_to_be_had_is_refused,
    verbs/expression_stages/test_prediction.py::test_another_encoder_under_the_same_name_is_refused,
    dense/test_feature_rasters.py::test_other_widths_and_infinite_features_are_refused.
    """
    entry = find_entry("h-optimus-1")
    assert entry is not None
    assert (entry.token_dim, entry.prefix_tokens) == (1536, 5)  # the source had 1024, and kept the registers
    with pytest.raises(LamellaError, match="no-such-encoder"):
        feature_backbone(FeatureSettings(encoder="no-such-encoder"))


# ---- what is judged --------------------------------------------------------------------------------------------------


def test_selection_on_the_test_patient(tmp_path) -> None:
    """Deeper: verbs/expression_stages/test_training.py::test_the_test_patients_slides_are_never_opened,
    data/test_lopo.py::test_every_patient_is_judged_once_and_never_chooses,
    verbs/expression_stages/test_prediction.py::test_slides_of_the_study_are_predicted_by_models_that_have_not_seen_their_patient,
    verbs/expression_stages/test_evaluation_truth.py::test_the_test_patient_has_no_say.
    """
    slides = [slide_of(tmp_path, counts_of(np.ones((4, 1), int), full_rc(2, 2)), name=n, patient=n) for n in "ABC"]
    study = study_of(*slides)
    for fold in folds(study):
        trained, chooses = (
            {slide.patient for slide in side(study, fold)} for side in (training_slides, choosing_slides)
        )
        assert trained | chooses == set("ABC") - {fold.test}
        assert trained & chooses == set()


def test_genes_chosen_on_test_patients() -> None:
    """Deeper: data/test_gene_panel.py::test_the_judged_patient_has_no_say,
    verbs/expression_stages/test_check_study.py::test_panels_come_from_training_slides_and_are_looked_for_on_the_others.
    """

    def with_high(gene: int) -> SpatialCounts:
        table = np.ones((16, 4), int)
        table[:, gene] = 9
        return counts_of(table, full_rc(4, 4))

    training, judged = with_high(1), with_high(3)
    panel = panel_of([training], PanelSettings(choose="mean", number=1))
    assert panel == ("G1",)
    assert panel_of([training, judged], PanelSettings(choose="mean", number=2)) == ("G1", "G3")


def test_raw_outputs_scored() -> None:
    """Deeper: metrics/genes/test_scoring.py::test_raw_outputs_cannot_be_scored_as_counts,
    models/expression/test_folder.py::test_what_is_expected_is_counts_and_never_their_logarithms,
    verbs/test_expression.py::test_slides_of_the_study_are_predicted_by_models_that_have_not_seen_the_patient.
    """
    says = Prediction(torch.full((1, 1, 1, 1), -3.0), torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1, 1))
    assert float(expected(says, "zero_inflated")) == pytest.approx(0.5 * np.exp(-3))


def test_ssim_on_the_first_ten_genes_only() -> None:
    """Deeper: metrics/genes/test_ssim.py::test_all_genes_count,
    metrics/genes/test_ssim.py::test_both_definitions_equal_scikit_image,
    metrics/genes/test_ssim.py::test_skill_is_against_the_better_of_zeros_and_the_mean_map.
    """
    slide = bins(genes=12, level=1)
    wrong = slide.truth.copy()
    wrong[:, 10:] = slide.truth[:, 10:].max() - slide.truth[:, 10:]  # the eleventh and the twelfth
    scored = score([slide.with_predicted(wrong)], GeneMetricSettings(permutations=20, resolutions_um=(2.0,)))
    (found,) = (each for each in scored.slides if each.resolution_um == 2.0)
    assert (found.values["ssim_separate"][:10] > 0.99).all()
    assert (found.values["ssim_separate"][10:] < 0.5).all()


def test_ssim_reported_without_its_control() -> None:
    """Shuffled labels still had .49 of .57 there.

    Deeper: metrics/genes/test_gene_tables.py::test_every_row_has_n_interval_baseline_and_control,
    metrics/genes/test_scoring.py::test_fewer_than_twenty_shuffles_are_refused.
    """
    assert GeneMetricSettings().permutations >= 20
    with pytest.raises(ValidationError, match="permutations"):
        GeneMetricSettings(permutations=5)


# ---- the pointers ----------------------------------------------------------------------------------------------------


def test_the_deeper_tests_are_there() -> None:
    pointers = re.findall(r"([\w/]+\.py)::(test_\w+)", Path(__file__).read_text(encoding="utf-8"))
    assert len(pointers) > 35
    for file, name in pointers:
        assert f"def {name}(" in (TESTS / file).read_text(encoding="utf-8"), f"{file}::{name}"
