"""Outlines of objects as a picture that a page lays over the slide: SVG in level-0 pixels.

A page only says which part of it is in view. Lines are as wide as the page's style sheet says, at every zoom.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

_NO_CLASS = "#e69f00"
Line = Sequence[Sequence[float]]


def outline_svg(features: Iterable[Mapping[str, Any]]) -> str:
    """GeoJSON features with `classification.color` ("#rrggbb") as SVG, one path a colour; empty without features.

    Each path is drawn twice: a pale rim below all lines keeps them legible on dark tissue.
    """
    paths: dict[str, list[str]] = {}
    for feature in features:
        colour = feature["properties"].get("classification", {}).get("color", _NO_CLASS)
        paths.setdefault(colour, []).append(_path(feature["geometry"]))
    if not paths:
        return ""
    mark = secrets.token_hex(4)  # ids are the whole page's
    shapes = "".join(f'<path id="o{mark}-{at}" d="{"".join(each)}"/>' for at, each in enumerate(paths.values()))
    rims = "".join(f'<use href="#o{mark}-{at}"/>' for at in range(len(paths)))
    lines = "".join(
        f'<use href="#o{mark}-{at}" stroke="{escape(colour)}" fill="{escape(colour)}"/>'
        for at, colour in enumerate(paths)
    )
    return f'<svg><defs>{shapes}</defs><g class="rims">{rims}</g><g class="lines">{lines}</g></svg>'


def _path(geometry: Mapping[str, Any]) -> str:
    """The `d` of a path: rings closed, lines open, points of no length, which round ends make dots."""
    kind, coordinates = geometry["type"], geometry["coordinates"]
    if kind == "MultiPolygon":
        return "".join(_line(ring[:-1]) + "z" for rings in coordinates for ring in rings)
    if kind == "Polygon":
        return "".join(_line(ring[:-1]) + "z" for ring in coordinates)
    if kind in ("Point", "MultiPoint"):
        return "".join(_line([place, place]) for place in ([coordinates] if kind == "Point" else coordinates))
    return "".join(_line(line) for line in ([coordinates] if kind == "LineString" else coordinates))


def _line(corners: Line) -> str:
    return "M" + " ".join(f"{x:.8g},{y:.8g}" for x, y in corners)
