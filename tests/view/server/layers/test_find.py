"""The layers of a slide from its sources; what is damaged is said, and the rest is shown."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from tests.view.server.layers.analytic import (
    HEIGHT,
    MPP,
    SLIDE,
    WIDTH,
    centres_um,
    label_at,
    places_um,
    write_labels,
    write_probabilities,
    write_values,
)
from tests.view.server.layers.test_tissue import indexed

from lamella.formats.geojson import GeoObject, write_geojson
from lamella.formats.ome_tiff import write_labels as write_tiff
from lamella.formats.tables import write_parquet
from lamella.geometry import Box, Frame
from lamella.view.server.catalogue.items import LayerSource, SlideItem
from lamella.view.server.layers.contract import Look
from lamella.view.server.layers.find import find_layers

FACTS = {
    "slide_px0": [3000, 2000],
    "slide_mpp": [0.5, 0.4],
    "model": "unet",
    "mpp": 2.0,
    "background": "background",
    "colours": {"background": [190, 190, 190], "tumour": [1, 2, 3], "stroma": [4, 5, 6]},
}


@dataclass
class Opened:
    """As much of a slide as is asked for."""

    frame: Frame = SLIDE


def find(*sources: LayerSource, item: SlideItem | None = None, frame: Frame = SLIDE):
    return find_layers(item or SlideItem("slide", "slide", Path("slide.tif")), Opened(frame), sources)


def prediction(folder: Path, **facts) -> LayerSource:
    folder.mkdir(parents=True)
    (folder / "prediction.json").write_text(json.dumps(FACTS | facts))
    write_labels(folder / "labels.zarr")
    write_probabilities(folder / "probabilities.zarr")
    write_geojson(folder / "objects.geojson.gz", [GeoObject(points=np.array([[5.0, 5.0]]), classification="tumour")])
    return LayerSource("prediction", folder, "slide", folder.parent.name)


def test_a_prediction_has_classes_probabilities_and_objects(tmp_path):
    layers, refused = find(prediction(tmp_path / "run 1" / "slide"))
    assert refused == []
    assert list(layers) == ["run-1-labels", "run-1-probabilities", "run-1-objects"]
    assert {layer.info.group for layer in layers.values()} == {"run 1"}
    labels = layers["run-1-labels"]
    assert dict(labels.info.legend.classes)["tumour"] == "#010203"  # as the prediction says it
    assert labels.info.note == "unet, 2 µm per pixel"
    assert labels.frame == SLIDE
    assert layers["run-1-objects"].objects(SLIDE.bounds_px, 5).total == 1


def test_places_follow_the_spacing_that_the_prediction_was_made_with(tmp_path):
    """The slide is opened with twice the micrometres per pixel: the raster lies over the same pixels."""
    frame = Frame(3000, 2000, 1.0, 0.8)
    layers, _ = find(prediction(tmp_path / "run" / "slide"), frame=frame)
    box = Box(512, 512, 768, 768)
    shown = layers["run-labels"].tile(box, 256, 256, Look("tumour"))
    assert np.array_equal(shown[..., 3] == 255, label_at(*places_um(box, 256, 256)) == 1)


def test_two_of_one_name_have_two_ids(tmp_path):
    sources = [prediction(tmp_path / number / "run" / "slide") for number in "ab"]
    layers, _ = find(*sources)
    assert {"run-labels", "run-labels-2"} < set(layers)


def test_what_is_damaged_is_said_and_the_rest_is_shown(tmp_path):
    good = prediction(tmp_path / "run" / "slide")
    (good.path / "labels.zarr" / ".zattrs").write_text("{")
    other = prediction(tmp_path / "other" / "slide", slide_px0=[10, 10])
    torn = prediction(tmp_path / "torn" / "slide")
    (torn.path / "prediction.json").write_text('{"slide_px0": ')
    silent = prediction(tmp_path / "silent" / "slide")
    (silent.path / "prediction.json").write_text("[]")
    gone = LayerSource("objects", tmp_path / "gone.geojson", "slide", "x")
    layers, refused = find(good, other, torn, silent, gone)
    assert list(layers) == ["run-probabilities", "run-objects"]
    assert len(refused) == 5
    for reason, cause in zip(
        refused,
        ["metadata is damaged", "slide of 10 x 10 pixels", "cannot be read", "no facts", "does not exist"],
        strict=True,
    ):
        assert cause in reason


def test_what_nobody_thought_of_leaves_the_rest(tmp_path, caplog):
    odd = prediction(tmp_path / "odd" / "slide", colours={"tumour": 3})
    layers, refused = find(odd, prediction(tmp_path / "run" / "slide"))
    assert "run-labels" in layers
    assert len(refused) == 1
    assert "it cannot be shown (TypeError" in refused[0]
    assert "Traceback" in caplog.text


def test_expression_has_its_genes_and_their_unit(tmp_path):
    folder = tmp_path / "expression" / "slide"
    folder.mkdir(parents=True)
    facts = {**FACTS, "units": "expected count per bin of 2 µm", "model": ["a", "b"], "bin_um": 2.0}
    (folder / "prediction.json").write_text(json.dumps(facts))
    write_values(folder / "genes.zarr")
    layers, refused = find(LayerSource("expression", folder, "slide", "expression"))
    assert refused == []
    assert list(layers) == ["expression-genes"]
    info = layers["expression-genes"].info
    assert info.legend.unit == "expected count per bin of 2 µm"
    assert info.note == "2 models, 2 µm bins"
    assert list(info.channels) == ["AAA", "BBB"]


def test_a_weak_prediction_has_all_that_its_folder_holds(tmp_path):
    folder = tmp_path / "weak" / "slide"
    folder.mkdir(parents=True)
    facts = {**FACTS, "mask_mpp": MPP, "mask_values": {"0": "background", "1": "tumour", "2": "stroma", "255": "-"}}
    (folder / "metadata.json").write_text(json.dumps(facts))
    labels = label_at(*centres_um(HEIGHT, WIDTH)).astype(np.uint8)
    write_tiff(folder / "segmentation_mask.ome.tif", labels, Frame(WIDTH, HEIGHT, MPP, MPP), ["b", "t", "s"])
    write_probabilities(folder / "confidence_maps.zarr")
    write_geojson(folder / "uncertain_tiles.geojson", [GeoObject(points=np.array([[5.0, 5.0]]), classification="?")])
    columns = {"slide_id": ["slide"] * 2, "x_px0": [100.0, 1000.0], "y_px0": [250.0, 250.0], "fov_um": [100.0] * 2}
    write_parquet(folder / "tiles.parquet", {**columns, "mpp": [2.0] * 2, "entropy": [0.25, 0.75]})
    layers, refused = find(LayerSource("weak", folder, "slide", "weak"))
    assert refused == []
    assert list(layers) == ["weak-labels", "weak-confidences", "weak-scores", "weak-uncertain-tiles"]
    box = Box(0, 256, 1024, 1280)
    shown = layers["weak-labels"].tile(box, 256, 256, Look("stroma"))
    assert np.array_equal(shown[..., 3] == 255, label_at(*places_um(box, 256, 256)) == 2)
    scores = layers["weak-scores"].under(Box(0, 0, 3000, 2000), 300, 200, 0)
    # 100 um are 200 px across and 250 px down.
    assert (scores[25:50, 10:30] == 0.25).all()
    assert (scores[25:50, 100:120] == 0.75).all()
    assert np.isfinite(scores).sum() == 2 * 25 * 20


def test_tissue_comes_from_the_slides_own_index(tmp_path, monkeypatch):
    entry = indexed(tmp_path / "mask.png")

    class Index:
        def __contains__(self, name):
            return False

    monkeypatch.setattr("lamella.view.server.layers.find.SlideIndex.load", lambda path: Index())
    item = SlideItem("slide", "slide", Path("slide.tif"), indexed=entry)
    layers, refused = find(LayerSource("index", tmp_path, "slide", "index"), item=item)
    assert refused == []
    assert list(layers) == ["index-tissue"]


@pytest.mark.parametrize("kind", ["anchors", "features", "expression", "weak", "spots", "index"])
def test_an_empty_folder_is_refused_with_its_name(tmp_path, kind):
    (tmp_path / "nothing").mkdir()
    layers, refused = find(LayerSource(kind, tmp_path / "nothing", "slide", "x"))
    assert not layers
    assert len(refused) == 1
    assert "nothing" in refused[0]
