"""Objects as Annotorious 3 draws them in the page ("selectors"), and back. All in level-0 pixels.

It draws rectangles, polygons, multipolygons and lines. Points become lines around a square of one pixel: strokes, whose
width does not depend on the zoom, make them dots, and a click a few display pixels beside one hits it. Several points
or lines become outlines that enclose nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from lamella.errors import LamellaError

_DOT = 0.5  # half the side of a point's square
_DRAWN_AS_IT_IS = ("Point", "MultiPoint", "LineString", "MultiLineString")  # not edited corner by corner
_BOX = ("x", "y", "w", "h", "rot")
Ring = Sequence[Sequence[float]]


def with_selector(feature: Mapping[str, Any]) -> dict[str, Any]:
    """A feature with how it is drawn as its member `selector`, and whether its corners can be moved as `editable`."""
    kind, coordinates = feature["geometry"]["type"], feature["geometry"]["coordinates"]
    polygons = _polygons(kind, coordinates)
    elements = [{"rings": [{"points": ring[:-1]} for ring in rings], "bounds": _bounds(rings[0])} for rings in polygons]
    bounds = _bounds([corner for rings in polygons for corner in rings[0]])
    selector: dict[str, Any] = {"type": "MULTIPOLYGON", "geometry": {"bounds": bounds, "polygons": elements}}
    if kind in ("Point", "LineString"):
        # The square's first side twice: else the corner where it begins would be no corner.
        line = [*polygons[0][0], polygons[0][0][1]] if kind == "Point" else coordinates
        points = [{"type": "CORNER", "point": corner} for corner in line]
        selector = {"type": "POLYLINE", "geometry": {"bounds": bounds, "points": points, "closed": False}}
    if kind == "Polygon" and len(coordinates) == 1:
        points = coordinates[0][:-1]
        selector = {"type": "POLYGON", "geometry": {"bounds": bounds, "points": points}}
        if _is_upright(points):
            x, y = bounds["minX"], bounds["minY"]
            box = {"x": x, "y": y, "w": bounds["maxX"] - x, "h": bounds["maxY"] - y, "rot": 0}
            selector = {"type": "RECTANGLE", "geometry": {"bounds": bounds, **box}}
    return {**feature, "selector": selector, "editable": kind not in _DRAWN_AS_IT_IS}


def without_selector(feature: Mapping[str, Any]) -> dict[str, Any]:
    """A feature whose geometry is what its `selector` says, if it has one and its corners can be moved.

    Raises:
        LamellaError: The selector is none that the page draws.
    """
    plain = {name: value for name, value in feature.items() if name not in ("selector", "editable")}
    geometry = plain.get("geometry")
    kept = isinstance(geometry, dict) and geometry.get("type") in _DRAWN_AS_IT_IS
    if "selector" not in feature or kept:
        return plain
    try:
        return {**plain, "geometry": _geometry(feature["selector"])}
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise LamellaError("annotations", "a shape is none that can be drawn here", "Reload the page.") from error


def _geometry(selector: Mapping[str, Any]) -> dict[str, Any]:
    kind, geometry = selector["type"], selector["geometry"]
    if kind == "RECTANGLE":
        x, y, w, h, rot = (float(geometry.get(name, 0)) if name == "rot" else float(geometry[name]) for name in _BOX)
        polygons = [[_closed(_corners(x, y, w, h, rot))]]
    elif kind == "POLYGON":
        polygons = [[_closed(geometry["points"])]]
    elif kind == "MULTIPOLYGON":
        polygons = [[_closed(ring["points"]) for ring in element["rings"]] for element in geometry["polygons"]]
    else:
        raise ValueError(kind)
    if len(polygons) > 1:
        return {"type": "MultiPolygon", "coordinates": polygons}
    return {"type": "Polygon", "coordinates": polygons[0]}


def _polygons(kind: str, coordinates: Any) -> list[list[list[list[float]]]]:
    if kind == "Polygon":
        return [coordinates]
    if kind == "MultiPolygon":
        return list(coordinates)
    if kind in ("Point", "MultiPoint"):
        places = [coordinates] if kind == "Point" else coordinates
        return [[_closed(_corners(x - _DOT, y - _DOT, 2 * _DOT, 2 * _DOT, 0))] for x, y in places]
    lines = [coordinates] if kind == "LineString" else coordinates
    return [[[*line, *reversed(line)]] for line in lines]


def _corners(x: float, y: float, w: float, h: float, rot: float) -> list[list[float]]:
    """Of a rectangle that is turned by `rot` (radians) around its middle."""
    if not rot:
        return [[x, y], [x + w, y], [x + w, y + h], [x, y + h]]
    sides = [(-w / 2, -h / 2), (w / 2, -h / 2), (w / 2, h / 2), (-w / 2, h / 2)]
    cos, sin = math.cos(rot), math.sin(rot)
    return [[x + w / 2 + a * cos - b * sin, y + h / 2 + a * sin + b * cos] for a, b in sides]


def _closed(points: Ring) -> list[list[float]]:
    return [list(point) for point in (*points, points[0])]


def _bounds(corners: Ring) -> dict[str, float]:
    xs, ys = zip(*corners, strict=True)  # plain numbers: NumPy would take three times as long for some twenty corners
    return {"minX": min(xs), "minY": min(ys), "maxX": max(xs), "maxY": max(ys)}


def _is_upright(points: Ring) -> bool:
    """Whether four corners make a rectangle with upright sides."""
    if len(points) != 4:
        return False
    sides = zip(points, [*points[1:], points[0]], strict=True)
    along_one_axis = all((ax == bx) != (ay == by) for (ax, ay), (bx, by) in sides)
    return along_one_axis and points[0][0] != points[2][0] and points[0][1] != points[2][1]
