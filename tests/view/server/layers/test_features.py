"""Tiles in the colours of their features, and the scores of a file."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from lamella.errors import LamellaError
from lamella.formats.placed_tiles import FeatureRows
from lamella.geometry import Box, Frame
from lamella.view.maps import pca_colours, stretched
from lamella.view.server.layers import features
from lamella.view.server.layers.contract import Look
from lamella.view.server.layers.features import components, feature_layers

SLIDE = Frame(640, 448, 0.5, 0.5)
SIDE = 64


def write_features(path: Path, *, size: tuple[int, int] = (640, 448), dim: int = 12) -> np.ndarray:
    """Tiles of 64 px over a slide of 640 x 448; every seventh is missing."""
    rng = np.random.default_rng(0)
    places = np.array([(x, y) for y in range(0, 448, SIDE) for x in range(0, 640, SIDE)])
    places = places[np.arange(len(places)) % 7 != 3]
    values = rng.normal(size=(len(places), 3)) @ rng.normal(size=(3, dim)) + 0.01 * rng.normal(size=(len(places), dim))
    with h5py.File(path, "w") as file:
        coords = file.create_dataset("coords", data=places)
        coords.attrs.update(
            patch_size=SIDE, patch_size_level0=SIDE, level0_magnification=20.0, target_magnification=20.0, overlap=0
        )
        coords.attrs.update(level0_width=size[0], level0_height=size[1], name="slide")
        file["features"] = values.astype(np.float32)
        file["attention"] = np.arange(len(places), dtype=np.float32)[:, None]
        file["of_slide"] = np.zeros(4)
    return places


def test_components_are_the_principal_ones_and_read_in_batches(monkeypatch):
    rng = np.random.default_rng(1)
    values = rng.normal(size=(500, 6)) @ rng.normal(size=(6, 20))
    rows = FeatureRows(500, 20, False, lambda: iter(np.array_split(values, 7)))
    found = components(rows, "slide")
    for ours, theirs in zip(stretched(found).T, pca_colours([values])[0].T, strict=True):
        assert min(np.abs(ours - theirs).max(), np.abs(1 - ours - theirs).max()) < 1e-4  # but for the sign
    monkeypatch.setattr(features, "_TILES_FITTED", 100)
    taken = components(rows, "slide")  # of every fifth tile: nearly the same axes
    for column in range(2):
        assert abs(np.corrcoef(taken[:, column], found[:, column])[0, 1]) > 0.95


def test_each_tile_has_one_colour_where_it_lies(tmp_path):
    places = write_features(tmp_path / "slide.h5")
    layer, _ = (make() for make in feature_layers(tmp_path / "slide.h5", "features", SLIDE))
    near = layer.tile(Box(0, 0, 640, 448), 640, 448, Look())
    far = layer.tile(Box(0, 0, 640, 448), 80, 56, Look())
    seen = set()
    for x, y in places.tolist():
        block = near[y + 1 : y + SIDE - 1, x + 1 : x + SIDE - 1].reshape(-1, 4)
        assert (block == block[0]).all()
        assert block[0, 3] == 255
        assert (far[y // 8 + 4, x // 8 + 4] == block[0]).all()
        seen.add(tuple(block[0].tolist()))
    assert len(seen) > 50
    assert not near[1:63, 3 * 64 + 1 : 4 * 64 - 1].any()  # the fourth tile is missing
    single = layer.tile(Box(0, 0, 640, 448), 80, 56, Look("component 2"))
    assert np.array_equal(single[..., 3] > 0, far[..., 3] > 0)
    assert layer.legend(Look("component 2")).stops
    assert not layer.legend(Look()).stops
    assert layer.info.channels == ("components 1 to 3", "component 1", "component 2", "component 3")


def test_scores_of_the_file_are_channels(tmp_path):
    places = write_features(tmp_path / "slide.h5")
    _, layer = (make() for make in feature_layers(tmp_path / "slide.h5", "features", SLIDE))
    assert layer.info.channels == ("attention",)  # what is not of the tiles is none
    values = layer.under(Box(0, 0, 640, 448), 80, 56, 0)
    for number, (x, y) in enumerate(places.tolist()):
        assert values[y // 8 + 4, x // 8 + 4] == number


def test_features_of_another_slide_are_refused(tmp_path):
    write_features(tmp_path / "slide.h5", size=(640, 500))
    with pytest.raises(LamellaError, match="it was made for a slide of 640 x 500 pixels, this one has 640 x 448"):
        list(feature_layers(tmp_path / "slide.h5", "features", SLIDE))
    (tmp_path / "damaged.h5").write_bytes((tmp_path / "slide.h5").read_bytes()[:1000])
    with pytest.raises(LamellaError, match="damaged"):
        list(feature_layers(tmp_path / "damaged.h5", "features", SLIDE))
