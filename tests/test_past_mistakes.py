"""The mistakes of the project that Lamella replaces: one short test each, which fails if the mistake comes back.

The list is the specification's. Each says where the deeper tests are; `test_the_deeper_tests_are_there` holds these
pointers to the truth.
"""

from __future__ import annotations

import gzip
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import torch
from pydantic import BaseModel, ValidationError
from sklearn.metrics import accuracy_score
from tests.imaging.datasets.miniatures import make_class_folder, make_glas, picture
from tests.imaging.dicoms import ct_slice
from tests.imaging.test_deidentify import RULES, SECRETS, as_bytes, planted, round_trip
from tests.methods.test_jepa import GRID, make_batch, make_method, parts, token_mask, with_pixels_changed
from tests.metrics.image_studies import several_labels

import lamella
from lamella.cli import VERBS, main, schemas_of
from lamella.config import Settings
from lamella.data.masks.exact import Block3dMaskSettings, BlockMaskSettings, Random3dMaskSettings, RandomMaskSettings
from lamella.data.masks.kinds import draw_masks
from lamella.data.masks.multiblock import MultiBlockMaskSettings
from lamella.data.splits import LeakageError
from lamella.errors import DatasetError, ImageError
from lamella.imaging.datasets.collection import Collection, Item
from lamella.imaging.datasets.opening import DatasetSettings, open_collection
from lamella.imaging.deidentify import deidentify
from lamella.imaging.intensity import IntensitySettings, to_bytes_rgb
from lamella.imaging.measured import MedicalImage
from lamella.imaging.reading import read_image, read_volume
from lamella.methods.sigreg import EXPECTED, sigreg
from lamella.metrics.ask_several import ask_several
from lamella.metrics.dice import dice, mean_dice, overlaps
from lamella.metrics.ranking import auc
from lamella.metrics.report import Report, ReportError
from lamella.models.encoders import InputContract, ViTEncoder, fresh_vit
from lamella.models.hub import load_encoder, save_pretrained
from lamella.models.pretraining_record import PretrainingRecord
from lamella.models.vit import ViTSettings
from lamella.verbs.evaluation.scope import scope_of

TESTS = Path(__file__).parent


# ---- methods --------------------------------------------------------------------------------------------------------


def test_targets_leak_into_the_context() -> None:
    """Everything was encoded before the split, so attention had seen the targets.

    Deeper: methods/test_jepa.py::test_the_context_never_sees_pixels_of_the_targets,
    methods/test_space_time.py::test_hidden_voxels_change_neither_context_nor_prediction,
    methods/test_cross_jepa.py::test_target_pixels_of_the_context_never_enter_the_context_encoder,
    models/test_vit.py::test_dropping_tokens_is_masking_them_and_gathering_the_rest.
    """
    method, batch = make_method(), make_batch()
    hidden = torch.ones(len(batch["image"]), GRID[0] * GRID[1], dtype=torch.bool)
    hidden &= ~token_mask(batch["context"], batch["context_pad"])
    changed = with_pixels_changed(batch, hidden)
    assert (changed["image"] != batch["image"]).float().mean() > 0.2
    for before, after in zip(parts(method, batch)[:2], parts(method, changed)[:2], strict=True):
        assert torch.equal(before, after)  # context tokens and predictions
    assert not torch.equal(parts(method, batch)[2], parts(method, changed)[2])  # targets


def test_sigreg_under_which_collapse_is_cheaper() -> None:
    """A total collapse cost the covariance penalty 1/D; learning cost more.

    Deeper: methods/test_sigreg.py::test_every_departure_costs,
    methods/test_lejepa.py::test_an_encoder_that_learns_beats_one_that_collapsed,
    methods/test_jepa.py::test_with_a_regulariser_collapse_costs_more_than_learning,
    methods/test_space_time.py::test_with_sigreg_a_collapsed_encoder_has_the_higher_loss.
    """
    healthy = torch.randn(256, 32, generator=torch.Generator().manual_seed(0))
    one_dimension = healthy[:, :1].repeat(1, 32)
    costs = [float(sigreg(rows, 0, 256)) for rows in (healthy, torch.zeros_like(healthy), one_dimension, healthy / 10)]
    assert costs[0] < 2 * EXPECTED
    assert min(costs[1:]) > 5 * costs[0]


# ---- masks ----------------------------------------------------------------------------------------------------------


def test_one_mask_per_batch() -> None:
    """Deeper: data/masks/test_masks.py::test_samples_seeds_and_numbers_get_masks_of_their_own,
    data/masks/test_multiblock.py::test_sizes_differ_within_a_batch.
    """
    for settings in (RandomMaskSettings(), BlockMaskSettings(), MultiBlockMaskSettings()):
        drawn = draw_masks(settings, (14, 14), 0, range(8))
        assert len({drawn[sample].context.tobytes() for sample in range(8)}) == 8


@pytest.mark.parametrize("ratio", [0.4, 0.75])
def test_the_ratio_is_not_reached(ratio: float) -> None:
    """Deeper: data/masks/test_masks.py::test_the_ratio_is_met_to_the_token,
    data/masks/test_over_time.py::test_temporal_counts_are_exact.
    """
    for kind, grid in (
        (RandomMaskSettings, (14, 14)),
        (BlockMaskSettings, (14, 14)),
        (Random3dMaskSettings, (6, 7, 8)),
        (Block3dMaskSettings, (6, 7, 8)),
    ):
        drawn = draw_masks(kind(ratio=ratio), grid, 0, range(5))
        hidden = {int(np.prod(grid)) - drawn[sample].context.size for sample in range(5)}
        assert hidden == {round(ratio * int(np.prod(grid)))}


# ---- files ----------------------------------------------------------------------------------------------------------


def test_a_blank_image_for_a_missing_file(tmp_path: Path) -> None:
    """Deeper: imaging/datasets/test_refusals.py::test_images_that_are_missing_or_there_twice,
    verbs/pretraining/test_collections.py::test_one_image_that_cannot_be_read_ends_the_run_and_is_named,
    data/test_masked_images.py::test_what_cannot_be_masked_or_read_is_refused_and_nothing_replaced,
    test_bad_images.py::test_pretraining_ends_and_nothing_takes_its_place.
    """
    table = make_glas(tmp_path)
    opened = open_collection(table)
    gone = opened.items[1]
    gone.sources[0].unlink()
    with pytest.raises(ImageError, match=gone.sources[0].name):  # it went away after the data set was opened
        opened.read(gone)
    with pytest.raises(DatasetError, match=f"there is no file images/{gone.sources[0].name}"):
        open_collection(table)


def test_gz_is_taken_for_nifti(tmp_path: Path) -> None:
    """Deeper: imaging/test_nifti.py::test_a_gz_that_is_no_nifti_is_an_error,
    imaging/test_nifti.py::test_the_bytes_decide_and_not_the_name.
    """
    (tmp_path / "notes.csv.gz").write_bytes(gzip.compress(b"a,b\n1,2\n"))
    with pytest.raises(ImageError, match=r"notes\.csv\.gz"):
        read_volume(tmp_path / "notes.csv.gz")
    nibabel.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.eye(4)).to_filename(tmp_path / "a.nii.gz")
    (tmp_path / "a.nii.gz").rename(tmp_path / "scan.bin")
    assert read_volume(tmp_path / "scan.bin").values_CZYX.shape == (1, 4, 3, 2)


def test_hounsfield_units_are_destroyed_by_min_max(tmp_path: Path) -> None:
    """The grey of water depended on the brightest metal in the image.

    Deeper: imaging/test_intensity.py::test_one_bright_pixel_does_not_darken_the_rest,
    imaging/test_intensity.py::test_a_network_gets_hounsfield_units_by_window_from_minus_1_to_1,
    imaging/test_dicom_image.py::test_slope_and_intercept_give_hounsfield_units.
    """
    stored = np.full((8, 8), 1024 + 40, np.int16)  # 40 HU, the middle of the soft tissue window
    stored[0, 0] = 0
    shown = []
    for name, most in (("plain", 1500), ("metal", 20_000)):
        stored[7, 7] = most
        path = ct_slice(tmp_path / f"{name}.dcm", stored, (0, 0, 0))
        read = read_image(path)
        assert (read.unit, float(read.values[4, 4])) == ("HU", 40)
        shown.append(to_bytes_rgb(read, IntensitySettings(window="soft_tissue"))[4, 4, 0])
    assert shown[0] == shown[1] in (127, 128)


def test_an_anonymiser_that_leaves_what_it_should_remove(tmp_path: Path) -> None:
    """It wrote invalid values and left UIDs, private tags and sequences.

    Deeper: imaging/test_deidentify.py::test_no_planted_value_is_in_the_bytes_that_come_out,
    imaging/test_deidentify.py::test_values_that_stand_in_are_valid,
    imaging/test_deidentify.py::test_uids_are_new_and_agree_over_a_study,
    imaging/test_deidentify.py::test_real_files_keep_nothing_personal_and_every_pixel.
    """
    data = round_trip(planted()[0])
    uids = {data.StudyInstanceUID, data.SeriesInstanceUID, data.SOPInstanceUID}
    deidentify("planted", data, RULES)
    written = tmp_path / "out.dcm"
    written.write_bytes(as_bytes(data))
    assert not [secret for secret in SECRETS.values() if secret.encode() in written.read_bytes()]
    with pydicom.config.disable_value_validation():
        out = pydicom.dcmread(written)
    assert not uids & {out.StudyInstanceUID, out.SeriesInstanceUID, out.SOPInstanceUID}
    for element in out.iterall():
        assert not element.tag.is_private
        for value in element.value if element.VM > 1 else [element.value]:
            if element.VR in ("AS", "CS", "DA", "DS", "DT", "IS", "TM", "UI") and value is not None:
                pydicom.valuerep.validate_value(element.VR, str(value), pydicom.config.RAISE)


# ---- settings and models --------------------------------------------------------------------------------------------


def all_schemas() -> Iterator[type[BaseModel]]:
    for verb in VERBS:
        yield from schemas_of(verb).values()


def schemas_within(schema: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """A schema and those of its fields, variants too."""
    yield schema
    for field in schema.model_fields.values():
        for part in re.findall(r"lamella[\w.]+", repr(field.annotation)):
            module, _, name = part.rpartition(".")
            found = getattr(importlib.import_module(module), name, None)
            if isinstance(found, type) and issubclass(found, BaseModel):
                yield from schemas_within(found)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from schemas_within(field.annotation)


def test_yaml_keys_that_nobody_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Deeper: test_config.py::test_all_problems_come_at_once_with_suggestion_and_origin,
    verbs/pretraining/test_collections.py::test_settings_that_do_not_fit_are_refused,
    imaging/datasets/test_refusals.py::test_a_setting_that_the_layout_does_not_use.
    """
    schemas = {each for schema in all_schemas() for each in schemas_within(schema)}
    assert len(schemas) > 40
    for schema in schemas:
        assert issubclass(schema, Settings)
        assert schema.model_config["extra"] == "forbid", schema
    with pytest.raises(ValidationError, match="masking_ratio"):
        BlockMaskSettings.model_validate({"masking_ratio": 0.75})
    (tmp_path / "run.yaml").write_text("method: {name: ijepa}\ntraining: {epochs: 100}\n")
    make_class_folder(tmp_path / "data")
    assert (
        main(["pretrain", str(tmp_path / "data"), "-r", str(tmp_path / "run.yaml"), "-o", str(tmp_path / "out")]) == 2
    )
    assert "training" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_without_the_models_configuration(tmp_path: Path) -> None:
    """Deeper: models/test_hub.py::test_what_is_loaded_is_what_was_saved,
    models/test_hub.py::test_a_spoiled_configuration_is_named,
    engine/test_checkpoint.py::test_another_architecture_is_refused_with_the_first_differences.
    """
    vit = fresh_vit(ViTSettings(dim=24, depth=1, heads=2, patch_px=8, wave_min=8, wave_max=64), 3)
    encoder = ViTEncoder(vit, InputContract(None, 32, (0.5,) * 3, (0.25,) * 3, patch_px=8, dim=24), "tiny")
    save_pretrained(encoder, tmp_path / "model", "card")
    pixels = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(lamella.from_pretrained(tmp_path / "model").pooled(pixels), encoder.pooled(pixels))
    (tmp_path / "model" / "config.json").unlink()
    with pytest.raises(lamella.errors.LamellaError, match=r"config\.json"):
        load_encoder(str(tmp_path / "model"))


# ---- labels, splits, leakage ----------------------------------------------------------------------------------------


def test_string_labels_crash(tmp_path: Path) -> None:
    """Deeper: imaging/datasets/test_csv_manifest.py::test_every_column_by_its_name_and_by_setting,
    imaging/datasets/test_known_layouts.py::test_ham10000,
    verbs/evaluation/test_images.py::test_a_data_set_of_images_gets_a_table_with_everything_beside_the_model.
    """
    collection = open_collection(make_glas(tmp_path))
    assert collection.classes == ("benign", "malignant")
    with pytest.raises(DatasetError, match="unknown label 'malignant'"):
        open_collection(tmp_path / "manifest.csv", DatasetSettings(classes=("benign", "Malignant")))


def patients(splits: dict[str, str | None]) -> Collection:
    """Two images of each patient, whose split is given."""
    items = tuple(
        Item(f"{patient}_{number}", (Path(f"{patient}_{number}.png"),), labels=("a",), group=patient, split=split)  # type: ignore[arg-type]
        for patient, split in splits.items()
        for number in range(2)
    )
    return Collection("toys", "image", items, lambda item: MedicalImage(np.zeros((2, 2)), "byte"), ("a",))


def test_image_level_splits(tmp_path: Path) -> None:
    """Images of one patient were on both sides.

    Deeper: verbs/evaluation/test_scope.py::test_folds_judge_each_item_once_and_never_tear_a_group,
    verbs/evaluation/test_scope.py::test_a_group_in_train_and_test_is_named,
    data/test_splits.py::test_no_group_is_in_two_folds_and_no_fold_is_empty,
    metrics/test_ask_sites.py::test_no_group_and_no_site_of_the_judged_rows_is_fitted_on,
    metrics/test_attentive.py::test_without_a_validation_split_groups_of_the_training_part_choose_and_test_rows_never.
    """
    torn = patients({"p1": "train", "p2": "test"})
    moved = tuple(Item("p1_9", (Path("p1_9.png"),), labels=("a",), group="p1", split="test") for _ in range(1))
    with pytest.raises(LeakageError, match="p1"):
        scope_of(torn.only([*torn.items, *moved]), None, seen="refuse", digest=lambda item: "", known=True)
    for number in range(2):
        picture(tmp_path / f"{number}.png", number)
    (tmp_path / "t.csv").write_text("image,label,patient,split\n0.png,a,p1,train\n1.png,a,p1,test\n")
    with pytest.raises(DatasetError, match="patient p1 is in test and train"):
        open_collection(tmp_path / "t.csv")


def test_pretraining_on_test_images() -> None:
    """Deeper: verbs/evaluation/test_scope.py::test_judged_items_that_were_in_pretraining_are_refused_by_name,
    data/test_training_items.py::test_groups_of_the_excluded_split_are_left_out_whole,
    verbs/evaluation/test_images.py::test_a_test_image_that_was_in_pretraining_is_refused,
    verbs/evaluation/test_volumes.py::test_a_patient_of_the_pretraining_is_refused_and_can_be_fitted_on_only,
    verbs/evaluation/test_slides.py::test_seen_slides_can_be_refused_or_left_out,
    test_bad_images.py::test_judged_images_of_the_pretraining_are_refused_by_every_name_they_go_by.
    """
    toys = patients({"p1": "train", "p2": "test", "p3": "test"})
    record = PretrainingRecord.of(["toys"], ["toys/p1", "toys/p3"], ["toys/p1_0"], [])
    with pytest.raises(LeakageError, match=r"2 of 4 judged items were in pretraining \(image p3\)"):
        scope_of(toys, record, seen="refuse", digest=lambda item: "", known=False)


# ---- what is reported -----------------------------------------------------------------------------------------------


def test_fabricated_labels_and_curves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without labels a table was drawn from random ones; without a run, curves from a formula.

    Deeper: verbs/evaluation/test_images.py::test_what_the_data_cannot_answer_is_said,
    view/test_curves.py::test_a_run_without_steps_is_not_drawn,
    verbs/test_explain.py::test_paths_that_are_nothing_are_refused,
    view/test_efficiency.py::test_a_damaged_table_is_refused,
    verbs/test_pretrain.py::test_a_finished_run_whose_logs_are_gone_is_not_described,
    test_bad_images.py::test_a_question_without_an_answer_gets_no_number.
    """
    with pytest.raises(ReportError):  # a number needs its n, its interval and something to compare it with
        Report("t", [row for row in ask_several(several_labels()).rows if row.measure == "element-wise accuracy"])
    (tmp_path / "run").mkdir()
    assert main(["explain", str(tmp_path / "run"), "-o", str(tmp_path / "out")]) == 2
    assert str(tmp_path / "run") in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.png"))


def test_swallowed_auc_errors() -> None:
    """One class only gave 0.5, or 0.

    Deeper: metrics/test_ranking.py::test_a_class_that_is_missing_is_undefined_not_a_half_and_no_error_is_swallowed,
    metrics/test_ask_several.py::test_each_class_has_its_values_and_one_without_positives_is_named_and_in_no_mean,
    metrics/test_bootstrap.py::test_a_statistic_that_is_mostly_undefined_gets_the_whole_range_and_a_reason,
    test_design.py::test_no_pickle_no_unsafe_load_no_swallowed_error_no_room_without_a_noun.
    """
    assert np.isnan(auc(np.arange(4.0), np.zeros(4, bool), np.ones((1, 4)))).all()
    with pytest.raises(ValueError, match="finite"):
        auc(np.array([0.0, np.nan]), np.array([True, False]), np.ones((1, 2)))


def test_element_wise_accuracy_is_called_accuracy() -> None:
    """Of 14 findings most are absent, so saying `none` was right in 95 %.

    Deeper: metrics/test_ask_several.py::test_exact_match_and_element_wise_accuracy_never_stand_alone,
    metrics/test_report.py::test_accuracy_never_stands_without_balanced_accuracy_and_the_majority_rate.
    """
    rows = ask_several(several_labels()).rows
    measures = {row.measure for row in rows}
    assert {"exact match", "element-wise accuracy"} <= measures
    assert "accuracy" not in measures
    study = several_labels()
    exact = next(row for row in rows if (row.measure, row.encoder) == ("exact match", "ours"))
    assert exact.baseline is not None
    truth = study.labels[study.test_rows]
    assert exact.baseline.value >= accuracy_score(truth, np.zeros_like(truth)) - 1e-9  # scikit-learn counts exact ones


def test_dice_of_empty_against_empty_is_1() -> None:
    """Deeper: metrics/test_dice.py::test_empty_against_empty_is_undefined_and_left_out_of_the_mean_not_counted_as_one,
    metrics/test_dice.py::test_something_predicted_where_nothing_is_costs_everything.
    """
    empty, lesion = np.zeros((4, 4), int), np.eye(4, dtype=int)
    assert np.isnan(dice(overlaps(empty, empty, 1))).all()
    missed = np.stack([overlaps(empty, empty, 1), overlaps(lesion, empty, 1)])
    assert mean_dice(missed, 0)(np.ones((1, 2))) == pytest.approx([0.0])


# ---- the pointers ---------------------------------------------------------------------------------------------------


def test_the_deeper_tests_are_there() -> None:
    pointers = re.findall(r"([\w/]+\.py)::(test_\w+)", Path(__file__).read_text(encoding="utf-8"))
    assert len(pointers) > 40
    for file, name in pointers:
        assert f"def {name}(" in (TESTS / file).read_text(encoding="utf-8"), f"{file}::{name}"
