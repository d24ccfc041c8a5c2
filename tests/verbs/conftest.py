"""A small study for the tests of `embed` and `evaluate`: classes differ in texture, sites in tint, nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from lamella.formats.tables import write_csv
from lamella.models.encoders import InputContract
from lamella.slides.indexing import build_index
from lamella.slides.manifest import find_slides
from lamella.slides.tissue import TissueSettings

SIDE_PX, TILE_PX = 384, 64
TINTS = {"north": (0.9, 0.6, 0.8), "south": (0.7, 0.5, 0.9)}


def write_study(folder: Path, slides: int = 6) -> Path:
    """Slides whose left half is striped finely (class 1), whose right half coarsely (class 2); the index's folder."""
    rows = []
    label = np.repeat(np.array([[1, 2]], np.uint8), 48, axis=0).repeat(24, axis=1)
    for number in range(slides):
        site = list(TINTS)[number % 2]
        name = f"s{number}"
        tifffile.imwrite(folder / f"{name}.tif", _pixels(number, site), tile=(64, 64), photometric="rgb")
        Image.fromarray(label).save(folder / f"{name}_labels.png")
        Image.fromarray(np.full((48, 48), 255, np.uint8)).save(folder / f"{name}_mask.png")
        rows.append(
            {
                "slide_id": name,
                "wsi_path": f"{name}.tif",
                "mask_path": f"{name}_mask.png",
                "mpp": "0.5",
                "patient": f"p{number}",
                "site": site,
                "label_mask_path": f"{name}_labels.png",
            }
        )
    write_csv(folder / "manifest.csv", rows, list(rows[0]))
    (folder / "index").mkdir()
    build_index(find_slides([folder / "manifest.csv"]), folder / "index", TissueSettings(), {})
    return folder / "index"


def _pixels(seed: int, site: str) -> np.ndarray:
    """Stripes of two levels, as often dark as bright in every tile, so that no colour tells the classes apart."""
    rng = np.random.default_rng(seed)
    x = np.arange(SIDE_PX)
    fine, coarse = x // 2 % 2, x // 16 % 2
    stripes = np.where(x < SIDE_PX // 2, fine, coarse)
    grey = np.tile(90 + 110 * stripes, (SIDE_PX, 1)) + rng.normal(0, 6, (SIDE_PX, SIDE_PX)) + rng.normal(0, 3)
    return (grey[..., None] * TINTS[site]).clip(0, 255).astype(np.uint8)


class TextureEncoder:
    """Stub: how much neighbouring pixels differ. Sees the classes, hardly the tint."""

    name = "texture"
    fingerprint = "0123456789abcdef"
    contract = InputContract(0.5, TILE_PX, (0.0,) * 3, (1.0,) * 3, patch_px=16, dim=2)

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.mpps: set[float | None] = set()

    def pooled(self, images: torch.Tensor, mpp: float | None = None) -> torch.Tensor:
        self.batches.append(len(images))
        grey = images.float().mean(1)
        grey = (grey - grey.mean((1, 2), keepdim=True)) / grey.std((1, 2), keepdim=True)
        across, down = grey.diff(dim=2).abs().mean((1, 2)), grey.diff(dim=1).abs().mean((1, 2))
        return torch.stack([across, down], dim=1)

    def tokens(self, images: torch.Tensor) -> torch.Tensor:
        return self.pooled(images)[:, None]

    def to(self, device: object) -> TextureEncoder:
        return self


class MeanEncoder(TextureEncoder):
    """Stub: the mean colour of a tile; lets tests see which tile became which row, and at what spacing."""

    name = "mean"
    fingerprint = "fedcba9876543210"
    contract = InputContract(0.5, TILE_PX, (0.0,) * 3, (1.0,) * 3, patch_px=16, dim=3)

    def pooled(self, images: torch.Tensor, mpp: float | None = None) -> torch.Tensor:
        self.batches.append(len(images))
        self.mpps.add(mpp)
        return images.float().mean((2, 3))


@pytest.fixture(scope="session")
def judged_index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The index of a study that no test changes."""
    return write_study(tmp_path_factory.mktemp("study"))


@pytest.fixture
def own_index(tmp_path: Path) -> Path:
    """The index of a study that a test may damage."""
    (tmp_path / "study").mkdir()
    return write_study(tmp_path / "study", slides=3)


@pytest.fixture
def texture() -> TextureEncoder:
    return TextureEncoder()


@pytest.fixture
def mean_colour() -> MeanEncoder:
    return MeanEncoder()
