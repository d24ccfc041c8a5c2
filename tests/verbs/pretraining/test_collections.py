"""`lamella pretrain` on images, volumes and video: the same loop, other courses."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from tests.tiny import TINY_RUN

import lamella
from lamella import cli
from lamella.engine.log import read_monitors, read_steps
from lamella.models.hub import model_facts
from lamella.models.pretraining_record import pretraining_record

ENCODER = ("method.encoder.dim=24", "method.encoder.depth=1", "method.encoder.heads=2")
PREDICTOR = ("method.predictor.width=24", "method.predictor.depth=1", "method.predictor.heads=2")
IMAGES = (
    *TINY_RUN,
    *ENCODER,
    "method.encoder.wave_min=4",
    "method.encoder.wave_max=64",
    "method.encoder.patch_px=4",
    "data.size_px=16",
    "budget.images=16",
)
METHODS = {
    "lejepa": ("views.local_views=2", "views.local_px=8", "method.projector.hidden=[16]", "method.projector.dim=8"),
    "ijepa": PREDICTOR,
    "jepa": (*PREDICTOR, "method.regulariser.name=vicreg"),
}
VOXELS = (*TINY_RUN, *ENCODER, *PREDICTOR, "budget.images=8")


@pytest.fixture(scope="module")
def chests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A MedMNIST archive of 12 training, 4 validation and 6 test images of 20 px."""
    rng, arrays = np.random.default_rng(0), {}
    for split, count in (("train", 12), ("val", 4), ("test", 6)):
        arrays[f"{split}_images"] = rng.integers(0, 256, (count, 20, 20), dtype=np.uint8)
        arrays[f"{split}_labels"] = np.arange(count)[:, None] % 2
    path = tmp_path_factory.mktemp("data") / "chests.npz"
    np.savez(path, **arrays)
    return path


@pytest.fixture(scope="module")
def brains(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three volumes of 20 x 24 x 16 voxels of 1 x 1 x 2 mm."""
    folder, rng = tmp_path_factory.mktemp("brains"), np.random.default_rng(1)
    for number in range(3):
        values = rng.normal(100, 20, (20, 24, 16)).astype(np.float32)
        nibabel.save(nibabel.Nifti1Image(values, np.diag([1.0, 1.0, 2.0, 1.0])), folder / f"case{number}.nii.gz")
    return folder


def pretrained(data: Path, out: Path, *settings: str) -> int:
    return cli.main(["pretrain", str(data), "-o", str(out), *settings])


@pytest.mark.parametrize("name", METHODS)
def test_images_leave_an_encoder_its_card_and_what_it_saw(name: str, chests: Path, tmp_path: Path) -> None:
    assert pretrained(chests, tmp_path, f"method.name={name}", *METHODS[name], *IMAGES) == 0
    assert len(read_steps(tmp_path)) == 4
    assert all(np.isfinite(entry["rankme"]) for entry in read_monitors(tmp_path))
    encoder = lamella.from_pretrained(tmp_path / "model")
    assert encoder.contract.mpp is None
    assert encoder.pooled(torch.zeros(2, 3, 16, 16, dtype=torch.uint8)).shape == (2, 24)
    card = (tmp_path / "model" / "README.md").read_text()
    assert "16 images of chests; no labels" in card  # train and val
    assert "Split test and its groups were left out" in card
    record = pretraining_record(tmp_path / "model")
    assert record is not None
    assert len(record.items) == len(record.digests) == 16
    assert not any("test-" in item for item in record.items)
    assert model_facts(tmp_path / "model")["intensity"]["name"] == "auto"  # what evaluate and embed take again


def test_the_colours_of_the_training_images_are_in_the_contract(chests: Path, tmp_path: Path) -> None:
    assert pretrained(chests, tmp_path, "method.name=ijepa", *METHODS["ijepa"], *IMAGES) == 0
    arrays = np.load(chests)
    seen = np.concatenate([arrays["train_images"], arrays["val_images"]]) / 255
    contract = lamella.from_pretrained(tmp_path / "model").contract
    assert contract.mean == pytest.approx([seen.mean()] * 3, abs=1e-3)
    assert contract.std == pytest.approx([seen.std()] * 3, abs=1e-3)


def test_volumes_and_their_places_in_millimetres(brains: Path, tmp_path: Path) -> None:
    sizes = ("data.crop=[8,16,16]", "data.spacing_mm=[2,1,1]", "method.encoder.patch=[2,4,4]")
    assert pretrained(brains, tmp_path, "method.name=volume", *sizes, *VOXELS) == 0
    encoder = lamella.from_pretrained(tmp_path / "model")
    assert encoder.contract.spacing_mm == (2.0, 1.0, 1.0)
    assert encoder.pooled(torch.zeros(1, 1, 8, 16, 16)).shape == (1, 24)
    card = (tmp_path / "model" / "README.md").read_text()
    assert "Crops of 8 x 16 x 16 voxels of 2 x 1 x 1 mm (z, y, x)" in card
    assert json.loads((tmp_path / "model" / "config.json").read_text())["format"] == "lamella-volume-1"


def test_volumes_in_time_are_films(tmp_path: Path) -> None:
    values = np.random.default_rng(2).normal(100, 20, (20, 20, 3, 6)).astype(np.float32)
    (tmp_path / "hearts").mkdir()
    heart = nibabel.Nifti1Image(values, np.eye(4))
    heart.header.set_xyzt_units("mm", "msec")
    nibabel.save(heart, tmp_path / "hearts" / "heart.nii.gz")
    sizes = ("data.frames=4", "data.frame_stride=1", "data.size_px=16", "method.encoder.patch=[2,4,4]")
    assert pretrained(tmp_path / "hearts", tmp_path / "run", "method.name=video", *sizes, *VOXELS) == 0
    encoder = lamella.from_pretrained(tmp_path / "run" / "model")
    assert encoder.pooled(torch.zeros(1, 3, 4, 16, 16, dtype=torch.uint8)).shape == (1, 24)
    assert model_facts(tmp_path / "run" / "model") == {"frame_stride": 1}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ((), "an anchors folder is learned from by cross_jepa, everything else by one of lejepa, ijepa"),
        (("method.name=simclr",), "'simclr' is none of them"),
        (("method.name=lejepa", "masks.mirror=false"), "masks"),
        (("method.name=ijepa", "views.local_views=2"), "views"),
        (("method.name=ijepa", "data.size_px=32"), "set method.encoder.wave_min=32 (two patches) and .wave_max=128"),
        (("method.name=lejepa", "data.size_px=90"), "data.size_px: 90 is not"),
        (("method.name=volume",), "it holds images, and this method learns from volumes"),
        (("method.name=lejepa", "data.mpp=0.5"), "State it with data.source_mpp=0.5"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    settings: tuple[str, ...], message: str, chests: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pretrained(chests, tmp_path / "run", *settings) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_other_data_in_the_same_folder_is_refused(
    chests: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ("method.name=ijepa", *METHODS["ijepa"], *IMAGES)
    arrays = dict(np.load(chests))
    for split in ("train", "test"):
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = (
            np.delete(arrays[f"{split}_{what}"], 0, axis=0) for what in ("images", "labels")
        )
    np.savez(tmp_path / "chests.npz", **arrays)
    assert pretrained(chests, tmp_path / "run", *settings) == 0
    assert pretrained(tmp_path / "chests.npz", tmp_path / "run", *settings) == 2
    assert "items" in capsys.readouterr().err


def test_one_image_that_cannot_be_read_ends_the_run_and_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    folder = tmp_path / "skin"
    folder.mkdir()
    rng = np.random.default_rng(3)
    for number in range(6):
        Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    whole = (folder / "3.png").read_bytes()
    (folder / "3.png").write_bytes(whole[: len(whole) // 2])
    assert pretrained(folder, tmp_path / "run", "method.name=ijepa", *METHODS["ijepa"], *IMAGES) == 2
    assert "3.png" in capsys.readouterr().err
