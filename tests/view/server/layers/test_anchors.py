"""Contexts of a catalogue at their places; targets inside of them; densities far out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.view.server.layers.analytic import SLIDE
from tests.view.server.layers.test_tissue import indexed

from lamella.errors import LamellaError
from lamella.formats.tables import write_parquet
from lamella.geometry import Box, Frame
from lamella.slides.anchors.catalogue import CATALOGUE_FILE, FORMAT
from lamella.slides.anchors.sampling import CrossSampling
from lamella.view.marks import ANCHOR
from lamella.view.server.layers.anchors import anchor_layers
from lamella.view.server.layers.contract import Look

SAMPLING = CrossSampling(context_fov_um=100, target_fov_um=25, targets_per_context=3, target_margin_um=0, patch_px=8)
CENTRES = np.array([[2000.0, 1500.0], [2600.0, 1700.0]])


def write_catalogue(folder: Path, file: str = "shards/slide.parquet", centres: np.ndarray = CENTRES) -> Path:
    (folder / "shards").mkdir(parents=True)
    columns = {
        "number": np.arange(len(centres)),
        "center_x_px0": centres[:, 0],
        "center_y_px0": centres[:, 1],
        "tissue_fraction": np.ones(len(centres)),
        "min_target_tissue_fraction": np.full(len(centres), 0.25),
    }
    write_parquet(folder / "shards" / "slide.parquet", columns)
    shard = {"slide_id": "slide", "file": file, "anchors": len(centres), "hash": ""}
    listing = {"format": FORMAT, "sampling": SAMPLING.model_dump(mode="json"), "shards": [shard]}
    (folder / CATALOGUE_FILE).write_text(json.dumps(listing))
    return folder


def layer_of(folder: Path, slide=None):
    (make,) = anchor_layers(folder, "slide", slide, "anchors", SLIDE)
    return make()


def test_contexts_have_their_size_in_micrometres_and_hold_their_targets(tmp_path):
    layer = layer_of(write_catalogue(tmp_path / "anchors"), indexed(tmp_path / "mask.png"))
    found = layer.objects(Box(1990, 1490, 2010, 1510), 50)
    names = [feature["properties"]["classification"]["name"] for feature in found.features]
    assert names == ["context", "target", "target", "target"]
    assert found.total == 4
    corners = [np.array(feature["geometry"]["coordinates"][0]) for feature in found.features]
    # 100 um are 200 px across and 250 px down.
    assert np.allclose([corners[0].min(axis=0), corners[0].max(axis=0)], [[1900, 1375], [2100, 1625]])
    for target in corners[1:]:
        assert np.allclose(target.max(axis=0) - target.min(axis=0), [50, 62.5], atol=0.02)
        assert (target >= [1899.9, 1374.9]).all()
        assert (target <= [2100.1, 1625.1]).all()
    assert layer.objects(Box(1990, 1490, 2010, 1510), 50) == found  # the same draw each time


def test_their_outlines_are_drawn_near(tmp_path):
    layer = layer_of(write_catalogue(tmp_path / "anchors"))
    pixels = layer.tile(Box(1800, 1300, 2056, 1556), 256, 256, Look())
    assert (pixels[100, 110] == (*ANCHOR, 255)).any()
    assert tuple(pixels[75, 150]) == (*ANCHOR, 255)
    assert tuple(pixels[150, 100]) == (*ANCHOR, 255)
    assert not pixels[:73].any()
    assert [name for name, _ in layer.info.legend.classes] == ["context"]
    assert "not known" in layer.info.note


def test_far_out_they_are_a_density(tmp_path):
    centres = np.random.default_rng(0).uniform([1500, 1000], [3000, 2000], (4000, 2))
    layer = layer_of(write_catalogue(tmp_path / "anchors", centres=centres))
    pixels = layer.tile(Box(0, 0, 3000, 2000), 24, 16, Look())
    assert pixels[8:, 12:, 3].all()
    assert not pixels[:8].any()
    assert not pixels[:, :12].any()
    assert layer.objects(SLIDE.bounds_px, 100).total == 4000


@pytest.mark.parametrize(
    ("file", "slide_id", "cause"),
    [
        ("shards/slide.parquet", "other", "no anchors of other"),
        ("../../etc/passwd", "slide", "outside of its folder"),
        ("/etc/passwd", "slide", "outside of its folder"),
    ],
)
def test_a_catalogue_that_lacks_the_slide_or_leads_elsewhere_is_refused(tmp_path, file, slide_id, cause):
    folder = write_catalogue(tmp_path / "anchors", file)
    with pytest.raises(LamellaError, match=cause):
        list(anchor_layers(folder, slide_id, None, "anchors", SLIDE))


def test_anchors_of_another_slide_are_refused(tmp_path):
    other = replace(indexed(tmp_path / "mask.png"), frame=Frame(10, 10, 0.5, 0.5))
    with pytest.raises(LamellaError, match="10 x 10 pixels"):
        layer_of(write_catalogue(tmp_path / "anchors"), other)
