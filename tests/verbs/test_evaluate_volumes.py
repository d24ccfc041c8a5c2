from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from lamella.cli import main
from lamella.config import Request
from lamella.data.splits import LeakageError
from lamella.formats.tables import read_csv
from lamella.imaging.datasets.opening import DatasetSettings, open_collection
from lamella.models.hub import save_pretrained
from lamella.models.pretraining_record import PretrainingRecord
from lamella.models.vit import ViT
from lamella.models.volume_encoder import VolumeContract, VolumeEncoder
from lamella.models.volume_vit import VolumeViTSettings
from lamella.verbs import evaluate_volumes
from lamella.verbs.volume_windows import corners

QUICK = ("segmentation.epochs=12", "segmentation.random_inits=1", "segmentation.lr=0.02")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny3d"
    settings = VolumeViTSettings(dim=24, depth=1, heads=2, channels=1, patch=(2, 4, 4))
    contract = VolumeContract("volume", 1, (8, 16, 16), (2, 4, 4), 24, spacing_mm=(2.0, 2.0, 2.0))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = VolumeEncoder(ViT(settings), contract, "tiny3d")
    save_pretrained(encoder, folder, "card")
    return folder


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


@pytest.mark.parametrize(
    ("shape", "size"), [((20, 33, 7), (8, 16, 16)), ((8, 16, 16), (8, 16, 16)), ((100, 5, 17), (8, 4, 16))]
)
def test_windows_cover_every_voxel_and_overlap(shape, size) -> None:
    seen = np.zeros(shape, int)
    for corner in corners(shape, size, 0.5):
        seen[tuple(slice(at, at + side) for at, side in zip(corner, size, strict=True))] += 1
        assert all(at + side <= max(whole, side) for at, side, whole in zip(corner, size, shape, strict=True))
    assert (seen > 0).all()
