from __future__ import annotations

import gzip
import json
import math
import zipfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamella.errors import LamellaError
from lamella.formats import json_stream
from lamella.formats.geojson import GeoObject, parse_features, read_geojson, write_geojson

SQUARE = np.array([[0.0, 0], [10, 0], [10, 10], [0, 10]])
CLOSED = [[0, 0], [10, 0], [10, 10], [0, 10], [0, 0]]


def feature(kind: str = "Polygon", coordinates: Any = None, **properties: Any) -> dict[str, Any]:
    coordinates = [CLOSED] if coordinates is None else coordinates
    return {"type": "Feature", "geometry": {"type": kind, "coordinates": coordinates}, "properties": properties}


def read(folder: Path, value: Any) -> list[GeoObject]:
    path = folder / "in.geojson"
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return list(read_geojson(path))


def same(one: GeoObject, other: GeoObject) -> bool:
    rings = [[ring for polygon in o.polygons for ring in polygon] for o in (one, other)]
    return len(rings[0]) == len(rings[1]) and all(map(np.array_equal, *rings))


# Places on the grid of hundredths that is written, so that what is read equals what was given.
place = st.integers(-100_00, 200_000_00).map(lambda hundredths: hundredths / 100)


@st.composite
def rectangles(draw: st.DrawFn) -> np.ndarray:
    x, y = draw(place), draw(place)
    width, height = draw(st.integers(1, 10_000)), draw(st.integers(1, 10_000))
    corners = np.array([[x, y], [x + width, y], [x + width, y + height], [x, y + height]])
    return np.round(corners[:: draw(st.sampled_from([1, -1]))], 2)


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
objects = st.builds(
    GeoObject,
    polygons=st.lists(st.lists(rectangles(), min_size=1, max_size=3).map(tuple), min_size=1, max_size=3).map(tuple),
    name=texts,
    classification=texts,
    object_type=st.sampled_from(["annotation", "detection", "cell", "tile"]),
    colour=st.none() | st.tuples(*[st.integers(0, 255)] * 3),
    measurements=st.dictionaries(texts, st.floats(allow_nan=False, allow_infinity=False), max_size=3),
    locked=st.booleans(),
)


@settings(max_examples=60, deadline=None)
@given(given_objects=st.lists(objects, max_size=4), suffix=st.sampled_from([".geojson", ".geojson.gz"]))
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, given_objects: list[GeoObject], suffix: str
) -> None:
    path = tmp_path_factory.mktemp("g") / f"a{suffix}"
    write_geojson(path, iter(given_objects))
    found = list(read_geojson(path, crossings="keep"))
    assert len(found) == len(given_objects)
    for one, other in zip(given_objects, found, strict=True):
        for name in ("name", "classification", "object_type", "colour", "measurements", "locked"):
            assert getattr(one, name) == getattr(other, name)
        for polygon, read_back in zip(one.polygons, other.polygons, strict=True):
            for ring, ring_back in zip(polygon, read_back, strict=True):
                # The same corners in the same cyclic order, one way round or the other.
                assert sorted(map(tuple, ring)) == sorted(map(tuple, ring_back))


@settings(max_examples=60, deadline=None)
@given(item=objects)
def test_rings_are_closed_and_wound_as_rfc_7946_asks(tmp_path_factory: pytest.TempPathFactory, item: GeoObject) -> None:
    path = tmp_path_factory.mktemp("g") / "a.geojson"
    write_geojson(path, [item])
    geometry = json.loads(path.read_text())["features"][0]["geometry"]
    polygons = [geometry["coordinates"]] if geometry["type"] == "Polygon" else geometry["coordinates"]
    for polygon in polygons:
        for number, ring in enumerate(polygon):
            assert ring[0] == ring[-1]
            assert len(ring) >= 4
            twice_area = sum((x1 - x0) * (y1 + y0) for (x0, y0), (x1, y1) in pairwise(ring))
            assert (twice_area < 0) == (number == 0)  # trapezoids under the edges: negative if counter-clockwise
            assert all(round(value, 2) == value for corner in ring for value in corner)


def test_one_feature_stands_on_a_line_and_the_bytes_depend_on_the_objects_alone(tmp_path: Path) -> None:
    items = [GeoObject(polygons=((SQUARE,),), classification="Tumour", colour=(200, 0, 0)), GeoObject(points=SQUARE)]
    for name in ("a.geojson", "b.geojson", "a.geojson.gz", "b.geojson.gz"):
        write_geojson(tmp_path / name, items)
    assert (tmp_path / "a.geojson").read_bytes() == (tmp_path / "b.geojson").read_bytes()
    assert (tmp_path / "a.geojson.gz").read_bytes() == (tmp_path / "b.geojson.gz").read_bytes()
    assert gzip.decompress((tmp_path / "a.geojson.gz").read_bytes()) == (tmp_path / "a.geojson").read_bytes()
    lines = (tmp_path / "a.geojson").read_text().splitlines()
    assert lines[1] == (
        '{"type":"Feature","geometry":{"type":"Polygon","coordinates":[[[0,0],[10,0],[10,10],[0,10],[0,0]]]},'
        '"properties":{"objectType":"annotation","classification":{"name":"Tumour","color":[200,0,0]}}},'
    )


@pytest.mark.parametrize(
    "wrap",
    [
        lambda f: {"type": "FeatureCollection", "features": [f]},
        lambda f: {"features": [f], "crs": {"name": "px"}, "type": "FeatureCollection", "bbox": [0, 0, 1, 1]},
        lambda f: [f],
        lambda f: f,
        lambda f: f["geometry"],
    ],
    ids=["collection", "members in any order", "array", "feature", "geometry"],
)
def test_every_shape_of_file_is_read(tmp_path: Path, wrap: Any) -> None:
    (found,) = read(tmp_path, wrap(feature()))
    assert same(found, GeoObject(polygons=((SQUARE,),)))


def test_a_file_without_features_has_no_objects(tmp_path: Path) -> None:
    assert read(tmp_path, {"type": "FeatureCollection", "features": []}) == []
    assert read(tmp_path, []) == []


def test_a_byte_order_mark_is_tolerated(tmp_path: Path) -> None:
    assert len(read(tmp_path, "\ufeff" + json.dumps([feature()]))) == 1


def test_a_packed_file_is_told_by_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.geojson").write_bytes(gzip.compress(json.dumps([feature()]).encode()))
    assert len(list(read_geojson(tmp_path / "a.geojson"))) == 1


def test_the_archive_that_qupath_writes_is_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.geojson", json.dumps([feature()]))
        archive.writestr("readme.txt", "no objects")
    assert len(list(read_geojson(tmp_path / "a.zip"))) == 1
    (tmp_path / "cut.zip").write_bytes((tmp_path / "a.zip").read_bytes()[:-30])
    with zipfile.ZipFile(tmp_path / "none.zip", "w") as archive:
        archive.writestr("readme.txt", "no objects")
    for name in ("cut.zip", "none.zip"):
        with pytest.raises(LamellaError, match=name):
            list(read_geojson(tmp_path / name))


def test_the_properties_of_qupath_are_read(tmp_path: Path) -> None:
    cell = feature(
        objectType="cell",
        classification={"names": ["Tumor", "Positive"], "color": [250, 62, 62]},
        name="c1",
        isLocked=True,
        measurements={"Area": 12.5, "DAB": None},
    )
    cell["id"] = "8f3ff7a5-2b2c-4d1c-9c1f-1f1f1f1f1f1f"
    cell["nucleusGeometry"] = {"type": "Polygon", "coordinates": [[[1, 1], [2, 1], [2, 2], [1, 1]]]}
    (found,) = read(tmp_path, [cell])
    assert (found.object_type, found.classification, found.colour) == ("cell", "Tumor: Positive", (250, 62, 62))
    assert (found.name, found.locked, found.object_id) == ("c1", True, cell["id"])
    assert found.measurements["Area"] == 12.5
    assert math.isnan(found.measurements["DAB"])
    assert found.nucleus[0][0].tolist() == [[1, 1], [2, 1], [2, 2]]


def test_a_cell_goes_out_as_it_came_in(tmp_path: Path) -> None:
    item = GeoObject(
        polygons=((SQUARE,),),
        object_type="cell",
        nucleus=((SQUARE / 2,),),
        measurements={"a": 0.125, "b": math.nan},
        object_id="8f3ff7a5-2b2c-4d1c-9c1f-1f1f1f1f1f1f",
        colour=(1, 2, 3),
    )
    write_geojson(tmp_path / "a.geojson", [item])
    (found,) = read_geojson(tmp_path / "a.geojson")
    assert found.nucleus[0][0].tolist() == (SQUARE / 2).tolist()
    assert (found.object_id, found.colour, found.measurements) == (item.object_id, (1, 2, 3), {"a": 0.125})


def test_what_older_versions_wrote_is_read(tmp_path: Path) -> None:
    old = feature(
        classification={"name": "Tumor", "colorRGB": -3670016},  # 0xffc80000 as a signed number
        measurements=[{"name": "Area", "value": 3}],
    )
    old["id"] = "PathDetectionObject"
    (found,) = read(tmp_path, [old])
    assert (found.object_type, found.object_id) == ("detection", "")
    assert (found.colour, found.measurements) == ((200, 0, 0), {"Area": 3.0})
    assert read(tmp_path, [feature(classification="Stroma")])[0].classification == "Stroma"


def test_children_follow_their_parent_and_the_root_is_left_out(tmp_path: Path) -> None:
    parent = feature(name="parent", childObjects=[feature(name="child", childObjects=[feature(name="grandchild")])])
    root = {"type": "Feature", "geometry": None, "properties": {"objectType": "root", "childObjects": [parent]}}
    assert [item.name for item in read(tmp_path, [root])] == ["parent", "child", "grandchild"]


@pytest.mark.parametrize(
    ("kind", "coordinates", "points", "lines"),
    [
        ("Point", [1, 2], [[1, 2]], 0),
        ("MultiPoint", [[1, 2], [3, 4.5]], [[1, 2], [3, 4.5]], 0),
        ("LineString", [[0, 0], [5, 5]], None, 1),
        ("MultiLineString", [[[0, 0], [5, 5]], [[1, 1], [2, 3]]], None, 2),
    ],
)
def test_points_and_lines_go_in_and_out(tmp_path: Path, kind: str, coordinates: Any, points: Any, lines: int) -> None:
    (found,) = read(tmp_path, [feature(kind, coordinates)])
    assert (None if found.points is None else found.points.tolist()) == points
    assert len(found.lines) == lines
    write_geojson(tmp_path / "out.geojson", [found])
    written = json.loads((tmp_path / "out.geojson").read_text())["features"][0]["geometry"]
    assert written == {"type": kind, "coordinates": coordinates}


def test_a_height_is_passed_over(tmp_path: Path) -> None:
    assert read(tmp_path, [feature("Point", [1, 2, 9])])[0].points.tolist() == [[1, 2]]


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (feature("Polygon", [CLOSED[:4]]), "not closed"),
        (feature("Polygon", [[[0, 0], [1, 1], [0, 0]]]), "3 positions"),
        (feature("Polygon", [CLOSED, []]), "no coordinates"),
        (feature("Polygon", []), "no coordinates"),
        (feature("Polygon", [[[0, 0], [1], [2, 2], [0, 0]]]), "pairs of numbers"),
        (feature("Polygon", [[["0", "0"], ["1", "0"], ["1", "1"], ["0", "0"]]]), "pairs of numbers"),
        (feature("Polygon", [[[0, 0], [1, None], [2, 2], [0, 0]]]), "pairs of numbers"),
        (feature("Point", [math.nan, 1]), "finite"),
        (feature("Point", [math.inf, 1]), "finite"),
        (feature("Point", [1e300, 1]), "finite"),
        (feature("Point", 5), "pairs of numbers"),
        (feature("Circle", [1, 2]), "its geometry is a Circle"),
        (feature("GeometryCollection"), "GeometryCollection"),
        ({"type": "Feature", "geometry": None, "properties": {}}, "no geometry"),
        ({"type": "Feature", "properties": {}}, "no geometry"),
        (feature() | {"properties": 5}, "properties"),
        (feature() | {"nucleusGeometry": {"type": "Point", "coordinates": [1, 2]}}, "nucleus"),
        (feature(measurements={"a": "much"}), "measurement"),
        (feature(measurements=[1]), "measurements"),
        (feature(classification={"name": "a", "color": [1, 2]}), "colour"),
        (feature(childObjects=5), "child"),
        (5, "no object"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_feature_that_cannot_be_used_is_named(tmp_path: Path, bad: Any, says: str) -> None:
    with pytest.raises(LamellaError, match=rf"in\.geojson: feature 2: .*{says}"):
        read(tmp_path, [feature(), bad])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("  \n", "empty"),
        ("hello", "no GeoJSON"),
        ('{"type": "FeatureCollection"}', "geometry"),
        ('{"features": [], "features": []}', "twice"),
        ("{5: 1}", "no name"),
        ('[{"type": }]', "feature 1: it is no JSON"),
        (json.dumps([feature()]) + "]", "follows the end"),
        ("[" * 100_000, "feature 1"),
        ("[" + "9" * 10_000 + "]", "feature 1"),
    ],
    ids=range(10),
)
def test_what_is_no_geojson_is_refused(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(LamellaError, match=says):
        read(tmp_path, text)


def test_a_missing_file_and_another_kind_of_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LamellaError, match="does not exist"):
        list(read_geojson(tmp_path / "none.geojson"))
    (tmp_path / "a.geojson").write_bytes(b"\x89PNG\r\n\xff\xfe")
    with pytest.raises(LamellaError, match="UTF-8"):
        list(read_geojson(tmp_path / "a.geojson"))


@pytest.mark.parametrize("chunk", [1, 7, 1 << 16])
def test_a_file_cut_anywhere_is_refused_and_its_feature_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(json_stream, "_CHUNK", chunk)
    items = [GeoObject(polygons=((SQUARE + number,),), name="a name") for number in range(3)]
    write_geojson(tmp_path / "a.geojson", items)
    text = (tmp_path / "a.geojson").read_text()
    starts = [text.index(line) for line in text.splitlines()[1:4]]
    assert len(read(tmp_path, text)) == 3
    for cut in range(1, len(text.rstrip()), 1 if chunk > 1 else 17):
        with pytest.raises(LamellaError, match="feature") as caught:
            read(tmp_path, text[:cut])
        named = int(str(caught.value).split("feature ")[1].split(":")[0])
        begun = sum(start < cut for start in starts)
        assert named in (begun, begun + 1)


def test_a_packed_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    write_geojson(tmp_path / "a.geojson.gz", [GeoObject(polygons=((SQUARE + n,),)) for n in range(5)])
    packed = (tmp_path / "a.geojson.gz").read_bytes()
    for cut in range(3, len(packed), 5):
        (tmp_path / "b.geojson.gz").write_bytes(packed[:cut])
        with pytest.raises(LamellaError, match=r"b\.geojson\.gz"):
            list(read_geojson(tmp_path / "b.geojson.gz"))


@pytest.mark.parametrize("name", ["a.geojson", "a.geojson.gz"])
def test_mutated_files_are_refused_or_read(tmp_path: Path, name: str) -> None:
    item = GeoObject(polygons=((SQUARE,),), name="n", classification="c", colour=(1, 2, 3), measurements={"m": 1.5})
    write_geojson(tmp_path / name, [item] * 3)
    whole = (tmp_path / name).read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        mutated = np.frombuffer(whole, np.uint8).copy()
        places = rng.integers(0, len(whole), rng.integers(1, 6))
        mutated[places] = rng.integers(0, 256, len(places))
        (tmp_path / name).write_bytes(mutated.tobytes())
        try:
            list(read_geojson(tmp_path / name))
        except LamellaError:
            refused += 1
    assert refused > 100  # any other error fails the test


def test_the_text_is_never_held_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_stream, "_CHUNK", 256)
    monkeypatch.setattr(json_stream, "_LONGEST_FEATURE", 1000)  # a window larger than this is an error
    write_geojson(tmp_path / "a.geojson", (GeoObject(polygons=((SQUARE + n,),)) for n in range(500)))
    assert (tmp_path / "a.geojson").stat().st_size > 50_000
    assert sum(1 for _ in read_geojson(tmp_path / "a.geojson")) == 500
    with pytest.raises(LamellaError, match=r"feature 1: .*characters"):
        read(tmp_path, '[{"type": "Feature", "note": "' + "x" * 5000)


@pytest.mark.parametrize(
    ("item", "says"),
    [
        (GeoObject(), "no geometry"),
        (GeoObject(polygons=((SQUARE,),), points=SQUARE), "more than one"),
        (GeoObject(polygons=((SQUARE[:2],),)), "2 corners"),
        (GeoObject(polygons=((SQUARE * np.nan,),)), "finite"),
        (GeoObject(points=np.array([[np.inf, 0]])), "finite"),
    ],
    ids=["empty", "two kinds", "a line", "nan", "infinite"],
)
def test_an_object_that_cannot_be_written_leaves_nothing(tmp_path: Path, item: GeoObject, says: str) -> None:
    with pytest.raises(LamellaError, match=rf"object 2: .*{says}"):
        write_geojson(tmp_path / "a.geojson", [GeoObject(points=SQUARE), item])
    assert list(tmp_path.iterdir()) == []


def test_closed_rings_are_taken_as_they_are(tmp_path: Path) -> None:
    write_geojson(tmp_path / "a.geojson", [GeoObject(polygons=((np.array(CLOSED, float),),))])
    (found,) = read_geojson(tmp_path / "a.geojson")
    assert same(found, GeoObject(polygons=((SQUARE,),)))


def test_bounds_hold_everything() -> None:
    item = GeoObject(polygons=((SQUARE, SQUARE / 2), (SQUARE + 100,)))
    assert item.bounds_px0() == (0, 0, 110, 110)
    assert GeoObject(points=np.array([[3.0, 4.5]])).bounds_px0() == (3, 4.5, 3, 4.5)


BOW_TIE = [[0, 0], [10, 10], [10, 0], [0, 10], [0, 0]]
LEAVING = [[2, 2], [12, 3], [2, 4], [2, 2]]


@pytest.mark.parametrize(
    ("bad", "place"),
    [
        (feature(coordinates=[BOW_TIE]), "x 5.0, y 5.0"),
        (feature(coordinates=[CLOSED, LEAVING]), "x 10.0, y 2.8"),
        (feature("MultiPolygon", [[CLOSED], [BOW_TIE]]), "x 5.0, y 5.0"),
        ({**feature(), "nucleusGeometry": {"type": "Polygon", "coordinates": [BOW_TIE]}}, "x 5.0, y 5.0"),
    ],
)
def test_an_outline_that_crosses_itself_is_refused_with_its_number_and_place(
    tmp_path: Path, bad: dict[str, Any], place: str
) -> None:
    with pytest.raises(LamellaError, match=f"feature 2: its outline crosses itself near {place}"):
        read(tmp_path, [feature(), bad])
    assert len(list(read_geojson(tmp_path / "in.geojson", crossings="keep"))) == 2


def test_outlines_that_touch_themselves_or_their_holes_are_taken(tmp_path: Path) -> None:
    touching = [[0, 0], [4, 0], [8, 0], [8, 8], [4, 0], [0, 8], [0, 0]]
    hole = [[0, 0], [4, 2], [2, 4], [0, 0]]
    found = read(tmp_path, [feature(coordinates=[touching]), feature(coordinates=[CLOSED, hole])])
    assert [len(item.polygons[0]) for item in found] == [1, 2]


def test_what_comes_before_a_crossing_or_a_fault_is_handed_on(tmp_path: Path) -> None:
    for bad in (feature(coordinates=[BOW_TIE]), feature("Polygon", [[[0, 0]]])):
        objects = iter_objects(tmp_path, [feature(name="a"), feature("Point", [1, 2]), bad, feature()])
        assert [next(objects).name, next(objects).points is not None] == ["a", True]
        with pytest.raises(LamellaError, match="feature 3"):
            next(objects)


def iter_objects(folder: Path, value: Any) -> Any:
    (folder / "in.geojson").write_text(json.dumps(value), encoding="utf-8")
    return read_geojson(folder / "in.geojson")


def test_features_in_memory_are_checked_as_those_of_a_file() -> None:
    square = {"type": "Polygon", "coordinates": [[[0, 0], [4, 0], [4, 4], [0, 4], [0, 0]]]}
    crossed = {"type": "Polygon", "coordinates": [[[0, 0], [4, 4], [4, 0], [0, 4], [0, 0]]]}
    features = [{"type": "Feature", "geometry": shape} for shape in (square, square, crossed)]
    assert [item.bounds_px0() for item in parse_features("page", features[:2])] == [(0, 0, 4, 4)] * 2
    found = parse_features("page", features)
    assert len([next(found), next(found)]) == 2
    with pytest.raises(LamellaError, match=r"page: feature 3: its outline crosses itself near x 2\.0, y 2\.0"):
        next(found)
