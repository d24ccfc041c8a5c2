"""Stage 4: what is judged, by whom, against what, and what the tables say. Models know the classes by their colours."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.models.tiny_segmenters import tiny_segmenter
from tests.models.tiny_weak import tiny_weak
from tests.verbs.weak_stages.judged_study import (
    BACKGROUND,
    CLASSES,
    MODELS,
    TILE,
    FakeSupervised,
    FakeWeak,
    small_study,
    stage_of,
    study_of,
    train_fake,
    use_fakes,
    write_bag,
)

from lamella.data.splits import LeakageError
from lamella.errors import LamellaError, OutputConflictError
from lamella.metrics.segments.protocol import FLAG, LABEL_ORACLE
from lamella.models.segmenter_hub import save_segmenter
from lamella.models.weak_hub import save_weak
from lamella.verbs.evaluation.results_files import results_of
from lamella.verbs.weak_stages import evaluation_counts, evaluation_files, evaluation_judged, evaluation_maps
from lamella.verbs.weak_stages.evaluation import judged_bags, run_evaluation
from lamella.verbs.weak_stages.evaluation_models import panel_of, trained_models

FAST = ("evaluate.refine=null", "evaluate.colour=false", "evaluate.samples=0")
CHANNELS = (*CLASSES, BACKGROUND)


@pytest.fixture(autouse=True)
def _fakes(monkeypatch, request):
    MODELS.clear()
    use_fakes(monkeypatch)
    if "every_file" not in request.node.name:  # half of the time of a tiny run
        monkeypatch.setattr(evaluation_files, "draw_confusion", lambda *args, **named: None)


def metrics(out: Path) -> dict:
    return json.loads((out / "results" / "metrics.json").read_text())


def results(out: Path) -> dict:
    return json.loads((out / "results" / "results.json").read_text())


def value(out: Path, measure: str, name: str, *, head: str = "Weak") -> float:
    rows = [row for row in results(out)["rows"] if row["question"].startswith(head)]
    (found,) = [row for row in rows if (row["measure"], row["encoder"]) == (measure, name)]
    return found["estimate"]["value"]


def confusion(out: Path) -> np.ndarray:
    with open(out / "results" / "confusion_matrix.csv", newline="") as file:
        return np.array([[int(cell) for cell in line[1:]] for line in list(csv.reader(file))[1:]])


IOU = "mean per-class IoU"


# ---- files -----------------------------------------------------------------------------------------------------------


def test_every_file_of_the_source_is_there_and_says_the_same(tmp_path):
    study, out = small_study(tmp_path), tmp_path / "out"
    train_fake(out, FakeWeak(wrong={1: 0}), study.of("train"))
    assert run_evaluation(stage_of(study, out)) == 0
    told, folder = metrics(out), out / "results"
    # Tumour: half of what is called so is right. Stroma: never called. By hand from the stripes' equal areas.
    assert told["per_class_metrics"]["tumour"]["iou"] == pytest.approx(0.5)
    assert (told["val_iou"], told["val_dice"], told["val_f1"]) == pytest.approx((0.25, 1 / 3, 1 / 3), abs=1e-6)
    assert (told["val_precision"], told["val_recall"]) == pytest.approx((0.25, 0.5))
    assert told["val_iou"] == pytest.approx(value(out, IOU, "fake"), abs=1e-6)
    assert told["macro"]["iou"] == told["val_iou"]
    assert told["macro_with_background"]["iou"] == told["val_iou_with_background"] == pytest.approx(0.5)
    assert told["intervals_95"]["val_iou"].keys() == {"low", "high", "n", "groups", "baseline"}
    assert confusion(out).sum() == 4 * 64 * 64
    for number in (1, 2, 3):
        truth, called = (
            np.asarray(Image.open(folder / f"prediction_samples/sample_{number}_{kind}.png")) for kind in ("gt", "pred")
        )
        assert truth.shape == called.shape == (64, 64)
        assert set(np.unique(truth)) <= {0, 1, 2}
        with Image.open(folder / f"prediction_samples/sample_{number}_input.png") as picture:
            assert (picture.mode, picture.size) == ("RGB", (64, 64))
    text = (folder / "evaluation_report.txt").read_text()
    assert "weights: best: chosen in training by the image-level loss" in text
    for part in ("mean per-class IoU [95 % interval]", "baseline all", "macro with background", FLAG, "stroma"):
        assert part in text
    for name in (
        "results.md",
        "results.html",
        "confusion.png",
        "best_median_worst.png",
        "image_labels.csv",
        "segment_images.csv",
    ):
        assert (folder / name).stat().st_size
    first = results(out)["conclusions"][0]
    assert first.startswith("mean per-class IoU of 4 slides")
    assert first.index("best constant") < first.index("; fake 0.25 [0.00, 1.00]") < first.index(FLAG)
    assert len(results_of(folder)["rows"]) == len(results(out)["rows"])  # as `lamella release` reads it
    # With and without a CRF, three rows each.
    names = {row["encoder"] for row in results(out)["rows"]}
    for base in ("fake", "fake + CRF"):
        assert {base, f"{base}, gated by predicted labels", f"{base}, {FLAG}: gated by true labels"} <= names


def test_a_rerun_does_nothing_and_a_stopped_one_goes_on(tmp_path, monkeypatch, capsys):
    study, out = small_study(tmp_path), tmp_path / "out"
    train_fake(out, FakeWeak(), study.of("train"))
    stage = stage_of(study, out, *FAST)
    run_evaluation(stage)
    before = results(out)
    run_evaluation(stage)
    assert "nothing to do" in capsys.readouterr().out
    (out / "results" / "results.json").unlink()
    next((out / "results" / "counts").glob("*/test2*.npz")).unlink()
    looked = []
    real = evaluation_counts._look_at
    monkeypatch.setattr(
        evaluation_counts,
        "_look_at",
        lambda work, panel, bag, *rest: looked.append(bag.slide_id) or real(work, panel, bag, *rest),
    )
    run_evaluation(stage)
    assert looked == ["test2"]
    assert results(out) == before


def test_another_mask_or_model_is_never_taken_for_the_old_one(tmp_path):
    study, out = small_study(tmp_path), tmp_path / "out"
    train_fake(out, FakeWeak(), study.of("train"))
    run_evaluation(stage_of(study, out, *FAST))
    mask = study.by_id["test0"].mask_path
    old = mask.read_bytes()
    Image.fromarray(np.full((64, 64), 1, np.uint8)).save(mask)
    with pytest.raises(OutputConflictError, match="judged"):
        run_evaluation(stage_of(study, out, *FAST))
    mask.write_bytes(old)
    MODELS[out / "training" / "model"] = FakeWeak(wrong={0: 1})
    with pytest.raises(OutputConflictError, match="models"):
        run_evaluation(stage_of(study, out, *FAST))


# ---- mistakes of the source ------------------------------------------------------------------------------------------


def test_true_labels_gate_nothing_but_the_row_that_says_so(tmp_path):
    """Mistake: labels of the test images gated the maps, and nobody was told."""
    study = small_study(tmp_path)
    lied = replace(study, bags=tuple(replace(bag, labels=(0, 1)) if bag.part == "test" else bag for bag in study.bags))
    names = {False: "fake", True: f"fake, {FLAG}: gated by true labels"}
    found = {}
    for label, each in (("honest", study), ("lied", lied)):
        train_fake(tmp_path / label, FakeWeak(), study.of("train"))
        run_evaluation(stage_of(each, tmp_path / label, *FAST))
        found[label] = {told: value(tmp_path / label, IOU, name) for told, name in names.items()}
    assert found["honest"] == {False: 1, True: 1}
    assert found["lied"][False] == 1
    assert found["lied"][True] < 0.6
    for row in results(tmp_path / "lied")["rows"]:
        assert (row["protocol"]["prompt"] == LABEL_ORACLE) == (FLAG in row["encoder"])
    text = (tmp_path / "lied" / "results" / "results.md").read_text()
    assert "no oracle but in the rows named LABEL ORACLE" in text
    assert "hold a class that their label denies" in text


def test_the_background_competes_everywhere(tmp_path):
    """Mistake: the background was dropped before the argmax, so glass had to be some tissue."""
    study, out = small_study(tmp_path), tmp_path / "out"
    train_fake(out, FakeWeak(sure=0.5), study.of("train"))
    run_evaluation(stage_of(study, out, *FAST))
    matrix = confusion(out)
    assert matrix[2, 2] == matrix[2].sum() > 64 * 64  # more than the slide that holds no class at all
    assert value(out, "mean IoU of all classes, background included", "fake") == 1
    assert metrics(out)["per_class_metrics"][BACKGROUND]["iou"] == 1


def test_every_pixel_of_every_tile_is_judged(tmp_path):
    """Mistake: only the first coordinate of a slide was looked at."""
    # The first tile holds glass and tumour; what the model gets wrong lies in the other tiles.
    bag = write_bag(tmp_path, "test0", (0, 1), size=4 * TILE)
    study, out = study_of([bag]), tmp_path / "out"
    train_fake(out, FakeWeak(wrong={1: 0}))
    run_evaluation(stage_of(study, out, *FAST))
    matrix = confusion(out)
    assert matrix.sum() == (4 * TILE) ** 2
    truth = np.asarray(Image.open(bag.mask_path)) - 1
    assert matrix[1, 0] == (truth == 1).sum() > 0
    assert not (truth[:TILE, :TILE] == 1).any()


def test_a_class_that_no_judged_slide_holds_has_no_number_and_spoils_none(tmp_path):
    """Mistake: the NaN of an absent class poisoned the mean, and a NaN was the best."""
    study = study_of([write_bag(tmp_path, f"test{n}", (0,), seed=n) for n in range(3)])
    out = tmp_path / "out"
    train_fake(out, FakeWeak())
    run_evaluation(stage_of(study, out, *FAST))
    told = metrics(out)
    assert told["val_iou"] == told["val_precision"] == 1
    assert told["per_class_metrics"]["stroma"]["iou"] is None
    assert told["n_present"].startswith("1 of 2")
    measures = {row["measure"] for row in results(out)["rows"] if row["encoder"] == "fake"}
    assert "IoU of tumour" in measures
    assert "IoU of stroma" not in measures
    # Who calls what is not there has a number: 0, and it counts.
    MODELS.clear()
    train_fake(tmp_path / "wrong", FakeWeak(wrong={0: 1}))
    run_evaluation(stage_of(study, tmp_path / "wrong", *FAST))
    assert metrics(tmp_path / "wrong")["val_iou"] == 0
    assert metrics(tmp_path / "wrong")["n_present"].startswith("2 of 2")


def test_the_best_weights_are_judged_and_the_last_ones_only_when_asked_for(tmp_path):
    """Mistake: the last weights were reported as the best."""
    study = small_study(tmp_path)
    for out, overrides in ((tmp_path / "best", ()), (tmp_path / "last", ("evaluate.weights=latest",))):
        train_fake(out, FakeWeak(), study.of("train"), weights=("best", "model"))
        train_fake(out, FakeWeak(wrong={0: 1}), study.of("train"), weights=("latest",))
        run_evaluation(stage_of(study, out, *FAST, *overrides))
    assert metrics(tmp_path / "best")["val_iou"] == 1
    assert metrics(tmp_path / "best")["weights"].startswith("best: chosen")
    assert metrics(tmp_path / "last")["val_iou"] < 1
    assert metrics(tmp_path / "last")["weights"].startswith("latest: the last ones")


# ---- who judges ------------------------------------------------------------------------------------------------------


def folds_of(out: Path, study, models: list[FakeWeak]) -> None:
    """Model f has seen all but every second slide, from f on."""
    for number, model in enumerate(models):
        train_fake(out, model, [bag for row, bag in enumerate(study.bags) if row % 2 != number], run=f"fold{number}")


def test_each_slide_is_judged_by_the_model_that_has_not_seen_its_group(tmp_path):
    study = study_of([write_bag(tmp_path, f"s{n}", (n % 2,), part=None, seed=n) for n in range(4)])
    out = tmp_path / "out"
    # Fold 0 is right on what fold 1 has seen and never judges it.
    folds_of(out, study, [FakeWeak("fake-fold0", wrong={1: 0}), FakeWeak("fake-fold1", wrong={0: 1})])
    panel = panel_of(None, out / "training", study, study.bags)
    assert panel.judged == {"s0": (0,), "s1": (1,), "s2": (0,), "s3": (1,)}
    assert panel.name == "fake (2 models)"
    run_evaluation(stage_of(study, out, *FAST))
    assert metrics(out)["val_iou"] == 1
    assert "Each slide is judged by the one of 2 models" in (out / "results" / "results.md").read_text()


def test_a_slide_of_a_patient_that_every_model_has_seen_is_refused(tmp_path):
    bags = [write_bag(tmp_path, "a", (0,), group="p1", part="train"), write_bag(tmp_path, "b", (0,), group="p1")]
    study, out = study_of(bags, group_noun="patient"), tmp_path / "out"
    train_fake(out, FakeWeak(), study.of("train"))
    with pytest.raises(LeakageError, match=r"1 of 1 judged slides are of patients .* \(p1\)"):
        run_evaluation(stage_of(study, out, *FAST))


def test_seeds_that_have_not_seen_a_slide_are_averaged(tmp_path):
    study, out = small_study(tmp_path), tmp_path / "out"
    # Two of three are right and the third is surer: the mean of probabilities decides, not the majority.
    for number, model in enumerate([FakeWeak(sure=0.5), FakeWeak(sure=0.5), FakeWeak(wrong={0: 1}, sure=0.6)]):
        train_fake(out, model, study.of("train"), run=f"seed{number}")
    assert [path.parent.name for path in trained_models(out / "training")] == ["seed0", "seed1", "seed2"]
    run_evaluation(stage_of(study, out, *FAST))
    assert metrics(out)["val_iou"] == 1
    assert "the mean of the 3 of 3 models" in (out / "results" / "results.md").read_text()


def test_validation_slides_may_be_judged_and_the_reader_is_told(tmp_path):
    study, out = small_study(tmp_path), tmp_path / "out"
    study = replace(study, bags=tuple(replace(bag, part="val") if bag.part == "test" else bag for bag in study.bags))
    facts = {
        "criterion": "masks",
        "groups": {"train": ["train0", "train1"], "validate": [f"test{n}" for n in range(4)]},
    }
    train_fake(out, FakeWeak(facts=facts), study.bags)
    run_evaluation(stage_of(study, out, *FAST))
    text = (out / "results" / "results.md").read_text()
    assert "are of the val part, by which weights may have been chosen" in text
    assert "chosen by masks of validation slides: more than weak supervision" in text


def test_test_slides_come_first_then_folds_then_validation(tmp_path):
    study, out = small_study(tmp_path), tmp_path / "out"
    train_fake(out, FakeWeak(), study.of("train"))
    assert {bag.part for bag in judged_bags(stage_of(study, out))} == {"test"}
    none = replace(study, bags=tuple(replace(bag, mask_path=None) for bag in study.bags))
    with pytest.raises(LamellaError, match="no slide has a mask to be judged by"):
        judged_bags(stage_of(none, out))
    with pytest.raises(LamellaError, match=r"no val slide has a mask .* \(slides with masks are in: test\)"):
        judged_bags(stage_of(study, out, "evaluate.part=val"))


def test_nothing_trained_and_other_classes_are_clear_errors(tmp_path):
    study, out = small_study(tmp_path), tmp_path / "out"
    with pytest.raises(LamellaError, match="nothing was trained yet"):
        run_evaluation(stage_of(study, out, *FAST))
    train_fake(out, FakeWeak(background=None), study.of("train"))
    with pytest.raises(LamellaError, match="its classes are tumour, stroma; the study has tumour, stroma, glass"):
        run_evaluation(stage_of(study, out, *FAST))


# ---- what is judged --------------------------------------------------------------------------------------------------


def test_only_pixels_inside_the_tiles_are_judged_unless_slides_are_looked_at_everywhere(tmp_path):
    corners = np.array([[0, 0], [TILE, TILE]], float)
    bag = write_bag(tmp_path, "test0", (0, 1), corners=corners)
    truth = np.asarray(Image.open(bag.mask_path)) - 1
    out = tmp_path / "out"
    train_fake(out, FakeWeak())
    run_evaluation(stage_of(study_of([bag]), out, *FAST))
    inside = np.concatenate([truth[:TILE, :TILE].ravel(), truth[TILE:, TILE:].ravel()])
    assert confusion(out).sum(1).tolist() == np.bincount(inside, minlength=3).tolist()
    assert "inside the slides' tiles" in (out / "results" / "results.md").read_text()
    train_fake(tmp_path / "whole", FakeWeak())
    run_evaluation(stage_of(study_of([bag]), tmp_path / "whole", *FAST, "data.everywhere=true"))
    assert confusion(tmp_path / "whole").sum() == truth.size


def test_a_mask_without_a_labelled_pixel_fails_alone(tmp_path):
    study, out = small_study(tmp_path), tmp_path / "out"
    Image.fromarray(np.full((64, 64), 9, np.uint8)).save(study.by_id["test1"].mask_path)
    train_fake(out, FakeWeak(), study.of("train"))
    assert run_evaluation(stage_of(study, out, *FAST)) == 1
    with open(out / "results" / "failed.csv", newline="") as file:
        (line,) = csv.DictReader(file)
    assert line["item_id"] == "test1"
    assert "no labelled pixel" in line["error"]
    assert results(out)["rows"][0]["protocol"]["n"] == 3


@pytest.mark.slow
def test_a_large_slide_on_disk_is_judged_as_in_memory(tmp_path, monkeypatch):
    for module in (evaluation_maps, evaluation_judged):
        monkeypatch.setattr(module, "BAND_PX", 32)
    study = small_study(tmp_path, 2)
    tables = {}
    for name, most in (("small", 10**6), ("large", 100)):
        out = tmp_path / name
        train_fake(out, FakeWeak(wrong={1: 0}), study.of("train"))
        refine = "{use_crf: false, morphological_op: closing, min_component_size: 30}"
        run_evaluation(
            stage_of(
                study,
                out,
                "evaluate.colour=false",
                "evaluate.samples=1",
                f"evaluate.in_memory_px={most}",
                f"evaluate.refine={refine}",
            )
        )
        with open(out / "results" / "segment_images.csv", newline="") as file:
            tables[name] = list(csv.DictReader(file))
    assert tables["small"] == tables["large"]
    assert not list((tmp_path / "large" / "results").glob("rasters/*/*"))


# ---- rows ------------------------------------------------------------------------------------------------------------


def test_rivals_stand_beside_and_supervised_ones_in_a_table_of_their_own(tmp_path):
    study, out = small_study(tmp_path), tmp_path / "out"
    train_fake(out, FakeWeak(wrong={1: 0}), study.of("train"))
    train_fake(tmp_path / "cam", FakeWeak("classifier"), study.of("train"))
    train_fake(tmp_path / "masks", FakeSupervised("head"), study.of("train"))
    run_evaluation(
        stage_of(
            study,
            out,
            *FAST,
            f"evaluate.rivals={{CAM: {tmp_path / 'cam' / 'training'}, supervised: {tmp_path / 'masks' / 'training'}}}",
        )
    )
    assert value(out, IOU, "CAM") == value(out, IOU, f"CAM, {FLAG}: gated by true labels") == 1
    assert value(out, IOU, ["fake", "CAM"][0]) < 1
    by_head = {}
    for row in results(out)["rows"]:
        by_head.setdefault(row["question"].split(" (")[0], set()).add(row["encoder"])
    assert "supervised" in by_head["Automatic"]
    assert not {name for name in by_head["Weak"] if "supervised" in name}
    assert not {name for name in by_head["Automatic"] if "fake" in name or "CAM" in name}
    splits = {row["protocol"]["split"] for row in results(out)["rows"]}
    assert len(splits) == 1
    assert any("fake is" in line and "CAM" in line for line in results(out)["conclusions"])


def test_predicted_labels_gate_by_the_slide_or_by_the_tile(tmp_path):
    """A model that never predicts stroma loses it where its own labels gate, and only there."""
    study = small_study(tmp_path)
    found = {}
    for unit in ("bag", "tile"):
        out = tmp_path / unit
        train_fake(out, FakeWeak(silent=(1,)), study.of("train"))
        run_evaluation(stage_of(study, out, *FAST, f"evaluate.gate_per={unit}"))
        found[unit] = {
            name: value(out, IOU, f"fake{name}")
            for name in ("", ", gated by predicted labels", f", {FLAG}: gated by true labels")
        }
    for told in found.values():
        assert told[""] == 1
        # Stroma becomes tumour where there is tumour (2 x 784 px beside 4704), background elsewhere.
        assert told[", gated by predicted labels"] == pytest.approx(0.375, abs=0.01)
        assert told[f", {FLAG}: gated by true labels"] == 1
    assert (
        "Predicted labels of whole slides: all classes right of 2 of 4"
        in (tmp_path / "bag/results/results.md").read_text()
    )


def test_a_gate_that_does_what_another_does_is_not_run_again(tmp_path, monkeypatch):
    """Post-processing is the slowest part, and most gates take nothing out."""
    study, out = small_study(tmp_path), tmp_path / "out"  # slides with tumour, stroma, both, neither
    calls = []
    real = evaluation_counts.refined_rows
    monkeypatch.setattr(
        evaluation_counts,
        "refined_rows",
        lambda rows, gate, judged, *rest: calls.append(judged.bag.slide_id) or real(rows, gate, judged, *rest),
    )
    train_fake(out, FakeWeak(), study.of("train"))
    run_evaluation(stage_of(study, out, "evaluate.colour=false", "evaluate.refine={morphological_op: closing}"))
    # Predicted and true labels agree; of the slide with both classes they take nothing out.
    assert [calls.count(f"test{number}") for number in range(4)] == [2, 2, 1, 2]
    names = {row["encoder"] for row in results(out)["rows"]}
    assert sum("gated by" in name and "minus" not in name for name in names) == 4


def test_labels_alone_show_what_a_map_adds(tmp_path):
    study, out = small_study(tmp_path), tmp_path / "out"
    train_fake(out, FakeWeak(), study.of("train"))
    run_evaluation(stage_of(study, out, *FAST))
    alone = value(out, IOU, f"{FLAG}: true labels alone, no map")
    assert value(out, IOU, "all tumour") < alone < 1
    assert value(out, IOU, "predicted labels alone, no map") == alone  # this model predicts them all


def test_colour_learns_from_the_labels_of_training_slides_alone(tmp_path):
    study, out = small_study(tmp_path), tmp_path / "out"
    assert all(bag.mask_path is None for bag in study.of("train"))  # nothing else to learn from
    train_fake(out, FakeWeak(), study.of("train"))
    run_evaluation(stage_of(study, out, "evaluate.refine=null", "evaluate.samples=0"))
    assert value(out, IOU, "colour alone, from the same labels (logistic regression)") > 0.9
    # The labels of training slides turned round turn the rule round.
    turned = replace(
        study, bags=tuple(replace(b, labels=b.labels[::-1]) if b.part == "train" else b for b in study.bags)
    )
    train_fake(tmp_path / "turned", FakeWeak(), study.of("train"))
    run_evaluation(stage_of(turned, tmp_path / "turned", "evaluate.refine=null", "evaluate.samples=0"))
    assert value(tmp_path / "turned", IOU, "colour alone, from the same labels (logistic regression)") < 0.1


def test_a_real_model_folder_is_judged(tmp_path, monkeypatch):
    monkeypatch.undo()
    bags = [write_bag(tmp_path, f"test{n}", (n,), seed=n, size=96) for n in range(2)]
    study, out = (
        study_of(bags, background="background", mask_values={"tumour": (1,), "stroma": (2,), "background": (3,)}),
        tmp_path / "out",
    )
    save_weak(tiny_weak(pooling="attention"), out / "training" / "model", "a card", record=None)
    supervised = tmp_path / "head"
    head = tiny_segmenter()
    head.contract = replace(head.contract, channels=("nothing", *CLASSES), background="nothing")
    save_segmenter(head, supervised, "a card", record=None)
    rivals = f"evaluate.rivals={{head: {supervised}}}"
    with pytest.raises(LamellaError, match="its classes are nothing"):
        run_evaluation(stage_of(study, out, *FAST, rivals))
    run_evaluation(stage_of(study, out, *FAST, rivals, "evaluate.rival_classes={nothing: background}"))
    # Channels are matched by name: the segmenter's background comes first.
    assert 0 <= value(out, IOU, "head", head="Automatic") < 1
    assert confusion(out).sum() == 2 * 96 * 96
    assert "does not say what it was trained on" in (out / "results" / "results.md").read_text()
