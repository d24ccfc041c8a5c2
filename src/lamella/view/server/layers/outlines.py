"""Outlines of a slide's objects in compact arrays: half a million of them in some hundred megabytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from lamella.geometry import Box
from lamella.view.class_colours import class_colours
from lamella.view.marks import ANCHOR, Colour, web
from lamella.view.server.layers.tile_index import touching

POLYGON, POINTS, LINES = 0, 1, 2
NO_CLASS = "no class"


@dataclass(frozen=True)
class Outlines:
    """Shapes: N objects, R rings (or lines, or sets of points), M corners.

    Coordinates are level-0 pixels as float32, which is a thirtieth of a pixel at worst on the widest slides.

    Attributes:
        bounds: (N, 4) float32 x0, y0, x1, y1.
        classes: (N,) int32, numbers of `names`.
        kinds: (N,) uint8: POLYGON, POINTS or LINES.
        first_ring: (N + 1,) int64: rings of object n are first_ring[n] to first_ring[n + 1]; none where only its box is
            kept.
        first_corner: (R + 1,) int64.
        outer: (R,) bool: a ring that begins a polygon; the others are its holes.
        corners: (M, 2) float32, rings open.
        names: Of the classes.
        colours: Of the classes, as the file gives them; None where it gives none.
    """

    bounds: np.ndarray
    classes: np.ndarray
    kinds: np.ndarray
    first_ring: np.ndarray
    first_corner: np.ndarray
    outer: np.ndarray
    corners: np.ndarray
    names: Sequence[str] = ()
    colours: Sequence[Colour | None] = ()

    def __len__(self) -> int:
        return len(self.bounds)

    @property
    def bytes(self) -> int:
        arrays = (self.bounds, self.classes, self.kinds, self.first_ring, self.first_corner, self.outer, self.corners)
        return sum(array.nbytes for array in arrays)

    def palette(self) -> list[Colour]:
        """A colour for each class: the file's, else the palette's in the order of the classes."""
        plain = class_colours([name for name in self.names if name != NO_CLASS], background=None)
        return [own or plain.get(name, ANCHOR) for name, own in zip(self.names, self.colours, strict=True)]

    def within(self, box_px0: Box, only: str = "") -> np.ndarray:
        """Numbers of the objects whose boxes touch a box, of one class or of all."""
        near = touching(self.bounds, box_px0)
        if not only:
            return near
        return near[self.classes[near] == self.number(only)]

    def number(self, name: str) -> int:
        """Of a class; -1, which no object has, where none was read yet."""
        return self.names.index(name) if name in self.names else -1

    def parts(self, number: int) -> list[np.ndarray]:
        """Rings, lines or sets of points of an object, each (m, 2) level-0 pixels; its box where only that is kept."""
        first, behind = self.first_ring[number], self.first_ring[number + 1]
        if first == behind:
            x0, y0, x1, y1 = self.bounds[number]
            return [np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], np.float32)]
        starts = self.first_corner[first : behind + 1]
        return [self.corners[start:stop] for start, stop in pairwise(starts)]

    def feature(self, number: int, palette: Sequence[Colour]) -> dict[str, Any]:
        """A GeoJSON feature; its id is the object's number in the file."""
        named = int(self.classes[number])
        return {
            "type": "Feature",
            "id": int(number),
            "geometry": self._geometry(number),
            "properties": {"classification": {"name": self.names[named], "color": web(palette[named])}},
        }

    def _geometry(self, number: int) -> dict[str, Any]:
        parts, kind = self.parts(number), self.kinds[number]
        if kind == POINTS:
            return {"type": "MultiPoint", "coordinates": _plain(parts[0])}
        if kind == LINES:
            return {"type": "MultiLineString", "coordinates": [_plain(line) for line in parts]}
        first, polygons = self.first_ring[number], []
        for place, ring in enumerate(parts):
            corners = _plain(np.concatenate([ring, ring[:1]]))
            if len(parts) == 1 or self.outer[first + place]:
                polygons.append([corners])
            else:
                polygons[-1].append(corners)
        if len(polygons) == 1:
            return {"type": "Polygon", "coordinates": polygons[0]}
        return {"type": "MultiPolygon", "coordinates": polygons}


def _plain(corners: np.ndarray) -> list[list[float]]:
    plain: list[list[float]] = np.round(corners.astype(np.float64), 2).tolist()
    return plain
