"""Outlines of a slide's objects as the viewer asks for them: by place, with colours, as GeoJSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lamella.formats.outline_arrays import LINES, NO_CLASS, POINTS, OutlineArrays
from lamella.geometry import Box
from lamella.view.class_colours import class_colours
from lamella.view.marks import ANCHOR, Colour, web
from lamella.view.server.layers.tile_index import touching


class Outlines(OutlineArrays):
    """Outlines as they are looked for, coloured and sent."""

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
