"""Annotations as paths of SVG, in level-0 pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lamella.formats.geojson import GeoObject, read_geojson
from lamella.view.class_colours import class_colours
from lamella.view.marks import Colour, web


@dataclass(frozen=True)
class Drawing:
    """One object.

    Attributes:
        path: SVG path data.
        colour: `#rrggbb`.
        title: Its class and name.
        point: A dot rather than an outline.
    """

    path: str
    colour: str
    title: str
    point: bool = False


@dataclass(frozen=True)
class Drawn:
    """What one author drew on a slide.

    Attributes:
        author: The name.
        drawings: All objects.
        classes: (name, colour) of the classes among them.
    """

    author: str
    drawings: Sequence[Drawing]
    classes: Sequence[tuple[str, str]]


def read_drawn(author: str, path: Path) -> Drawn:
    """An author's GeoJSON.

    Raises:
        LamellaError: It is damaged.
    """
    objects = list(read_geojson(path, crossings="keep"))
    names = list(dict.fromkeys(item.classification or "no class" for item in objects))
    colours = class_colours(names, background=None)
    colours |= {item.classification or "no class": item.colour for item in objects if item.colour is not None}
    drawings = [drawing for item in objects for drawing in _drawings(item, colours)]
    return Drawn(author, drawings, [(name, web(colours[name])) for name in names])


def _drawings(item: GeoObject, colours: dict[str, Colour]) -> list[Drawing]:
    name = item.classification or "no class"
    title, colour = f"{name}, {item.name}" if item.name else name, web(colours[name])
    found = []
    rings = [ring for polygon in item.polygons for ring in polygon]
    if rings:
        found.append(Drawing("".join(f"{_line(ring)}Z" for ring in rings), colour, title))
    if item.lines:
        found.append(Drawing("".join(map(_line, item.lines)), colour, title))
    if item.points is not None:  # a line of no length with round ends is a dot
        dots = "".join(f"M{x:.2f},{y:.2f}h0" for x, y in item.points)
        found.append(Drawing(dots, colour, title, point=True))
    return found


def _line(corners: np.ndarray) -> str:
    return "M" + "L".join(f"{x:.2f},{y:.2f}" for x, y in corners)
