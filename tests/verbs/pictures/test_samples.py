"""Previews of images, volumes and films: the very samples that training would get."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from lamella.config import Request
from lamella.data.images import ImageDataSettings, TrainingImages
from lamella.data.multi_crop import MultiCrops, MultiCropSettings
from lamella.errors import ConfigError, LamellaError, OutputConflictError
from lamella.imaging.datasets.opening import open_collection
from lamella.verbs import preview

RNG = np.random.default_rng(0)
PATCH = ("method.encoder.patch_px=8", "data.size_px=64")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for number in range(3):
        pixels = RNG.integers(0, 256, (80, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"i{number}.png")
    return folder


def run(data: Path, out: Path, *overrides: str, **more: object) -> int:
    return preview.run(Request("preview", (data,), out, overrides=("num_samples=2", *overrides), **more))


def pages(out: Path) -> list[Image.Image]:
    paths = sorted(out.glob("*.png"))
    assert [path.name for path in paths] == ["preview_s000.png", "preview_s001.png"]
    return [Image.open(path).convert("RGB") for path in paths]


def test_views_are_those_of_training(images: Path, tmp_path: Path, capsys) -> None:
    views = ("views.local_views=2", "views.local_px=32", "seed=3")
    assert run(images, tmp_path / "out", "method.name=lejepa", *PATCH, *views) == 0
    said = capsys.readouterr().out
    assert "pretrain" in said
    assert "seed=3" in said
    assert "num_samples" not in said
    page = np.asarray(pages(tmp_path / "out")[0])
    data = ImageDataSettings(size_px=64, batch_size=1)
    samples = MultiCrops(
        TrainingImages([open_collection(images)], data, 3), MultiCropSettings(local_views=2, local_px=32), 64
    )
    view = samples.batch(0)["globals"][0, 0].permute(1, 2, 0).numpy()
    side = 339  # of five columns
    shown = np.asarray(Image.fromarray(view).resize((side, side), Image.Resampling.BICUBIC))
    found = any(
        (page[top : top + side, left : left + side] == shown).all()
        for left in range(24 + 240, 24 + side)  # beside the image of 60 x 80 px
        for top in range(60, 130)
        if page[top : top + side, left : left + side].shape == shown.shape
    )
    assert found


@pytest.mark.parametrize("method", ["ijepa", "jepa"])
def test_masks_are_drawn_over_the_crop(images: Path, tmp_path: Path, method: str) -> None:
    assert run(images, tmp_path / "out", f"method.name={method}", *PATCH) == 0
    for page in pages(tmp_path / "out"):
        pixels = np.asarray(page).reshape(-1, 3)
        for rgb in ((230, 159, 0), (0, 158, 115), (86, 180, 233), (213, 94, 0)):  # four targets and their lines
            assert (pixels == rgb).all(axis=1).sum() > 20


def test_volumes_have_three_planes_for_each_mask_set(tmp_path: Path) -> None:
    folder = tmp_path / "volumes"
    folder.mkdir()
    for number in range(2):
        values = RNG.normal(100, 20, (32, 32, 16)).astype(np.float32)
        nib.save(nib.Nifti1Image(values, np.diag([2.0, 2.0, 3.0, 1.0])), folder / f"v{number}.nii.gz")
    size = ("data.crop=[16,32,32]", "data.spacing_mm=[3,2,2]", "method.encoder.patch=[4,4,4]")
    assert run(folder, tmp_path / "out", "method.name=volume", *size) == 0
    page = pages(tmp_path / "out")[0]
    assert page.width == 3 * 340 + 2 * 14 + 2 * 24
    assert page.height > 3 * 340  # the volume and two mask sets


def test_films_have_a_frame_for_each_step_of_the_masks(tmp_path: Path) -> None:
    folder = tmp_path / "films"
    folder.mkdir()
    for number in range(2):
        frames = [Image.fromarray(RNG.integers(0, 256, (40, 40), dtype=np.uint8)) for _ in range(10)]
        frames[0].save(folder / f"f{number}.gif", save_all=True, append_images=frames[1:], duration=50)
    size = ("data.frames=4", "data.size_px=32", "method.encoder.patch=[2,4,4]")
    assert run(folder, tmp_path / "out", "method.name=video", *size) == 0
    assert pages(tmp_path / "out")[0].width >= 2 * 340


def test_an_image_that_cannot_be_read_is_listed_and_the_rest_drawn(images: Path, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for path in images.glob("*.png"):
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "i1.png").write_bytes((folder / "i1.png").read_bytes()[:300])
    out = tmp_path / "out"
    assert run(folder, out, "method.name=ijepa", *PATCH, "num_samples=3") == 1
    assert "i1" in (out / "failed.csv").read_text()
    assert len(list(out.glob("*.png"))) == 2


def test_reruns_other_settings_and_dry_runs(images: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    assert run(images, out, "method.name=ijepa", *PATCH, dry_run=True) == 0
    assert "would draw 2 of 3" in capsys.readouterr().out
    assert not out.exists()
    run(images, out, "method.name=ijepa", *PATCH)
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    run(images, out, "method.name=ijepa", *PATCH)
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before
    with pytest.raises(OutputConflictError, match="seed"):
        run(images, out, "method.name=ijepa", *PATCH, "seed=1")


def test_methods_and_data_that_do_not_fit_are_refused(images: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'dino' is none of lejepa"):
        run(images, tmp_path / "out", "method.name=dino")
    with pytest.raises(LamellaError, match="it holds images, and this method learns from volumes"):
        run(images, tmp_path / "out", "method.name=volume")
