"""Tiles, objects, channels and legends over HTTP."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.conftest import write_pyramid
from tests.view.server.layers.analytic import label_at, places_um, write_labels, write_values
from tests.view.server.layers.test_find import FACTS

from lamella.formats.geojson import GeoObject, write_geojson
from lamella.geometry import Frame

SLIDE = Frame(1500, 1000, 0.5, 0.5)


@pytest.fixture(scope="module")
def given(tmp_path_factory) -> Path:
    """A slide and a folder of predictions."""
    folder = tmp_path_factory.mktemp("given")
    laid = folder / "run" / "slide"
    laid.mkdir(parents=True)
    write_pyramid(folder / "slide.tif", np.full((1000, 1500, 3), 200, np.uint8))
    facts = FACTS | {"slide": "slide.tif", "slide_px0": [1500, 1000], "slide_mpp": [0.5, 0.5]}
    (laid / "prediction.json").write_text(json.dumps(facts))
    write_labels(laid / "labels.zarr")
    write_values(laid / "values.zarr")
    square = np.array([[100.0, 100], [200, 100], [200, 200], [100, 200]])
    write_geojson(laid / "objects.geojson.gz", [GeoObject(polygons=((square,),))] * 3)
    return folder


@pytest.fixture
def client(viewer, given):
    return viewer(given)


LAYER = "/api/slides/slide/layers/run-"


def pixels_of(answer) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGBA"))


def test_the_facts_of_a_slide_list_its_layers(client):
    facts = client.get("/api/slides/slide").json()
    assert [layer["id"] for layer in facts["layers"]] == ["run-labels", "run-values", "run-objects"]
    assert facts["refused_layers"] == []


def test_a_known_place_has_its_colour_at_several_levels(client):
    from lamella.view.server.pyramid import Pyramid

    pyramid = Pyramid.over(SLIDE)
    for level in (pyramid.max_level, pyramid.max_level - 2):
        box, width, height = pyramid.tile(level, 1, 0)
        answer = client.get(f"{LAYER}labels/tiles/{level}/1_0.png")
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
        pixels, labels = pixels_of(answer), label_at(*places_um(box, width, height, SLIDE))
        assert pixels.shape == (height, width, 4)
        for value, colour in {1: (1, 2, 3, 255), 2: (4, 5, 6, 255)}.items():
            assert (pixels[labels == value] == colour).all()
        assert not pixels[(labels == 0) | (labels == 255)].any()


def test_a_browser_that_has_the_tile_is_told_so(client):
    first = client.get(f"{LAYER}labels/tiles/8/0_0.png")
    again = client.get(f"{LAYER}labels/tiles/8/0_0.png", headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    other = client.get(
        f"{LAYER}labels/tiles/8/0_0.png?channel=stroma", headers={"if-none-match": first.headers["etag"]}
    )
    assert other.status_code == 200
    assert other.content != first.content


def test_looks_are_kept_apart_and_tiles_are_made_once(client, monkeypatch):
    addresses = [f"{LAYER}values/tiles/8/0_0.png?{query}" for query in ("", "map=magma", "channel=BBB", "low=5&high=9")]
    tiles = [client.get(address).content for address in addresses]
    assert len(set(tiles)) == 4
    layers, _ = client.served.layers("slide")
    monkeypatch.setattr(layers["run-values"], "tile", None)  # whatever is asked of it now fails
    assert [client.get(address).content for address in addresses] == tiles


@pytest.mark.parametrize(
    "address",
    [
        "labels/tiles/8/9_9.png",
        "labels/tiles/99/0_0.png",
        "labels/tiles/8/0_0.png?channel=cartilage",
        "values/tiles/8/0_0.png?map=jet",
        "none/tiles/8/0_0.png",
        "values/legend?channel=CCC",
    ],
)
def test_what_is_not_there_is_404(client, address):
    assert client.get(LAYER + address).status_code == 404


@pytest.mark.parametrize("query", ["low=a", "low=nan", "high=inf"])
def test_what_is_no_number_is_400(client, query):
    answer = client.get(f"{LAYER}values/tiles/8/0_0.png?{query}")
    assert answer.status_code == 400
    assert "is no number" in answer.json()["error"]


def test_damage_is_an_error_tile_with_a_line_in_the_log_and_is_not_kept(client, given, caplog):
    chunk = given / "run" / "slide" / "values.zarr" / "0" / "0" / "0" / "0"
    whole = chunk.read_bytes()
    chunk.write_bytes(whole[:-100])
    address = f"{LAYER}values/tiles/11/0_1.png?low=0&high=9"
    answer = client.get(address)
    assert answer.status_code == 500
    assert answer.headers["cache-control"] == "no-store"
    assert (pixels_of(answer)[..., 3] == 255).all()  # hatched, and nowhere bare
    assert "values.zarr: it is damaged" in caplog.text
    chunk.write_bytes(whole)
    assert client.get(address).status_code == 200


def test_objects_channels_and_legends(client):
    found = client.get(f"{LAYER}objects/objects?x0=0&y0=0&x1=150&y1=150&limit=10").json()
    assert (found["total"], found["ready"], found["said"]) == (3, 1.0, "3 in view")
    assert found["svg"].count("z") == 3
    found = client.get(f"{LAYER}objects/objects?x0=0&y0=0&x1=150&y1=150&limit=2").json()
    assert (found["svg"], found["said"]) == ("", "3 in view, too many to outline: zoom in")
    assert client.get(f"{LAYER}objects/objects?x0=0&y0=0&x1=50&y1=50").json()["total"] == 0
    assert client.get(f"{LAYER}values/channels?search=b").json() == {
        "channels": ["BBB"],
        "exact": None,
        "said": "1 found",
    }
    assert client.get(f"{LAYER}values/channels?search=bbb").json()["exact"] == "BBB"
    legend = client.get(f"{LAYER}values/legend?channel=AAA&map=magma&high=50").json()
    assert (legend["low"], legend["high"], len(legend["stops"])) == (0, 50, 17)
    assert 'placeholder="50"' in legend["html"]
    assert client.get(f"{LAYER}labels/objects?x0=0&y0=0&x1=9&y1=9").json() == {
        "total": 0,
        "svg": "",
        "ready": 1.0,
        "said": "0 in view",
    }


def test_a_tile_of_a_file_that_is_still_read_is_not_kept(client, monkeypatch):
    layers, _ = client.served.layers("slide")
    monkeypatch.setattr(type(layers["run-objects"]), "settled", False)
    answer = client.get(f"{LAYER}objects/tiles/11/0_0.png")
    assert answer.headers["cache-control"] == "no-store"
    monkeypatch.setattr(type(layers["run-objects"]), "settled", True)
    assert "etag" in client.get(f"{LAYER}objects/tiles/11/0_0.png").headers
