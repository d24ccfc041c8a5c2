"""The mistakes of the segmentation project that Lamella replaces: one short test each, as in test_past_mistakes.py.

Each says where the deeper tests are; `test_the_deeper_tests_are_there` holds these pointers to the truth.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.metrics.segments.segment_rows import protocol, row
from tests.models.tiny_sam2 import tiny_sam2

from lamella.data.segmentation_augment import Labelled, SegmentationAugmentSettings, augmented
from lamella.formats.label_values import NOT_LABELLED
from lamella.imaging.datasets.class_map import open_class_map
from lamella.imaging.datasets.collection import Collection
from lamella.imaging.datasets.mask_channels import as_channels, channels_of
from lamella.methods.region_losses import RegionLossSettings, region_loss
from lamella.metrics.report import Report, ReportError
from lamella.metrics.segments.confusion import any_tissue_dice, confusion_of, dice_per_class
from lamella.models.canvas import Canvas
from lamella.models.embedding_cache import EmbeddingCache
from lamella.models.lora import add_lora, lora_parameters
from lamella.models.prompt_tta import Averaged
from lamella.models.promptable_model import MASK_LOGIT
from lamella.models.prompts import NOT_THIS, PADDING, THIS, Prompts
from lamella.models.regions import MODES, RegionSettings, isolated, region_of_mask
from lamella.models.simulated_user import Given, as_prompts, box_of, true_objects

TESTS = Path(__file__).parent


def picture(height: int = 40, width: int = 60, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def rectangle(y: slice, x: slice, height: int = 40, width: int = 60) -> np.ndarray:
    mask = np.zeros((height, width), np.uint8)
    mask[y, x] = 1
    return mask


# ---- images and prompts ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_whitening_the_image_in_place_while_cropping(mode: str) -> None:
    """The next region of the same image was cut from a picture with holes.

    Deeper: models/test_regions.py::test_the_image_is_never_changed,
    models/test_regions.py::test_pixels_of_the_region_are_shown_as_they_are_in_every_mode,
    models/test_canvas.py::test_below_and_right_is_filled_and_the_image_is_not_written_to,
    models/test_sam2.py::test_the_image_is_not_written_to,
    data/test_segmentation_augment.py::test_nothing_is_changed_in_place.
    """
    pixels = picture()
    first, second = (region_of_mask(rectangle(slice(5, 20), slice(left, left + 20)) > 0) for left in (5, 12))
    before = isolated(pixels, second, mode, RegionSettings(), (123, 117, 104))
    isolated(pixels, first, mode, RegionSettings(), (123, 117, 104))[:] = 255
    assert np.array_equal(isolated(pixels, second, mode, RegionSettings(), (123, 117, 104)), before)


@pytest.mark.parametrize("seed", range(8))
def test_prompts_not_transformed_with_the_image(seed: int) -> None:
    """The image was turned and warped, its box and clicks stayed: fine-tuning learned to answer other places.

    Deeper: data/test_segmentation_augment.py::test_points_inside_the_mask_stay_inside,
    data/test_segmentation_augment.py::test_the_box_of_the_turned_mask_is_the_turned_box,
    data/test_segmentation_augment.py::test_a_disc_and_its_centre_and_box_are_warped_together,
    data/test_prompted_objects.py::test_prompts_lie_on_the_mask_as_it_is_after_the_tile_was_turned_and_warped,
    models/test_prompt_tta.py::test_places_go_where_their_pixels_go.
    """
    mask = rectangle(slice(4, 20), slice(35, 55))
    box = np.array([[35.0, 4, 55, 20]])
    labelled = Labelled(picture(), (mask,), np.array([[45.0, 12]]), np.array([THIS]), box)
    moved = augmented(labelled, SegmentationAugmentSettings(elastic=1.0), np.random.default_rng(seed))
    x, y = np.floor(moved.points_P2[0]).astype(int)
    assert moved.masks[0][y, x] == 1
    assert moved.boxes_M4[0] == pytest.approx(box_of(moved.masks[0] > 0), abs=3)  # a warp moves by about a pixel


def test_x_and_y_scale_swapped() -> None:
    """Deeper: models/test_canvas.py::test_x_and_y_have_their_own_scale,
    models/test_sam2.py::test_places_reach_the_network_where_they_are,
    models/test_prompts.py::test_width_and_height_are_not_exchanged,
    data/test_segmentation_augment.py::test_x_and_y_are_never_swapped_on_images_that_are_no_squares.
    """
    squashed = Canvas((30, 90), 60, squash=True)
    assert squashed.to_canvas(torch.tensor([90.0, 30.0])).tolist() == [60, 60]
    assert squashed.to_canvas(torch.tensor([45.0, 10.0])).tolist() == [30, 20]
    kept = Canvas((30, 90), 60)
    assert kept.filled_px == (20, 60)


def test_padding_clicks_as_negatives() -> None:
    """Rows were filled up with label 0, which is a negative click in the corner of the image.

    Deeper: models/test_sam2.py::test_padding_is_no_negative_click,
    models/test_prompts.py::test_padding_is_no_click_wherever_it_lies,
    models/test_simulated_user.py::test_prompts_are_padded_with_no_click_and_missing_boxes_are_said,
    data/test_segmentation_augment.py::test_padding_points_stay_padding.
    """
    one, three = (Given(((5.5, 5.5),) * count, (THIS,) * count) for count in (1, 3))
    prompts = as_prompts([[one, three]])
    assert prompts.labels_BMP[0].tolist() == [[THIS, PADDING, PADDING], [THIS, THIS, THIS]]
    assert PADDING not in (THIS, NOT_THIS)
    model = tiny_sam2()
    embedded = model.embed(torch.from_numpy(picture()).permute(2, 0, 1)[None])
    alone, beside = (model.decode(embedded, each).logits_BMKhw[0, 0] for each in (as_prompts([[one]]), prompts))
    assert torch.equal(alone, beside)


def test_box_of_the_largest_component_scored_against_the_whole_class() -> None:
    """A tumour in five nests was prompted with the box of one and scored on all: at best a fifth.

    Deeper: models/test_simulated_user.py::test_objects_are_connected_parts_of_one_class,
    data/test_prompted_objects.py::test_objects_are_connected_and_of_the_known_part,
    models/test_regions.py::test_regions_cover_their_classes_once_and_nothing_else.
    """
    mask = rectangle(slice(2, 30), slice(2, 25)) | rectangle(slice(10, 20), slice(40, 50))
    found = true_objects(mask, background=0)
    assert [each.area_px for each in found] == [28 * 23, 100]
    for each in found:
        # The box that is given and the mask that is scored are those of one object.
        assert each.box == box_of(each.mask(*mask.shape))
    assert sum(each.area_px for each in found) == mask.sum()


# ---- classes ---------------------------------------------------------------------------------------------------------


def test_class_ids_drifting_between_scripts() -> None:
    """One script had the vessels at 9, which is fat; another at 5.

    Deeper: imaging/datasets/test_class_map.py::test_ids_of_the_shipped_maps_cannot_drift,
    imaging/datasets/test_class_map.py::test_bcss5_blood_vessel_is_18_and_fat_is_background,
    imaging/datasets/test_class_map.py::test_prompts_for_naming_speak_of_the_same_classes.
    """
    found = open_class_map("bcss5")
    codes = np.array([[18, 9, 1, 2, 3, 4]])
    values = found.ids_of(codes, "a mask")
    told: list[list[str]] = []
    for ids in (found.ids, dict(reversed(found.ids.items()))):  # whatever the order they are written in
        named = Collection("bcss", "image", (), read=lambda _: None, mask_classes=ids, mask_background=found.background)
        channels = as_channels(values, named)
        told.append([channels_of(named)[channel] for channel in channels[0]])
    assert told[0] == ["blood_vessel", "other", "tumor", "stroma", "lymphocytic_infiltrate", "necrosis_or_debris"]
    assert told[1] == told[0]


def test_ignored_area_as_background() -> None:
    """Deeper: imaging/datasets/test_class_map.py::test_ignored_area_is_never_background,
    data/test_labelled_tiles.py::test_ignored_area_is_never_background,
    methods/test_region_losses.py::test_what_is_not_labelled_changes_nothing,
    methods/test_sam_loss.py::test_what_is_not_known_changes_neither_loss_nor_gradient,
    models/test_mask2former.py::test_what_is_not_labelled_has_no_say_and_no_gradient,
    metrics/segments/test_confusion.py::test_ignored_pixels_change_nothing.
    """
    assert open_class_map("bcss5").ids_of(np.array([0, 7]), "a mask").tolist() == [NOT_LABELLED] * 2
    mask = torch.zeros(1, 8, 8, dtype=torch.uint8)
    mask[:, :, 4:] = NOT_LABELLED
    logits = torch.zeros(1, 2, 8, 8, requires_grad=True)
    loss, _ = region_loss(logits, mask, torch.ones(2), RegionLossSettings())
    loss.backward()
    assert (logits.grad[..., 4:] == 0).all()
    assert (logits.grad[..., :4] != 0).any()
    assert confusion_of(mask[0].numpy(), np.ones((8, 8), np.uint8), 2).sum() == 32


def test_the_validation_metric_asks_which_tissue_not_whether_any() -> None:
    """`Any tissue?` said 0.82 where the Dice of the classes was 0.42.

    Deeper: metrics/segments/test_confusion.py::test_any_tissue_is_perfect_where_every_class_is_wrong,
    metrics/segments/test_tables.py::test_any_tissue_stands_beside_the_classes_under_the_name_it_deserves,
    verbs/adapting/test_segment_validation.py::test_dice_is_of_all_pixels_together_and_a_missed_class_counts_as_0.
    """
    truth = rectangle(slice(5, 35), slice(5, 30)) + 2 * rectangle(slice(5, 35), slice(30, 55))
    exchanged = np.array([0, 2, 1], np.uint8)[truth]  # all tissue is found, every class is wrong
    matrix = confusion_of(truth, exchanged, 3)
    assert any_tissue_dice(matrix, 0) == 1
    assert dice_per_class(matrix).tolist() == [1, 0, 0]


def test_a_mask_loss_without_a_gradient_at_the_start() -> None:
    """Fine-tuning did not forget: it never learned, because a gate was closed and weights were not applied.

    Deeper: methods/test_prompted.py::test_the_mask_learns_from_the_first_step_on,
    methods/test_segment.py::test_every_part_has_a_gradient_at_step_0,
    methods/test_region_losses.py::test_weights_change_the_gradient,
    methods/test_prompted.py::test_weights_of_classes_change_the_gradient,
    verbs/adapting/test_prompted.py::test_validation_before_the_first_step_gives_the_zero_shot_numbers_exactly.
    """
    mask = torch.from_numpy(rectangle(slice(5, 35), slice(5, 30)))[None]
    sizes = []
    for weight in (1.0, 4.0):
        logits = torch.zeros(1, 2, 40, 60, requires_grad=True)
        region_loss(logits, mask, torch.tensor([1.0, weight]), RegionLossSettings())[0].backward()
        inside = logits.grad[0, 1][mask[0] == 1].abs().sum() / logits.grad.abs().sum()
        sizes.append(float(inside))
    assert sizes[0] > 0
    assert sizes[1] > 1.5 * sizes[0]


# ---- what is compared ------------------------------------------------------------------------------------------------


def test_different_n_per_row() -> None:
    """Zero-shot was scored on 45 images, fine-tuned on the 30 that did not fail, in one table.

    Deeper: metrics/segments/test_three_tasks.py::test_rows_of_different_n_in_one_measure_are_refused,
    metrics/segments/test_tables.py::test_a_predictor_that_was_not_scored_on_every_image_is_refused.
    """
    with pytest.raises(ReportError, match="different n"):
        Report("t", [row(protocol(), n=45), row(protocol(), n=30)])


def test_ties_in_test_time_augmentation() -> None:
    """Binary masks of four turns were averaged and cut at >= 0.5: two against two was tissue.

    Deeper: models/test_prompt_tta.py::test_probabilities_are_averaged_and_ties_are_no_object,
    models/test_prompt_tta.py::test_a_model_that_turns_with_the_image_answers_the_same.
    """
    # Two turns: 0.9 and 0.2 are an object, though one mask says so and one does not; 0.6 and 0.4 are a tie.
    probability = torch.tensor([[[[(0.9 + 0.2) / 2, (0.6 + 0.4) / 2]]]])
    assert Averaged(probability, torch.ones(1, 1)).masks_BMHW.tolist() == [[[[True, False]]]]
    # A tie is what a logit of 0 is, so that turned and plain answers agree.
    assert not torch.tensor(0.0) > MASK_LOGIT


def test_lora_trained_through_a_path_that_is_never_evaluated() -> None:
    """Deeper: models/test_lora.py::test_it_trains_through_the_path_that_is_evaluated,
    models/test_lora.py::test_step_0_is_the_same_and_only_the_additions_are_thawed,
    verbs/adapting/test_prompted.py::test_lora_is_trained_through_the_path_that_is_evaluated,
    models/test_lora.py::test_merging_keeps_the_answers.
    """
    pytest.importorskip("peft", reason="the extra `lora`")
    model, image = tiny_sam2(), torch.from_numpy(picture()).permute(2, 0, 1)[None]
    before = model.embed(image).features[0].detach()
    add_lora(model, rank=2)
    assert torch.allclose(model.embed(image).features[0], before, atol=1e-6)
    with torch.no_grad():
        for each in lora_parameters(model):
            each += 0.1
    assert not torch.allclose(model.embed(image).features[0], before, atol=1e-3)


def test_logits_thresholded_at_a_half() -> None:
    """sigmoid(0.5) is 0.62: every mask was too small.

    Deeper: models/test_sam2.py::test_masks_begin_at_zero,
    methods/test_sam_loss.py::test_masks_are_cut_at_probability_one_half.
    """
    logits = torch.tensor([-0.1, 0.0, 0.1, 0.4, 0.6])
    assert ((logits > MASK_LOGIT) == (logits.sigmoid() > 0.5)).all()
    source = "\n".join(path.read_text(encoding="utf-8") for path in (TESTS.parent / "src").rglob("*.py"))
    assert not re.search(r"logits\w*(\[[^]]*\])?\s*>=?\s*0?\.5", source)


def test_embeddings_recomputed_for_every_prompt() -> None:
    """Deeper: models/test_embedding_cache.py::test_five_prompts_of_five_classes_cost_one_pass,
    models/test_embedding_cache.py::test_other_pixels_other_weights_and_other_sizes_are_others,
    methods/test_prompted.py::test_kept_embeddings_give_the_same_loss_with_one_pass_a_view.
    """
    model = tiny_sam2()
    cache = EmbeddingCache(model)
    image = torch.from_numpy(picture()).permute(2, 0, 1)[None]
    for left in range(5):
        box = torch.tensor([[[left, 2.0, left + 20, 30.0]]])
        model.decode(cache.embed(image), Prompts(boxes_BM4=box))
    assert (cache.passes, cache.hits) == (1, 4)


# ---- the pointers ----------------------------------------------------------------------------------------------------


def test_the_deeper_tests_are_there() -> None:
    pointers = re.findall(r"([\w/]+\.py)::(test_\w+)", Path(__file__).read_text(encoding="utf-8"))
    assert len(pointers) > 25
    for file, name in pointers:
        assert f"def {name}(" in (TESTS / file).read_text(encoding="utf-8"), f"{file}::{name}"
