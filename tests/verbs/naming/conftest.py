"""A tiny CLIP, images with two kinds of discs in them, and a slide with polygons."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from tests.models.tiny_clip import save_tiny_clip

from lamella.formats.geojson import GeoObject, write_geojson

SIDE = 96


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip") / "tiny-clip"
    save_tiny_clip(folder)
    return folder


@pytest.fixture(scope="session")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six patients with two images: a dark red disc (tumor, 1), a striped blue square (fat, 2), grey ground (0)."""
    folder = tmp_path_factory.mktemp("data") / "discs"  # its name is the data set's
    folder.mkdir()
    rows = ["image_id,image_path,mask_path,patient"]
    y, x = np.mgrid[:SIDE, :SIDE]
    for number in range(12):
        rng = np.random.default_rng(number)
        pixels = rng.integers(150, 180, (SIDE, SIDE, 3), dtype=np.uint8)
        mask = np.zeros((SIDE, SIDE), np.uint8)
        disc = (x - 25) ** 2 + (y - 30 - number) ** 2 < 18**2
        pixels[disc] = rng.integers(60, 100, (int(disc.sum()), 3)) * [1.5, 0.3, 0.4]
        mask[disc] = 1
        mask[10:46, 55:90] = 2
        pixels[10:46, 55:90] = np.where((x[10:46, 55:90] // 3 % 2)[..., None], (60, 60, 200), (200, 200, 250))
        mask[80:82, 80:82] = 2  # too small to see
        Image.fromarray(pixels).save(folder / f"i{number}.png")
        Image.fromarray(mask).save(folder / f"m{number}.png")
        rows.append(f"i{number},i{number}.png,m{number}.png,p{number // 2}")
    path = folder / "manifest.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.fixture(scope="session")
def wordings(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("wordings")
    first = {"tumor": ["tumor", "dark cells"], "fat": ["fat", "an adipose tissue"]}
    second = {"fat": ["white holes"], "tumor": ["many nuclei"]}
    for name, tree in (("first", first), ("second", second)):
        (folder / f"{name}.json").write_text(json.dumps(tree))
    return folder / "first.json", folder / "second.json"


@pytest.fixture
def slide(tmp_path: Path) -> tuple[Path, Path]:
    """A slide of 400 x 300 px at 0.5 um per pixel, and five objects: three that can be named, a point, one outside."""
    pixels = np.random.default_rng(0).integers(120, 250, (300, 400, 3), dtype=np.uint8)
    pixels[50:120, 60:150] = (180, 40, 60)
    path = tmp_path / "slide.tif"
    spacing = (1e4 / 0.5, 1e4 / 0.5)
    tifffile.imwrite(
        path, pixels, tile=(64, 64), photometric="rgb", resolution=spacing, resolutionunit="CENTIMETER", metadata=None
    )

    def square(x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
        return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])

    objects = [
        GeoObject(polygons=((square(60, 50, 150, 120),),), classification="gland", measurements={"area": 3.5}),
        GeoObject(polygons=((square(200, 100, 300, 200), square(220, 120, 260, 160)),), name="with a hole"),
        GeoObject(points=np.array([[5.0, 5.0]])),
        GeoObject(polygons=((square(380, 280, 480, 380),),)),
        GeoObject(polygons=((square(900, 900, 950, 950),),)),
    ]
    regions = tmp_path / "objects.geojson"
    write_geojson(regions, objects)
    return path, regions
