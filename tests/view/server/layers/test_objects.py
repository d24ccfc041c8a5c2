"""Objects in view, outlines near and densities far out; a damaged file is said, however far it was read."""

from __future__ import annotations

import gzip
import threading
from pathlib import Path

import numpy as np
import pytest

from lamella.errors import LamellaError
from lamella.formats.geojson import GeoObject, write_geojson
from lamella.formats.outline_arrays import GrowingOutlines
from lamella.formats.outline_file import write_objects
from lamella.geometry import Box, Frame
from lamella.view.server.layers import objects as objects_module
from lamella.view.server.layers import outline_reader
from lamella.view.server.layers.contract import Look
from lamella.view.server.layers.objects import ObjectLayer
from lamella.view.server.layers.outline_reader import OutlineReader

SLIDE = Frame(4000, 3000, 0.5, 0.25)
RED, BLUE = (200, 30, 30), (30, 30, 200)


def square(x: float, y: float, side: float) -> np.ndarray:
    return np.array([[x, y], [x + side, y], [x + side, y + side], [x, y + side]])


def some_objects() -> list[GeoObject]:
    return [
        GeoObject(polygons=((square(100, 100, 80),),), classification="gland", colour=RED),
        GeoObject(polygons=((square(1000, 100, 100), square(1020, 120, 30)),), classification="gland", colour=RED),
        GeoObject(
            polygons=((square(300, 300, 20),), (square(340, 300, 20), square(345, 305, 5))),
            classification="lumen",
            colour=BLUE,
        ),
        GeoObject(points=np.array([[50.0, 60.0], [70.0, 60.0]]), classification="mitosis"),
        GeoObject(lines=(np.array([[500.0, 500.0], [600.0, 560.0]]),)),
    ]


def layer_of(tmp_path: Path, items: list[GeoObject], name: str = "slide.geojson.gz") -> ObjectLayer:
    write_geojson(tmp_path / name, items)
    return ObjectLayer(tmp_path / name, "run", SLIDE)


def test_what_comes_back_is_what_was_in_the_file(tmp_path):
    layer = layer_of(tmp_path, some_objects())
    found = layer.objects(Box(0, 0, 4000, 3000), 100)
    assert (found.total, found.ready) == (5, 1.0)
    shapes = [feature["geometry"] for feature in found.features]
    assert [shape["type"] for shape in shapes] == [
        "Polygon",
        "Polygon",
        "MultiPolygon",
        "MultiPoint",
        "MultiLineString",
    ]
    for shape, item in zip(shapes[:3], some_objects()[:3], strict=True):
        polygons = shape["coordinates"] if shape["type"] == "MultiPolygon" else [shape["coordinates"]]
        for written, polygon in zip(polygons, item.polygons, strict=True):
            for ring, corners in zip(written, polygon, strict=True):
                assert ring[0] == ring[-1]
                assert {tuple(corner) for corner in ring} == {tuple(corner) for corner in corners.tolist()}
    assert found.features[0]["properties"]["classification"] == {"name": "gland", "color": "#c81e1e"}
    assert list(layer.info.channels) == ["gland", "lumen", "mitosis", "no class"]
    assert ("lumen", "#1e1ec8") in layer.info.legend.classes
    assert layer.info.note.startswith("5 objects (0.0 MB);")


def test_only_what_touches_the_box_is_counted_and_too_many_are_not_sent(tmp_path):
    layer = layer_of(tmp_path, some_objects())
    assert layer.objects(Box(170, 90, 190, 110), 10).total == 1
    assert layer.objects(Box(190, 90, 290, 290), 10).total == 0
    crowd = layer.objects(Box(0, 0, 4000, 3000), 3)
    assert (crowd.total, list(crowd.features)) == (5, [])


def test_outlines_are_drawn_where_they_lie_and_join_across_tiles(tmp_path):
    layer = layer_of(tmp_path, some_objects())
    pixels = layer.tile(Box(0, 0, 256, 256), 256, 256, Look())
    red = (pixels[..., :3] == RED).all(-1) & (pixels[..., 3] == 255)
    rows, columns = np.nonzero(red)
    # A line of three pixels, the middle one of which holds the corners at 100 and 180.
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (99, 181, 99, 181)
    assert red[140, 99:102].all()
    assert not red[120:160, 120:160].any()
    assert (pixels[60, 50, 3], pixels[60, 60, 3]) == (255, 0)  # a dot at a point
    halves = [layer.tile(Box(x, 0, x + 140, 256), 140, 256, Look()) for x in (0, 140)]
    assert np.array_equal(np.concatenate(halves, axis=1)[:, :256], pixels)
    assert not layer.tile(Box(0, 0, 256, 256), 256, 256, Look("lumen")).any()
    with pytest.raises(KeyError):
        layer.tile(Box(0, 0, 256, 256), 256, 256, Look("cartilage"))


def test_far_out_colours_are_objects_per_mm2(tmp_path):
    rng = np.random.default_rng(0)
    places = np.concatenate([rng.uniform(0, 1000, (3000, 2)), rng.uniform(2000, 3000, (300, 2))])
    layer = layer_of(tmp_path, [GeoObject(polygons=((square(x, y, 8),),), classification="cell") for x, y in places])
    pixels = layer.tile(Box(0, 0, 4000, 3000), 250, 188, Look())
    dense, thin = pixels[10:50, 10:50].astype(int), pixels[130:180, 130:180].astype(int)
    assert (dense[..., 3] == 255).all()
    assert dense[..., :3].sum(-1).mean() > thin[..., :3].sum(-1).mean() + 100
    assert not pixels[:, 200:].any()  # no objects, no colour
    legend = layer.legend(Look())
    truth = 3000 / (1000 * 0.5 * 1000 * 0.25 / 1e6)
    assert legend.unit == "objects per mm²"
    assert truth < legend.high < 2.5 * truth


def test_a_long_file_is_read_in_the_background_and_shown_while_it_is(tmp_path, monkeypatch):
    gate, reached = threading.Event(), threading.Event()
    features = list(outline_reader.iterate_features(_written(tmp_path, 400)))

    def slowly(path, taken):
        for number, feature in features:
            if number == 300:
                taken(path.stat().st_size // 2)
                reached.set()
                assert gate.wait(10)
            yield number, feature

    monkeypatch.setattr(outline_reader, "iterate_features", slowly)
    monkeypatch.setattr(outline_reader, "_FIRST_SHOWN_S", 0.0)
    monkeypatch.setattr(objects_module, "_SHORT_BYTES", 0)
    monkeypatch.setattr(objects_module, "_WAIT_S", 0.01)
    layer = ObjectLayer(tmp_path / "cells.geojson", "run", SLIDE)
    assert not layer.settled
    layer.objects(SLIDE.bounds_px, 1000)
    assert reached.wait(10)
    part = layer.objects(SLIDE.bounds_px, 1000)
    assert 0 < part.total < 300
    assert part.ready == pytest.approx(0.5, abs=0.01)
    assert not layer.settled
    gate.set()
    monkeypatch.setattr(objects_module, "_WAIT_S", 10)
    whole = layer.objects(SLIDE.bounds_px, 1000)
    assert whole.total == 400
    assert layer.settled
    assert layer.objects(SLIDE.bounds_px, 1000).ready == 1.0


def _written(tmp_path: Path, count: int) -> Path:
    places = np.random.default_rng(0).uniform(0, 2900, (count, 2))
    items = [GeoObject(polygons=((square(x, y, 8),),), classification="cell") for x, y in places]
    write_geojson(tmp_path / "cells.geojson", items)
    return tmp_path / "cells.geojson"


def test_the_quick_way_takes_what_the_slow_way_takes(tmp_path, monkeypatch):
    path = _written(tmp_path, 50)
    quick = OutlineReader(path).outlines(10)
    monkeypatch.setattr(GrowingOutlines, "_add_plain", lambda self, feature, keep: False)
    slow = OutlineReader(path).outlines(10)
    assert len(quick) == 50
    assert quick.names == slow.names == ("cell",)
    for name in ("bounds", "classes", "kinds", "first_ring", "first_corner", "outer", "corners"):
        assert np.array_equal(getattr(quick, name), getattr(slow, name)), name


def test_beyond_the_stated_memory_only_boxes_are_kept_and_that_is_said(tmp_path, monkeypatch):
    reader = OutlineReader(_written(tmp_path, 50), most_corners=100)
    found = reader.outlines(10)
    assert (len(found), len(found.corners), reader.boxed) == (50, 100, 25)
    monkeypatch.setattr(objects_module, "OutlineReader", lambda path: OutlineReader(path, 100))
    assert "25 of them as boxes" in ObjectLayer(tmp_path / "cells.geojson", "run", SLIDE).info.note
    x0, y0, x1, y1 = found.bounds[49]
    assert np.array_equal(found.parts(49)[0], [[x0, y0], [x1, y0], [x1, y1], [x0, y1]])


def _unread(*_):
    raise AssertionError("the GeoJSON was read")


def test_outlines_that_predict_wrote_are_there_at_once_and_look_the_same(tmp_path, monkeypatch):
    read = layer_of(tmp_path, some_objects(), "read.geojson.gz")
    write_objects(tmp_path / "mapped.geojson.gz", some_objects())
    monkeypatch.setattr(objects_module, "_SHORT_BYTES", 0)  # as if it were long
    monkeypatch.setattr(outline_reader, "iterate_features", _unread)
    mapped = ObjectLayer(tmp_path / "mapped.geojson.gz", "run", SLIDE)
    assert mapped.settled
    assert mapped.info.legend.classes == read.info.legend.classes
    assert mapped.info.channels == read.info.channels
    assert mapped.info.note.startswith("5 objects (0.0 MB on disk);")
    assert mapped.objects(SLIDE.bounds_px, 100) == read.objects(SLIDE.bounds_px, 100)
    assert mapped.objects(SLIDE.bounds_px, 100).total == 5
    for box in (Box(0, 0, 1024, 768), SLIDE.bounds_px):
        assert np.array_equal(mapped.tile(box, 256, 192, Look()), read.tile(box, 256, 192, Look()))
    assert mapped.tile(Box(0, 0, 1024, 768), 256, 192, Look()).any()


@pytest.mark.parametrize("change", ["edited", "replaced", "damaged"])
def test_where_they_are_of_another_file_or_damaged_the_geojson_is_read(tmp_path, caplog, change):
    path, items = tmp_path / "objects.geojson.gz", some_objects()
    outlines = write_objects(path, items)[1]
    if change == "edited":
        text = gzip.decompress(path.read_bytes()).replace(b'"gland"', b'"gleam"')
        path.write_bytes(gzip.compress(text))
    elif change == "replaced":
        write_geojson(path, items[:2])
    else:
        outlines.write_bytes(outlines.read_bytes()[:-1])
    layer = ObjectLayer(path, "run", SLIDE)
    assert layer.objects(SLIDE.bounds_px, 100).total == (2 if change == "replaced" else 5)
    assert layer.names[0] == ("gleam" if change == "edited" else "gland")
    assert "on disk" not in layer.info.note
    assert ("objects.outlines: it is damaged" in caplog.text) == (change == "damaged")


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ('{"type":"FeatureCollection","features":[{"type":"Feature","geometry":null,"properties":{}}]}', "no geometry"),
        ('{"type":"FeatureCollection","features":[', "feature 1"),
        (
            '[{"type":"Feature","properties":{"classification":{"name":"a"}},"geometry":{"type":"Polygon",'
            '"coordinates":[[[0,0],[1e400,0],[1,1],[0,0]]]}}]',
            "not a finite number",
        ),
    ],
)
def test_a_damaged_file_names_its_fault(tmp_path, text, cause, monkeypatch):
    path = tmp_path / "slide.geojson"
    path.write_text(text)
    with pytest.raises(LamellaError, match=cause):
        ObjectLayer(path, "run", SLIDE)
    monkeypatch.setattr(objects_module, "_SHORT_BYTES", 0)  # as if it were long
    layer = ObjectLayer(path, "run", SLIDE)
    for ask in (lambda: layer.objects(SLIDE.bounds_px, 5), lambda: layer.tile(Box(0, 0, 9, 9), 9, 9, Look())):
        with pytest.raises(LamellaError, match=cause):
            ask()


def test_a_packed_file_that_is_cut_short_is_refused(tmp_path):
    path = _written(tmp_path, 300)
    packed = gzip.compress(path.read_bytes())
    (tmp_path / "cut.geojson.gz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(LamellaError, match="cut short"):
        ObjectLayer(tmp_path / "cut.geojson.gz", "run", SLIDE)
