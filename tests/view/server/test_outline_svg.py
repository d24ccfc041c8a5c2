from __future__ import annotations

import re

import pytest

from lamella.view.server.outline_svg import outline_svg

RING = [[0, 0], [4, 0], [4.25, 3], [0, 0]]
HOLE = [[1, 1], [2, 1], [2, 2], [1, 1]]
PATHS = [
    ("Polygon", [RING, HOLE], "M0,0 4,0 4.25,3zM1,1 2,1 2,2z"),
    ("MultiPolygon", [[RING], [HOLE]], "M0,0 4,0 4.25,3zM1,1 2,1 2,2z"),
    ("MultiPoint", [[5, 6], [7, 8]], "M5,6 5,6M7,8 7,8"),
    ("Point", [5, 6], "M5,6 5,6"),
    ("MultiLineString", [[[0, 0], [1, 2]]], "M0,0 1,2"),
    ("LineString", [[0, 0], [1, 2]], "M0,0 1,2"),
]


def feature(kind, coordinates, **classification):
    return {"geometry": {"type": kind, "coordinates": coordinates}, "properties": {"classification": classification}}


@pytest.mark.parametrize(("kind", "coordinates", "path"), PATHS, ids=[kind for kind, *_ in PATHS])
def test_every_kind_is_drawn_at_its_place(kind, coordinates, path):
    assert re.findall(r' d="(.*?)"', outline_svg([feature(kind, coordinates)])) == [path]


def test_a_path_a_colour_over_a_rim():
    shapes = [feature("Polygon", [RING], color=colour) for colour in ("#ff0000", "#00ff00", "#ff0000")]
    text = outline_svg(shapes)
    (first, second) = re.findall(r'<path id="(.*?)"', text)
    assert text.count("z") == 3
    rims, lines = text.split('<g class="lines">')
    assert rims.count(f'href="#{first}"') == lines.count(f'href="#{first}" stroke="#ff0000"') == 1
    assert lines.count(f'href="#{second}" stroke="#00ff00"') == 1
    assert outline_svg([]) == ""


def test_a_colour_of_a_file_cannot_become_markup():
    assert "<b" not in outline_svg([feature("Point", [0, 0], color='"><b>')])
