"""`lamella weak`: all six stages with one command on a tiny generated cohort, and what happens when it is run again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.tiny_weak import CLASSES, in_files, rows_of, tiny_cohort, tiny_network, write_study

from lamella.cli import main
from lamella.formats.label_values import NOT_LABELLED
from lamella.formats.named_tiles import read_named_tiles
from lamella.models.weak_hub import load_weak

STAGES = ("prototype_coordinates", "image_features", "prototypes", "training", "results", "predictions")


@pytest.fixture(scope="module", autouse=True)
def _tiny_network():
    with tiny_network():
        yield


def times(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Path:
    return tiny_cohort(tmp_path_factory.mktemp("cohort"))


@pytest.fixture(scope="module")
def done(cohort, tmp_path_factory) -> Path:
    """A study's folder after all six stages, told in the source's own files."""
    folder = tmp_path_factory.mktemp("study")
    study = write_study(folder / "study.yaml", cohort, data=in_files(cohort))
    assert main(["weak", "run", str(study), "-o", str(folder / "out")]) == 0
    return folder / "out"


def test_one_command_makes_the_outputs_of_all_six_stages(done, cohort):
    for stage in STAGES:
        assert list((done / stage).iterdir()), stage
    tested = [row["test"] for row in rows_of(cohort / "split.csv") if row["test"]]
    for name in tested:
        metadata = json.loads((done / "predictions" / name / "metadata.json").read_text())
        assert metadata["wsi_name"].startswith(name)
        assert metadata["class_order"][: len(CLASSES)] == CLASSES
        assert set(metadata) >= {
            *("wsi_name", "model_version", "num_patches", "processing_time_sec", "class_order", "segmentation_mask"),
            *("confidence_maps", "post_processing", "timestamp"),
        }
        assert set(metadata["post_processing"]) >= {"morphological_op", "kernel_size", "min_component_size"}
        mask = np.asarray(Image.open(done / "predictions" / name / metadata["segmentation_mask"]))
        assert set(np.unique(mask)) <= {0, 1, 2, 255}
        maps = np.load(done / "predictions" / name / metadata["confidence_maps"], allow_pickle=False)
        assert {"class_0", "class_1"} <= set(maps.files)
        assert all(maps[key].shape == mask.shape for key in ("class_0", "class_1"))
    results = rows_of(done / "predictions" / "batch_results.csv")
    assert len(results) == len(tested)
    assert set(results[0]) >= {"wsi_name", "num_patches", "processing_time", "model_version"}


def test_results_hold_the_sources_measures_and_three_rows(done):
    metrics = json.loads((done / "results" / "metrics.json").read_text())
    assert {"val_iou", "val_dice", "val_precision", "val_recall", "val_f1", "per_class_metrics"} <= set(metrics)
    assert (done / "results" / "confusion_matrix.csv").is_file()
    samples = {path.name for path in (done / "results" / "prediction_samples").iterdir()}
    assert {"sample_1_input.png", "sample_1_gt.png", "sample_1_pred.png"} <= samples
    report = (done / "results" / "evaluation_report.txt").read_text()
    assert "gated by predicted labels" in report
    assert "LABEL ORACLE" in report
    assert "CRF" in report


def test_coordinates_are_named_tiles_of_slides_that_were_trained_on(done, cohort):
    trained = {row["train"] for row in rows_of(cohort / "split.csv")}
    for name in CLASSES:
        tiles = np.load(done / "prototype_coordinates" / f"{name}.npy", allow_pickle=False)
        assert tiles.dtype.names is not None
        assert {Path(each).stem for each in tiles["wsi_name"]} <= trained
        assert len(read_named_tiles(done / "prototype_coordinates" / f"{name}.npy"))


def test_the_model_says_how_it_was_trained(done):
    model = load_weak(done / "training" / "model")
    assert model.facts["labels"] == "slide"
    assert model.facts["pooling"] == "topk"
    assert model.contract.channels == (*CLASSES, "background")


def test_a_second_run_does_nothing(done, capsys):
    before = times(done)
    assert main(["weak", "run", str(done.parent / "study.yaml"), "-o", str(done)]) == 0
    assert times(done) == before
    assert "Traceback" not in capsys.readouterr().err


def test_another_setting_is_refused_and_says_which(done, capsys):
    before = times(done)
    study = str(done.parent / "study.yaml")
    assert main(["weak", "coordinates", study, "-o", str(done), "coordinates.samples_per_wsi=5"]) == 2
    told = capsys.readouterr().err
    assert "coordinates.samples_per_wsi" in told
    assert times(done) == before


def test_changed_labels_are_refused_and_not_mixed_with_what_was_made_of_the_old(done, cohort, tmp_path, capsys):
    text = (cohort / "labels.csv").read_text().splitlines()
    first = text[1].split(",")
    text[1] = f"{first[0]},{first[2]},{first[1]}"
    (tmp_path / "labels.csv").write_text("\n".join(text) + "\n")
    study = write_study(
        tmp_path / "study.yaml", cohort, data=in_files(cohort) | {"labels_csv": str(tmp_path / "labels.csv")}
    )
    before = times(done)
    assert main(["weak", "run", str(study), "-o", str(done)]) == 2
    assert "lamella weak" in capsys.readouterr().err
    assert times(done) == before


@pytest.mark.slow  # half a study anew
def test_redo_makes_a_stage_and_what_is_made_from_it_again(done, capsys):
    before = times(done)
    study = str(done.parent / "study.yaml")
    for stage, made in (("evaluate", {"results"}), ("train", {"training", "results", "predictions"})):
        assert main(["weak", "run", study, "-o", str(done), "--redo", stage]) == 0
        after = times(done)
        changed = {path.relative_to(done).parts[0] for path in after if after[path] != before.get(path)}
        assert changed == made
        before = after
    assert main(["weak", "run", study, "-o", str(done), "--redo", "judge"]) == 2
    assert "judge is no stage" in capsys.readouterr().err


def test_a_dry_run_writes_nothing(cohort, tmp_path, capsys):
    study = write_study(tmp_path / "study.yaml", cohort)
    assert main(["weak", "run", str(study), "-o", str(tmp_path / "out"), "--dry-run"]) == 0
    assert "8 slides; dry run" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_patches_are_learnt_from_and_whole_slides_judged(cohort, tmp_path):
    data = {"slides": str(cohort / "patches_then_slides.csv"), "labels_are": "patch", "everywhere": True}
    study = write_study(tmp_path / "study.yaml", cohort, data=data, evaluate={"refine": None})
    for stage in ("coordinates", "features", "prototypes", "train", "evaluate"):
        assert main(["weak", stage, str(study), "-o", str(tmp_path / "out")]) == 0, stage
    assert load_weak(tmp_path / "out" / "training" / "model").facts["labels"] == "patch"


def test_one_prototype_of_each_class_is_enough_and_more_than_there_are_exemplars_is_refused(cohort, tmp_path, capsys):
    for k, code in ((1, 0), (99, 2)):
        study = write_study(tmp_path / f"{k}.yaml", cohort, prototypes={"k": k})
        out = str(tmp_path / f"out{k}")
        for stage in ("coordinates", "features"):
            assert main(["weak", stage, str(study), "-o", out]) == 0
        assert main(["weak", "prototypes", str(study), "-o", out]) == code
    assert "99" in capsys.readouterr().err


def test_a_slide_of_nothing_but_glass_has_a_defined_result(done, tmp_path):
    white = tmp_path / "white.png"
    Image.fromarray(np.full((256, 256, 3), 245, np.uint8)).save(white)
    study, out = str(done.parent / "study.yaml"), tmp_path / "out"
    settings = ("predict.mpp0=0.5", f"predict.model={done / 'training'}")
    assert main(["weak", "predict", study, str(white), "-o", str(out), *settings]) == 0
    (row,) = rows_of(out / "predictions" / "batch_results.csv")
    assert row["num_patches"] == "0"
    mask = np.asarray(Image.open(out / "predictions" / "white" / "segmentation_mask.png"))
    assert set(np.unique(mask)) == {NOT_LABELLED}  # nothing was looked at, so nothing is claimed
