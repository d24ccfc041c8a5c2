"""What drawings mean: classes, regions, what is left out, and what cannot be learned from."""

from __future__ import annotations

import numpy as np
import pytest

from lamella.data.drawn import Drawn, DrawnSettings, area_px2, class_values, read_drawn
from lamella.errors import LamellaError
from lamella.formats.geojson import GeoObject, write_geojson


def square(x, y, side=10):
    return (np.array([[x, y], [x + side, y], [x + side, y + side], [x, y + side]], float),)


def test_classes_say_what_is_meant(tmp_path):
    write_geojson(
        tmp_path / "ann.geojson",
        [
            GeoObject(polygons=(square(0, 0, 100),), classification="Region*"),
            GeoObject(polygons=(square(5, 5), square(30, 30)), classification="gland"),
            GeoObject(polygons=(square(50, 50),), classification="Ignore*"),
            GeoObject(polygons=(square(70, 70),), classification="Background"),
            GeoObject(points=np.array([[1.0, 2.0]]), classification="gland"),
            GeoObject(lines=(np.array([[1.0, 2.0], [3.0, 4.0]]),)),
        ],
    )
    drawn = read_drawn(tmp_path / "ann.geojson", DrawnSettings())
    assert (len(drawn.regions), len(drawn.ignored)) == (1, 1)
    assert [(name, len(polygons)) for name, polygons in drawn.objects] == [("gland", 2), ("background", 1)]
    assert drawn.passed_over == {"points": 1, "lines": 1}
    other = read_drawn(tmp_path / "ann.geojson", DrawnSettings(region="gland"))
    assert len(other.regions) == 2
    assert "Region*" in other.classes


def test_an_object_without_a_class_is_refused_with_its_place(tmp_path):
    write_geojson(tmp_path / "a.geojson", [GeoObject(polygons=(square(40, 60),))])
    with pytest.raises(LamellaError, match=r"object 1 at x 40, y 60 .* has no class"):
        read_drawn(tmp_path / "a.geojson", DrawnSettings())


def test_values_follow_the_names():
    gland, stroma = ("gland", (square(0, 0),)), ("stroma", (square(0, 0),))
    region = [square(0, 0)]
    assert class_values([Drawn([], [stroma]), Drawn(region, [gland])], "x") == {
        "background": 0, "gland": 1, "stroma": 2,
    }  # fmt: skip
    assert class_values([Drawn([], [stroma, gland])], "x") == {"gland": 1, "stroma": 2}
    assert class_values([Drawn([], [gland, ("background", (square(0, 0),))])], "x") == {"background": 0, "gland": 1}


@pytest.mark.parametrize(
    ("drawn", "cause"),
    [
        ([], "no area of any class"),
        ([Drawn([square(0, 0)], [])], "regions without an object"),
        ([Drawn([], [("gland", (square(0, 0),))])], "nothing says what is not"),
        ([Drawn([], [(f"class {n}", (square(0, 0),)) for n in range(255)])], "255 classes"),
    ],
)
def test_what_nothing_can_be_learned_from_is_refused(drawn, cause):
    with pytest.raises(LamellaError, match=cause):
        class_values(drawn, "annotations")


def test_area_leaves_holes_out():
    assert area_px2([(*square(0, 0, 10), *square(2, 2, 4)), square(20, 20, 3)]) == 100 - 16 + 9
