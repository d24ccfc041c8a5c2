"""The mistakes of the weak segmentation project that Lamella replaces, a short test each, as in test_past_mistakes.py.

Each says where the deeper tests are; `test_the_deeper_tests_are_there` holds these pointers to the truth.
"""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.models.tiny_weak import CLASSES, SCRATCH, prototypes, tiles, tiny_weak
from tests.tiny_weak import PLAN, in_files, tiny_cohort

from lamella.data.bag_batches import BagBatches, BagBatchSettings
from lamella.data.bag_study import WeakDataSettings, open_study
from lamella.data.bag_tiles import read_tiles
from lamella.data.bags import WeakStudy
from lamella.errors import CheckpointError, LamellaError
from lamella.formats.label_values import NOT_LABELLED
from lamella.geometry import Box
from lamella.methods.weak import WeakMethod, WeakSettings
from lamella.methods.weak_losses import WeakLossSettings, info_nce
from lamella.metrics.segments.confusion import confusion_of, iou_per_class, mean_of_present
from lamella.models.cosine_kmeans import cosine_kmeans
from lamella.models.prototypes import load_prototypes, random_prototypes, save_prototypes
from lamella.models.weak_building import make_weak_model
from lamella.models.weak_hub import load_weak
from lamella.models.weak_settings import WeakModelSettings
from lamella.slides.slide import open_slide
from lamella.verbs.weak_stages.evaluation_settings import EvaluationSettings
from lamella.verbs.weak_stages.training_settings import ValidationSettings

TESTS = Path(__file__).parent


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Path:
    return tiny_cohort(tmp_path_factory.mktemp("weak") / "cohort")


def study_of(cohort: Path, **data: Any) -> WeakStudy:
    files = in_files(cohort) | {"labels_are": "slide", "mpp": 0.5, "tile_px": PLAN.tile_px, **data}
    return open_study(
        PLAN.classes, "background", WeakDataSettings(**{"mask_values": {"gland": 1, "lymphoid": 3}, **files}), 0
    )


def with_tiles(cohort: Path, folder: Path, changed: dict[str, np.ndarray]) -> dict[str, str]:
    """The cohort's coordinates in a folder of their own, some of them changed."""
    for file in (cohort / "coordinates").glob("*.npy"):
        np.save(folder / file.name, changed.get(file.stem, np.load(file, allow_pickle=False)))
    return {"coordinates": str(folder)}


def tiles_of(cohort: Path, name: str) -> np.ndarray:
    return np.load(cohort / "coordinates" / f"{name}.npy", allow_pickle=False)


def names(cohort: Path) -> list[str]:
    with open(cohort / "manifest.csv", newline="", encoding="utf-8") as file:
        return [row["slide_id"] for row in csv.DictReader(file)]


# ---- where tiles are read --------------------------------------------------------------------------------------------


def test_a_missing_extension_cutting_patches_from_the_first_slide_listed(cohort, tmp_path) -> None:
    """Deeper: data/test_bag_study.py::test_names_with_and_without_extension_are_the_same_slide,
    data/test_bag_study.py::test_a_missing_slide_never_becomes_another,
    data/test_bag_coordinates.py::test_coordinates_of_another_slide_are_refused,
    verbs/weak_stages/test_prediction_places.py::test_names_with_and_without_extension_are_the_same_slide.
    """
    name = names(cohort)[3]
    named = tiles_of(cohort, name)
    kinds = [(key, named.dtype[key]) for key in named.dtype.names if key != "wsi_name"]
    longer = np.zeros(len(named), [*kinds, ("wsi_name", "U40")])
    for key, _ in kinds:
        longer[key] = named[key]
    found = []
    for number, called in enumerate((name, f"{name}.tif")):
        longer["wsi_name"] = called
        (folder := tmp_path / str(number)).mkdir()
        study = study_of(cohort, **with_tiles(cohort, folder, {name: longer}))
        found.append(read_tiles(study, study.by_id[name], [0, 1]))
    assert np.array_equal(*found)
    with open_slide(cohort / "slides" / f"{name}.tif") as slide:
        x, y = float(named["x"][0]), float(named["y"][0])
        own = slide.read(Box(x, y, x + PLAN.tile_px, y + PLAN.tile_px), 0.5).pixels
    assert np.array_equal(found[0][0], own)


def test_centre_and_top_left_mixed(cohort, tmp_path) -> None:
    """Deeper: data/test_bag_coordinates.py::test_bare_places_are_corners_or_centres_as_said,
    verbs/weak_stages/test_prediction_places.py::test_centres_are_no_corners,
    verbs/weak_stages/test_prediction_places.py::test_a_bare_list_must_say_which.
    """
    name = names(cohort)[0]
    tiles = tiles_of(cohort, name)
    corners = np.stack([tiles["x"], tiles["y"]], axis=1)
    data = with_tiles(cohort, tmp_path, {name: corners + PLAN.tile_px // 2})
    with pytest.raises(LamellaError, match="corner"):
        study_of(cohort, **data)
    said = study_of(cohort, **data, place="centre").by_id[name]
    assert np.array_equal(said.corners_px0, corners)


def test_tile_level_and_mpp_ignored(cohort, tmp_path) -> None:
    """A tile of level 1 was read at level 0: a quarter of its field.

    Deeper: data/test_bag_coordinates.py::test_levels_are_respected,
    data/test_bag_coordinates.py::test_tiles_of_another_size_are_refused,
    verbs/weak_stages/test_prediction_places.py::test_the_level_that_tiles_were_read_at_is_honoured.
    """
    name = names(cohort)[0]
    with pytest.raises(LamellaError, match=name):  # 32 um tiles are not 64 um ones
        study_of(cohort, mpp=1.0)
    coarse = study_of(cohort, mpp=1.0, tile_px=PLAN.tile_px // 2)
    fine = study_of(cohort)
    (half,) = read_tiles(coarse, coarse.by_id[name], [0])
    (whole,) = read_tiles(fine, fine.by_id[name], [0])
    blocks = whole.reshape(PLAN.tile_px // 2, 2, PLAN.tile_px // 2, 2, 3).mean(axis=(1, 3))
    assert np.abs(half - blocks).mean() < 3  # the same field, from the next level of the pyramid


def test_blank_pixels_for_reads_out_of_range(cohort, tmp_path) -> None:
    """Deeper: data/test_bag_coordinates.py::test_coordinates_out_of_the_slide_are_refused,
    data/test_bag_tiles.py::test_a_slide_that_cannot_be_read_is_an_error_and_never_blank,
    data/test_bag_batches.py::test_tiles_that_cannot_be_read_are_an_error,
    verbs/weak_stages/test_prediction_places.py::test_tiles_off_the_slide_are_refused_not_read_as_blank.
    """
    name = names(cohort)[0]
    tiles = tiles_of(cohort, name)
    tiles["y"][1] = 10 * PLAN.size_px
    with pytest.raises(LamellaError, match=name):
        study_of(cohort, **with_tiles(cohort, tmp_path, {name: tiles}))


# ---- what is learnt --------------------------------------------------------------------------------------------------


def test_a_slide_label_on_one_random_patch(cohort) -> None:
    """Deeper: methods/test_weak.py::test_a_slides_label_goes_through_the_pooling,
    methods/test_weak.py::test_pooling_none_takes_a_slides_label_for_each_tile,
    methods/test_bag_pooling.py::test_the_label_of_a_bag_reaches_only_its_top_tiles,
    verbs/weak_stages/test_training.py::test_the_source_s_way_is_a_control_by_name.
    """
    assert WeakSettings().pooling.kind == "topk"
    study = study_of(cohort)
    batches = BagBatches(study, study.of("train"), BagBatchSettings(batch_size=2, workers=0), 0)
    batch = batches.batch(0)
    assert torch.bincount(batch["bag"])[batch["bag"].unique()].tolist() == [8, 8]
    # The pooled loss asks only some of a slide's tiles: the others may be anything.
    model = tiny_weak(background=None, told=prototypes(CLASSES, (2, 1)))
    method = WeakMethod(model, WeakLossSettings(contrast={"weight": 0}, total_variation=0, sparsity=0))
    images = tiles(8).requires_grad_(False)
    told = {
        "image": images,
        "label": torch.tensor([[1, 0]] * 8),
        "known": torch.ones(8, 2),
        "bag": torch.zeros(8).long(),
    }
    maps = model.forward_scales(images)
    last = maps.class_maps[-1]
    assert last is not None
    last.retain_grad()
    answers = method.answers(maps, told)
    assert len(answers.label) == 1  # one answer for the slide, not eight
    answers.logits[-1].sum().backward()  # type: ignore[union-attr]
    asked = last.grad.abs().sum((1, 2, 3)) > 0  # type: ignore[union-attr]
    assert 0 < int(asked.sum()) < 8


def test_empty_positives_and_k_of_1() -> None:
    """Deeper: methods/test_weak_losses.py::test_no_positives_give_no_loss_and_finite_gradients,
    methods/test_weak_losses.py::test_one_prototype_of_each_class_works,
    methods/test_weak.py::test_a_batch_without_any_class_has_a_loss_and_finite_gradients,
    models/test_cosine_kmeans.py::test_k_of_one_is_the_mean_direction,
    verbs/test_weak.py::test_one_prototype_of_each_class_is_enough_and_more_than_there_are_exemplars_is_refused.
    """
    queries = torch.randn(3, 5, requires_grad=True)
    nothing = torch.zeros(3, 2, dtype=torch.bool)
    loss = info_nce(queries, torch.eye(2, 5), nothing, ~nothing, 0.07)
    loss.backward()
    assert loss.item() == 0
    assert queries.grad is not None
    assert torch.isfinite(queries.grad).all()
    centres, cluster = cosine_kmeans(torch.eye(4), 1)
    assert np.allclose(centres, 0.5)
    assert cluster.tolist() == [0] * 4


@pytest.mark.parametrize("dim", [3, 110, 512, 1280])
def test_hard_coded_512_dimensions(dim: int, tmp_path) -> None:
    """Deeper: models/test_prototypes.py::test_what_is_saved_is_loaded_whatever_the_width,
    models/test_weak_building.py::test_prototypes_of_any_dimension,
    models/test_prototype_scores.py::test_any_number_of_prototypes_and_any_dimension.
    """
    save_prototypes(tmp_path, random_prototypes(CLASSES, (2, 1), dim, 0))
    model = tiny_weak(load_prototypes(tmp_path), background=None)
    assert model.maps(tiles(1)).shape[1] == len(CLASSES)


def test_summing_before_the_log() -> None:
    """One good sample hid all bad ones.

    Deeper: methods/test_weak_losses.py::test_info_nce_is_the_mean_of_each_samples_own_loss,
    methods/test_weak_losses.py::test_info_nce_is_not_summed_before_the_logarithm.
    """
    told = torch.eye(2)
    good, bad = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    positive = torch.tensor([[True, False]])
    alone = [float(info_nce(each, told, positive, ~positive, 0.07)) for each in (good, bad)]
    both = info_nce(torch.cat([good, bad]), told, positive.repeat(2, 1), ~positive.repeat(2, 1), 0.07)
    assert both.item() == pytest.approx(sum(alone) / 2)
    assert alone[1] == pytest.approx(1 / 0.07, rel=1e-3)  # -log(e^0 / (e^0 + e^(1/t)))


def test_random_backbone_weights_with_only_a_printed_warning(tmp_path) -> None:
    """Deeper: models/test_weak_building.py::test_random_weights_are_never_taken_silently,
    models/test_weak_building.py::test_the_default_backbone_has_real_weights,
    models/test_weak_hub.py::test_a_weight_that_is_missing_is_never_left_random,
    verbs/weak_stages/test_training.py::test_random_weights_are_never_silent.
    """
    asked = WeakModelSettings(backbone=SCRATCH["backbone"])
    with pytest.raises(CheckpointError, match="from_scratch"):
        make_weak_model(asked, prototypes(), classes=CLASSES, background="background", mpp=0.5, tile_px=64)
    with pytest.raises(LamellaError):
        load_weak(tmp_path / "nothing")


def test_fp16_without_clipping() -> None:
    """Numbers beyond 65504 became infinite, and the loss NaN.

    Deeper: models/test_prototype_segmenter.py::test_half_precision_is_nearly_the_same_and_losses_see_32_bits,
    verbs/weak_stages/test_training.py::test_features_beyond_half_precision_are_clipped.
    """
    queries = torch.tensor([[6e4, 6e4], [-6e4, 6e4]], dtype=torch.float16)
    positive = torch.tensor([[True, False], [False, True]])
    loss = info_nce(queries, torch.eye(2, dtype=torch.float16), positive, ~positive, 0.001)
    assert torch.isfinite(loss)
    assert loss.dtype == torch.float32


# ---- what is judged --------------------------------------------------------------------------------------------------


def test_true_labels_gating_test_maps_unflagged() -> None:
    """Deeper: verbs/weak_stages/test_evaluation.py::test_true_labels_gate_nothing_but_the_row_that_says_so,
    verbs/weak_stages/test_evaluation_maps.py::test_a_gate_takes_out_absent_classes_and_never_the_background,
    verbs/test_weak.py::test_results_hold_the_sources_measures_and_three_rows.
    """
    model = tiny_weak()
    maps = model.maps(tiles(1))
    assert maps.shape[1] == len(CLASSES) + 1  # what the model says by itself holds every class, whatever the label
    assert (maps > 0).all()
    gated = model.gated(maps, torch.tensor([[1, 0]]))
    assert (gated[:, 1] == 0).all()
    assert (gated[:, 2] > 0).all()


def test_background_dropped_before_the_argmax() -> None:
    """Deeper: models/test_prototype_segmenter.py::test_the_background_is_the_last_channel_and_competes,
    verbs/weak_stages/test_evaluation.py::test_the_background_competes_everywhere,
    verbs/weak_stages/test_prediction.py::test_a_slide_that_is_all_background_has_a_mask_of_background.
    """
    model = tiny_weak(background_score="power")
    with torch.no_grad():
        model.scores.offset_SM -= 50  # nothing is like any class
    assert (model.maps(tiles(2)).argmax(1) == len(CLASSES)).all()


def test_validation_on_the_first_coordinate_only() -> None:
    """Deeper: verbs/weak_stages/test_training_validation.py::test_every_tile_of_a_slide_is_asked,
    verbs/weak_stages/test_training_validation.py::test_a_sample_of_tiles_is_drawn_once,
    verbs/weak_stages/test_evaluation.py::test_every_pixel_of_every_tile_is_judged.
    """
    assert ValidationSettings().tiles_per_bag is None or ValidationSettings().tiles_per_bag > 1


def test_last_instead_of_best_weights_reported() -> None:
    """Deeper: verbs/weak_stages/test_training.py::test_the_best_weights_are_exported_not_the_last,
    verbs/weak_stages/test_training.py::test_without_validation_the_last_weights_are_kept_and_called_so,
    verbs/weak_stages/test_evaluation.py::test_the_best_weights_are_judged_and_the_last_ones_only_when_asked_for.
    """
    assert EvaluationSettings().weights == "best"


def test_nan_of_an_absent_class_poisoning_best() -> None:
    """Deeper: verbs/weak_stages/test_training_validation.py::test_the_iou_of_masks_and_a_class_that_is_absent,
    verbs/weak_stages/test_evaluation.py::test_a_class_that_no_judged_slide_holds_has_no_number_and_spoils_none.
    """
    truth = np.array([[0, 0, NOT_LABELLED]], np.uint8)
    found = iou_per_class(confusion_of(truth, truth.clip(0, 1), 3))
    assert found[0] == 1
    assert np.isnan(found[1:]).all()
    assert float(mean_of_present(found)) == 1


# ---- the pointers ----------------------------------------------------------------------------------------------------


def test_the_deeper_tests_are_there() -> None:
    pointers = re.findall(r"([\w/]+\.py)::(test_\w+)", Path(__file__).read_text(encoding="utf-8"))
    assert len(pointers) > 40
    for file, name in pointers:
        assert f"def {name}(" in (TESTS / file).read_text(encoding="utf-8"), f"{file}::{name}"
