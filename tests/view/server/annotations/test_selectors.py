from __future__ import annotations

import math

import pytest

from lamella.errors import LamellaError
from lamella.view.server.annotations.selectors import with_selector, without_selector

SQUARE = [[2, 3], [6, 3], [6, 8], [2, 8], [2, 3]]
GEOMETRIES = {
    "RECTANGLE": {"type": "Polygon", "coordinates": [SQUARE]},
    "POLYGON": {"type": "Polygon", "coordinates": [[[0, 0], [5, 0], [4, 4], [1, 4], [0, 0]]]},
    "MULTIPOLYGON": {"type": "Polygon", "coordinates": [SQUARE, [[3, 4], [4, 4], [4, 5], [3, 4]]]},
}
KEPT = {
    "Point": [1.5, 2],
    "MultiPoint": [[1, 2], [3, 4]],
    "LineString": [[0, 0], [3, 4], [5, 5]],
    "MultiLineString": [[[0, 0], [3, 4]], [[7, 7], [8, 9]]],
}


def feature(geometry: dict) -> dict:
    return {"type": "Feature", "id": "x", "geometry": geometry, "properties": {"name": "n"}}


@pytest.mark.parametrize("shape", GEOMETRIES)
def test_shapes_that_can_be_edited_come_back_as_they_were(shape):
    there = with_selector(feature(GEOMETRIES[shape]))
    assert (there["selector"]["type"], there["editable"]) == (shape, True)
    back = without_selector({**there, "geometry": None})
    assert back == feature(back["geometry"])
    assert {tuple(map(tuple, ring)) for ring in back["geometry"]["coordinates"]} == {
        tuple(map(tuple, ring)) for ring in GEOMETRIES[shape]["coordinates"]
    }


def test_several_polygons_come_back():
    geometry = {"type": "MultiPolygon", "coordinates": [[SQUARE], GEOMETRIES["POLYGON"]["coordinates"]]}
    there = with_selector(feature(geometry))
    assert there["selector"]["geometry"]["bounds"] == {"minX": 0, "minY": 0, "maxX": 6, "maxY": 8}
    assert without_selector({**there, "geometry": None})["geometry"] == geometry


@pytest.mark.parametrize("kind", KEPT)
def test_points_and_lines_are_kept_whatever_was_drawn(kind):
    whole = feature({"type": kind, "coordinates": KEPT[kind]})
    there = with_selector(whole)
    assert there["selector"]["type"] == ("MULTIPOLYGON" if kind.startswith("Multi") else "POLYLINE")
    assert not there["editable"]
    assert without_selector(there) == whole


def test_a_point_lies_in_the_middle_of_its_square():
    bounds = with_selector(feature({"type": "Point", "coordinates": [7, 9]}))["selector"]["geometry"]["bounds"]
    assert bounds == {"minX": 6.5, "minY": 8.5, "maxX": 7.5, "maxY": 9.5}


@pytest.mark.parametrize(
    "ring",
    [
        [[0, 0], [4, 1], [4, 5], [0, 4]],  # a parallelogram
        [[0, 0], [4, 0], [0, 4], [4, 4]],  # crossed
        [[2, 0], [4, 2], [2, 4], [0, 2]],  # on its corner
        [[0, 0], [4, 0], [2, 0], [3, 0]],  # flat
        [[0, 0], [4, 0], [4, 4], [2, 4], [0, 4]],  # five corners
    ],
)
def test_only_upright_rectangles_are_rectangles(ring):
    selector = with_selector(feature({"type": "Polygon", "coordinates": [[*ring, ring[0]]]}))["selector"]
    assert selector == {"type": "POLYGON", "geometry": {"bounds": selector["geometry"]["bounds"], "points": ring}}


def test_a_turned_rectangle_becomes_its_corners():
    box = {"x": 0, "y": 0, "w": 4, "h": 2, "rot": math.pi / 2}  # a quarter around (2, 1)
    geometry = without_selector({"selector": {"type": "RECTANGLE", "geometry": box}})["geometry"]
    corners = {(round(x, 9), round(y, 9)) for x, y in geometry["coordinates"][0]}
    assert corners == {(3, -1), (3, 3), (1, 3), (1, -1)}


def test_other_selectors_are_refused():
    with pytest.raises(LamellaError, match="none that can be drawn here"):
        without_selector({"selector": {"type": "ELLIPSE", "geometry": {"cx": 1}}})
