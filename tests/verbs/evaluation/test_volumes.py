from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from tests.verbs import tiny_space_time
from tests.verbs.tiny_space_time import graded_volumes, volume_model

from lamella.cli import main
from lamella.config import Request
from lamella.data.splits import LeakageError
from lamella.formats.tables import read_csv
from lamella.imaging.datasets.opening import DatasetSettings, open_collection
from lamella.models.pretraining_record import PretrainingRecord
from lamella.models.volume_encoder import VolumeEncoder
from lamella.verbs.evaluation import volumes as evaluate_volumes
from lamella.verbs.evaluation.volume_windows import corners

QUICK = ("segmentation.epochs=12", "segmentation.random_inits=1", "segmentation.lr=0.02")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return volume_model(tmp_path_factory.mktemp("models") / "tiny3d")


@pytest.fixture(scope="module")
def brains(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three patients with one volume each: a bright cube in noise, its mask; another spacing than the model's."""
    folder = tmp_path_factory.mktemp("brains")
    rows = ["case_id,image,mask,patient"]
    for number in range(3):
        rng = np.random.default_rng(number)
        values = rng.normal(100, 10, (40, 36, 20)).astype(np.float32)
        mask = np.zeros(values.shape, np.uint8)
        x, y, z = [*rng.integers(4, 16, 2).tolist(), int(rng.integers(2, 8))]
        mask[x : x + 16, y : y + 16, z : z + 8] = 1
        values[mask > 0] += 200
        affine = np.diag([1.0, 1.0, 2.0, 1.0])
        nibabel.save(nibabel.Nifti1Image(values, affine), folder / f"{number}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(mask, affine), folder / f"{number}_mask.nii.gz")
        rows.append(f"c{number},{number}.nii.gz,{number}_mask.nii.gz,p{number}")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    return folder / "manifest.csv"


def results(out: Path) -> dict:
    return json.loads((out / "results.json").read_text())


@pytest.mark.slow
def test_patients_are_left_out_one_at_a_time_and_the_lesion_is_found_on_the_masks_own_grid(
    model, brains, tmp_path
) -> None:
    out = tmp_path / "out"
    command = ["evaluate", str(model), str(brains), "-o", str(out), *QUICK, "tasks=[segmentation,detection]"]
    assert main(command) == 0
    read = results(out)
    found = {(row["measure"], row["encoder"]): row for row in read["rows"]}
    raw = found["Dice, foreground", "raw voxels"]
    assert raw["estimate"]["value"] > 0.7  # a bright cube needs no encoder
    assert raw["estimate"]["groups"] == raw["estimate"]["n"] == 3
    assert raw["baseline"]["name"] == "best constant"
    assert raw["baseline"]["value"] == pytest.approx(2 * 2048 / (2048 + 40 * 36 * 20), abs=1e-6)
    assert {"tiny3d", "random init", "tiny3d minus random init"} <= {row["encoder"] for row in read["rows"]}
    assert {int(line["true_pixels"]) for line in read_csv(out / "dice.csv")} == {16 * 16 * 8}
    assert found["sensitivity at 1 false alarms an image", "raw voxels"]["estimate"]["value"] == 1
    assert main(command) == 0  # nothing to do


def test_a_patient_of_the_pretraining_is_refused_and_can_be_fitted_on_only(model, brains, tmp_path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    for path in model.iterdir():
        (own / path.name).write_bytes(path.read_bytes())
    collection = open_collection(brains, DatasetSettings())
    PretrainingRecord.of([collection.name], [f"{collection.name}/p1"], [], []).write(own)
    request = Request("evaluate", (own, brains), tmp_path / "out", overrides=QUICK)
    with pytest.raises(LeakageError, match="patient p1"):
        evaluate_volumes.run(request, collection)
    assert main(["evaluate", str(own), str(brains), "-o", str(tmp_path / "o2"), *QUICK, "seen=train"]) == 0
    rows = results(tmp_path / "o2")["rows"]
    assert {row["estimate"]["groups"] for row in rows} == {2}


def test_a_model_of_images_is_refused(brains, tmp_path, capsys) -> None:
    assert main(["evaluate", "colour-stats", str(brains), "-o", str(tmp_path / "out")]) == 2
    assert "it is no encoder of volumes" in capsys.readouterr().err


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return graded_volumes(tmp_path_factory.mktemp("graded"))


def test_labels_of_volumes_are_probed_beside_random_weights_and_statistics(model, graded, tmp_path, monkeypatch):
    out = tmp_path / "out"
    tasks = "tasks=[linear,knn,nshot,efficiency,multilabel,sites,segmentation]"
    command = ["evaluate", str(model), str(graded), "-o", str(out), *tiny_space_time.QUICK, tasks]
    assert main(command) == 0
    read = results(out)
    asked = {row["question"] for row in read["rows"]}
    assert asked == {"Classification", "Few labels", "Data efficiency", "Sites left out"}
    unasked = {skipped["question"]: skipped["reason"] for skipped in read["unasked"]}
    assert "every item has one label" in unasked["Several labels"]
    assert "no volume has a mask" in unasked["Segmentation"]
    encoders = {row["encoder"] for row in read["rows"] if row["question"] == "Classification"}
    assert {"tiny3d", "random init", "voxel statistics", "tiny3d, labels exchanged"} <= encoders
    assert "tiny3d minus random init" in encoders
    found = {(row["measure"], row["probe"], row["encoder"]): row["estimate"] for row in read["rows"]}
    assert found["AUC", "linear", "voxel statistics"]["value"] > 0.9  # half of a volume is bright
    assert found["AUC", "linear", "tiny3d"]["groups"] == 12
    assert read["facts"]["volumes"] == "12 (12 judged)"
    with np.load(out / "embedding.npz", allow_pickle=False) as stored:
        assert stored["features"].shape == stored["random_init"].shape == (12, 24)
    (out / "results.json").unlink()
    monkeypatch.setattr(VolumeEncoder, "pooled", None)  # nothing is embedded again
    assert main(command) == 0
    assert results(out) == read


def test_the_labels_decide_what_is_asked_and_without_them_nothing_is_embedded(model, graded, brains, tmp_path) -> None:
    out = tmp_path / "graded"
    assert main(["evaluate", str(model), str(graded), "-o", str(out), *tiny_space_time.QUICK]) == 0
    assert {row["question"] for row in results(out)["rows"]} == {"Classification", "Few labels", "Sites left out"}
    out = tmp_path / "brains"
    assert main(["evaluate", str(model), str(brains), "-o", str(out), "tasks=[linear]"]) == 2
    assert results(out)["unasked"] == [{"question": "linear", "reason": "no volume has a label"}]
    assert not (out / "features").exists()


def test_volumes_of_other_channels_are_listed_not_judged(model, graded, tmp_path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for path in graded.parent.iterdir():
        (data / path.name).write_bytes(path.read_bytes())
    two = np.random.default_rng(0).normal(100, 10, (40, 36, 20, 2)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(two, np.eye(4)), data / "4.nii.gz")
    command = ["evaluate", str(model), str(data / "manifest.csv"), "-o", str(tmp_path / "out"), *tiny_space_time.QUICK]
    assert main([*command, "tasks=[linear]", "dataset.fourth=channel"]) == 1
    (failed,) = read_csv(tmp_path / "out" / "failed.csv")
    assert failed["item_id"] == "c4"
    assert "2 channel(s), and the encoder takes 1" in failed["error"]


@pytest.mark.parametrize(
    ("shape", "size"), [((20, 33, 7), (8, 16, 16)), ((8, 16, 16), (8, 16, 16)), ((100, 5, 17), (8, 4, 16))]
)
def test_windows_cover_every_voxel_and_overlap(shape, size) -> None:
    seen = np.zeros(shape, int)
    for corner in corners(shape, size, 0.5):
        seen[tuple(slice(at, at + side) for at, side in zip(corner, size, strict=True))] += 1
        assert all(at + side <= max(whole, side) for at, side, whole in zip(corner, size, shape, strict=True))
    assert (seen > 0).all()
