"""A slide through a backbone: the same as if it were shown at once, whole or not at all."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from torch import Tensor

import lamella.dense.feature_windows as feature_windows
from lamella.dense.feature_rasters import RasterWork, backbone_fingerprint, write_feature_raster
from lamella.dense.feature_windows import level_for
from lamella.errors import LamellaError, SlideError, StorageError
from lamella.formats.feature_raster import FACTS_FILE, FEATURES_FILE, FeatureRaster
from lamella.models.encoders import InputContract, ViTEncoder, fresh_vit
from lamella.models.pyramids.any_encoder import EncoderGrid
from lamella.models.pyramids.backbone import Backbone
from lamella.models.pyramids.colour import ColourPyramid
from lamella.models.pyramids.efficientnet import pretrained_efficientnet
from lamella.models.vit import ViTSettings
from lamella.slides.slide import Slide, open_slide
from lamella.slides.tissue_map import TissueMap


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    rng = np.random.default_rng(0)
    coarse = rng.integers(60, 220, (18, 25, 3)).astype(np.float64)
    smooth = np.repeat(np.repeat(coarse, 16, 0), 16, 1) + rng.normal(0, 12, (288, 400, 3))
    return smooth.clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def slide(picture: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Slide:
    path = tmp_path_factory.mktemp("slide") / "slide.tif"
    tifffile.imwrite(path, picture, photometric="rgb", tile=(64, 64))
    return open_slide(path, mpp=0.5)


def everywhere(slide: Slide) -> TissueMap:
    return TissueMap(np.ones((18, 25), bool), slide.frame.resized(25, 18))


def work_of(backbone: Backbone, token_um: float, margin_um: float = 1.0, **options: Any) -> RasterWork:
    return RasterWork(backbone, backbone.kind, level_for(backbone, token_um, 0.5), margin_um, **options)


@pytest.mark.parametrize("token_um", [2.0, 8.0])
def test_windows_make_what_the_backbone_makes_of_the_whole(
    slide: Slide, picture: np.ndarray, token_um: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small windows with their halo, against one look at all of the slide with as much glass around it."""
    monkeypatch.setattr(feature_windows, "_WINDOW_PX", 96)
    monkeypatch.setattr(feature_windows, "_HALOS", 3)
    backbone, noted = pretrained_efficientnet().eval(), []
    work = work_of(backbone, token_um, batch_size=1)
    raster = write_feature_raster(
        tmp_path, slide, everywhere(slide), work, noted=lambda done, of: noted.append((done, of))
    )
    assert len(noted) > 1
    assert noted[-1][0] == noted[-1][1]
    padded = np.full((288 + 256, 416 + 256, 3), 255, np.uint8)
    padded[128:416, 128:528] = picture
    with torch.no_grad():
        whole = backbone.level(torch.from_numpy(padded).permute(2, 0, 1)[None], work.level.level)[0]
    first = int(128 / work.level.stride)
    expected = whole[:, first:, first:][:, : raster.facts.rows, : raster.facts.columns].permute(1, 2, 0).numpy()
    apart = np.abs(np.asarray(raster.features, np.float32) - expected)[raster.seen] / expected.std((0, 1))
    assert apart.mean() < 0.003  # half precision, and what is left of the seams
    assert np.quantile(apart, 0.99) < 0.03
    assert raster.seen.mean() > 0.9


def test_a_transformer_is_shown_images_of_its_own_size(slide: Slide, tmp_path: Path) -> None:
    contract = InputContract(0.5, 64, (0.5,) * 3, (0.25,) * 3, patch_px=8, dim=16)
    vit = fresh_vit(ViTSettings(patch_px=8, dim=16, depth=1, heads=2), seed=0)
    sides: list[int] = []

    class Watched(EncoderGrid):
        def forward(self, images: Tensor) -> list[Tensor]:
            sides.extend(images.shape[-2:])
            return super().forward(images)

    raster = write_feature_raster(
        tmp_path, slide, everywhere(slide), work_of(Watched(ViTEncoder(vit, contract, "own"), 0.5), 4.0)
    )
    assert set(sides) == {64}
    assert raster.features.shape == (36, 50, 16)
    assert raster.seen.all()


def test_facts_say_what_it_is_and_the_moments_are_those_of_the_tissue(
    slide: Slide, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_windows, "_WINDOW_PX", 96)
    mask = np.zeros((18, 25), bool)
    mask[:, :10] = True  # 160 of 400 px
    backbone = ColourPyramid()
    raster = write_feature_raster(
        tmp_path, slide, TissueMap(mask, slide.frame.resized(25, 18)), work_of(backbone, 8.0), name="one"
    )
    facts = raster.facts
    assert (facts.slide, facts.encoder, facts.licence) == ("one", "colour", "no weights")
    assert facts.fingerprint == backbone_fingerprint(backbone)
    assert (facts.token_um, facts.mpp, facts.level) == (8.0, 0.5, 2)
    tokens = np.asarray(raster.features, np.float64)[:, :10].reshape(-1, facts.width)
    np.testing.assert_allclose(facts.mean, tokens.mean(0), atol=1e-3)
    np.testing.assert_allclose(facts.std, tokens.std(0), atol=1e-3)


def test_far_from_tissue_nothing_is_made_and_nothing_is_stored(
    slide: Slide, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_windows, "_WINDOW_PX", 96)
    mask = np.zeros((18, 25), bool)
    mask[0, 0] = True
    tissue = TissueMap(mask, slide.frame.resized(25, 18))
    raster = write_feature_raster(tmp_path, slide, tissue, work_of(ColourPyramid(), 2.0, margin_um=4.0))
    assert raster.seen[:8, :8].all()
    assert not raster.seen[:, 50:].any()
    values, seen = raster.sample(np.array([10.0, 390.0]), np.array([10.0, 10.0]))
    assert seen.tolist() == [True, False]
    assert values[0].any()


class Broken(ColourPyramid):
    """Says one thing and does another."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def level(self, images: Tensor, number: int) -> Tensor:
        level = super().level(images, number)
        return level[:, 1:] if self.how == "narrow" else level * torch.inf

    def description(self) -> Mapping[str, Any]:
        return {"how": self.how}


@pytest.mark.parametrize(("how", "said"), [("narrow", "its level 0 is"), ("infinite", "not finite")])
def test_other_widths_and_infinite_features_are_refused(slide: Slide, tmp_path: Path, how: str, said: str) -> None:
    """mistake: a wrong encoder behind a name."""
    with pytest.raises(LamellaError, match=said):
        write_feature_raster(tmp_path, slide, everywhere(slide), work_of(Broken(how), 2.0))
    assert not list(tmp_path.iterdir())


def test_large_numbers_are_clipped_to_half_precision(slide: Slide, tmp_path: Path) -> None:
    class Large(ColourPyramid):
        def level(self, images: Tensor, number: int) -> Tensor:
            return super().level(images, number) * 1e9

    raster = write_feature_raster(tmp_path, slide, everywhere(slide), work_of(Large(), 8.0))
    assert np.isfinite(raster.features).all()


def test_a_slide_smaller_than_a_token_is_refused(slide: Slide, tmp_path: Path) -> None:
    with pytest.raises(SlideError, match="no token of 512 um lies wholly on it: it is 200 x 144 um"):
        write_feature_raster(tmp_path, slide, everywhere(slide), work_of(ColourPyramid(), 512.0))
    assert not (tmp_path / FACTS_FILE).exists()


def test_a_full_disk_is_said_before_work_and_while_it_lasts(
    slide: Slide, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = work_of(ColourPyramid(), 2.0)
    with monkeypatch.context() as patch:
        usage = type("Usage", (), {"free": 1000})
        patch.setattr("lamella.dense.feature_rasters.shutil.disk_usage", lambda place: usage)
        with pytest.raises(StorageError, match=r"features of one scale need 0\.0 GB"):
            write_feature_raster(tmp_path / "new", slide, everywhere(slide), work)
    assert not (tmp_path / "new").exists()

    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr("lamella.dense.feature_rasters._RasterFile.write", full)
    with pytest.raises(StorageError, match="the disk is full"):
        write_feature_raster(tmp_path / "new", slide, everywhere(slide), work)
    assert not list((tmp_path / "new").iterdir())


def test_a_stopped_run_leaves_nothing_that_is_taken_for_whole(slide: Slide, tmp_path: Path) -> None:
    """Neither a first one, nor one that was to take the place of another."""

    def stop(done: int, of: int) -> None:
        raise KeyboardInterrupt

    work = work_of(ColourPyramid(), 2.0)
    write_feature_raster(tmp_path, slide, everywhere(slide), work)
    with pytest.raises(KeyboardInterrupt):
        write_feature_raster(tmp_path, slide, everywhere(slide), replace(work, name="other"), noted=stop)
    with pytest.raises(LamellaError, match="no features here"):
        FeatureRaster.open(tmp_path)
    assert write_feature_raster(tmp_path, slide, everywhere(slide), work).facts.encoder == "colour"


def test_the_file_is_numpys(slide: Slide, tmp_path: Path) -> None:
    raster = write_feature_raster(tmp_path, slide, everywhere(slide), work_of(ColourPyramid(), 8.0))
    again = np.load(tmp_path / FEATURES_FILE, allow_pickle=False)
    assert again.dtype == np.float16
    assert again.shape == (raster.facts.rows, raster.facts.columns, raster.facts.width)
