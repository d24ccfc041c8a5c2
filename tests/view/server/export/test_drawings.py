"""What people drew becomes the same outlines in SVG."""

import numpy as np

from lamella.formats.geojson import GeoObject, write_geojson
from lamella.view.server.export.drawings import read_drawn

OUTER = np.array([[0, 0], [10, 0], [10, 10], [0, 10]], float)
HOLE = np.array([[2, 2], [2, 4], [4, 4]], float)


def test_outlines_holes_points_and_lines_are_paths_with_their_classes(tmp_path):
    objects = [
        GeoObject(polygons=((OUTER, HOLE),), classification="tumour", colour=(200, 0, 0), name="first"),
        GeoObject(points=np.array([[1.5, 2.25], [3.0, 4.0]])),
        GeoObject(lines=(np.array([[0, 0], [5, 5.5]]),), classification="tumour"),
    ]
    write_geojson(tmp_path / "ann.geojson", objects)
    drawn = read_drawn("ann", tmp_path / "ann.geojson")
    outline, dots, line = drawn.drawings
    assert outline.path.count("Z") == 2
    assert outline.path.count(",") == 7
    assert (outline.colour, outline.title) == ("#c80000", "tumour, first")
    assert (dots.path, dots.point, dots.title) == ("M1.50,2.25h0M3.00,4.00h0", True, "no class")
    assert line.path == "M0.00,0.00L5.00,5.50"
    assert dict(drawn.classes)["tumour"] == "#c80000"
    assert dots.colour == dict(drawn.classes)["no class"] != "#c80000"
