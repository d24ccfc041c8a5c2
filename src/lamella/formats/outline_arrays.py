"""Outlines of a slide's objects in plain arrays, half a million of them in a hundred megabytes, and how they grow."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from math import isnan
from typing import Any

import numpy as np

from lamella.formats.geojson import objects_of

Colour = tuple[int, int, int]

POLYGON, POINTS, LINES = 0, 1, 2
NO_CLASS = "no class"
COLUMNS: Mapping[str, tuple[str, tuple[int, ...]]] = {
    "bounds": ("<f4", (4,)),
    "classes": ("<i4", ()),
    "kinds": ("|u1", ()),
    "first_ring": ("<i8", ()),
    "first_corner": ("<i8", ()),
    "outer": ("|b1", ()),
    "corners": ("<f4", (2,)),
}
"""The arrays of `OutlineArrays`: type and shape of a row."""

_LARGEST_PX0 = 1e9  # as formats/geojson.py has it: larger coordinates are a broken file


@dataclass(frozen=True)
class OutlineArrays:
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
        return sum(getattr(self, name).nbytes for name in COLUMNS)

    def parts(self, number: int) -> list[np.ndarray]:
        """Rings, lines or sets of points of an object, each (m, 2) level-0 pixels; its box where only that is kept."""
        first, behind = self.first_ring[number], self.first_ring[number + 1]
        if first == behind:
            x0, y0, x1, y1 = self.bounds[number]
            return [np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], np.float32)]
        starts = self.first_corner[first : behind + 1]
        return [self.corners[start:stop] for start, stop in pairwise(starts)]


class GrowingOutlines:
    """Arrays that grow object by object."""

    def __init__(self) -> None:
        self._columns: dict[str, array[Any]] = {
            "bounds": array("f"),
            "classes": array("i"),
            "kinds": array("B"),
            "first_ring": array("q", [0]),
            "first_corner": array("q", [0]),
            "outer": array("B"),
            "corners": array("f"),
        }
        self._numbers: dict[str, int] = {}
        self._rings = 0
        self.colours: list[Colour | None] = []  # of a class as its first object has it
        self.corners = 0  # kept in all
        self.boxed = 0  # objects of which only the box was kept

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._numbers)

    def add(self, thing: object, number: int, feature: Any, *, keep: bool = True) -> None:
        """Take a feature.

        Args:
            thing: Where it comes from, for messages.
            number: Of the feature.
            feature: As json has it.
            keep: Its corners, too, not its box alone.

        Raises:
            LamellaError: It is no feature with polygons, points or lines.
        """
        if self._add_plain(feature, keep):
            return
        for item in objects_of(thing, number, feature):
            kind = POINTS if item.points is not None else LINES if item.lines else POLYGON
            groups = [[part] for part in (item.lines or (item.points,))] if kind else item.polygons
            rings: list[tuple[Any, bool]] = [(part, not place) for group in groups for place, part in enumerate(group)]
            every = np.concatenate([ring for ring, outer in rings if outer])
            bounds = (*every.min(axis=0).tolist(), *every.max(axis=0).tolist())
            flat = [(ring.astype(np.float32).ravel().tolist(), outer) for ring, outer in rings]
            self._object(kind, item.classification, item.colour, bounds, flat, keep)

    def arrays(self) -> OutlineArrays:
        """What was taken so far, copied."""
        return OutlineArrays(**self._copied(), names=self.names, colours=tuple(self.colours))

    def take(self) -> dict[str, np.ndarray]:
        """The rows that came since the last time, by column; they are no longer held here."""
        taken = self._copied()
        for column in self._columns.values():
            del column[:]
        return taken

    def _copied(self) -> dict[str, np.ndarray]:
        return {
            name: np.array(self._columns[name]).astype(dtype, copy=False).reshape(-1, *row)
            for name, (dtype, row) in COLUMNS.items()
        }

    def _add_plain(self, feature: Any, keep: bool) -> bool:
        """Take a feature such as Lamella and QuPath write by the hundred thousand; False leaves it to the slow way.

        One polygon of closed rings, with a class and no children: this is what segmenters find, and taking it apart
        here costs a fifth. Whatever is unusual in it, or wrong, is found out the slow way.
        """
        try:
            geometry, properties = feature["geometry"], feature["properties"]
            if geometry["type"] != "Polygon" or "childObjects" in properties or "children" in properties:
                return False
            named = properties["classification"]
            name, colour = named["name"], named.get("color")
            if not isinstance(name, str) or not (colour is None or _is_colour(colour)):
                return False
            rings = [array("f", chain.from_iterable(ring)) for ring in geometry["coordinates"]]
            for ring, corners in zip(geometry["coordinates"], rings, strict=True):
                if len(corners) != 2 * len(ring) or len(ring) < 4 or ring[0] != ring[-1]:
                    return False
        except (KeyError, TypeError, ValueError, AttributeError):
            return False
        if not rings or not all(_finite(corners) for corners in rings):
            return False
        x, y = rings[0][0::2], rings[0][1::2]
        bounds = min(x), min(y), max(x), max(y)
        flat = [(corners[:-2], place == 0) for place, corners in enumerate(rings)]
        self._object(POLYGON, name, None if colour is None else tuple(colour), bounds, flat, keep)
        return True

    def _object(
        self,
        kind: int,
        name: str,
        colour: Colour | None,
        bounds: tuple[float, ...],
        rings: Sequence[tuple[Sequence[float], bool]],
        keep: bool,
    ) -> None:
        columns = self._columns
        columns["bounds"].extend(bounds)
        columns["kinds"].append(kind)
        number = self._numbers.setdefault(name or NO_CLASS, len(self._numbers))
        if number == len(self.colours):
            self.colours.append(colour)
        columns["classes"].append(number)
        if keep:
            for corners, outer in rings:
                columns["outer"].append(outer)
                columns["corners"].extend(corners)
                self.corners += len(corners) // 2
                columns["first_corner"].append(self.corners)
            self._rings += len(rings)
        else:
            self.boxed += 1
        columns["first_ring"].append(self._rings)


def _finite(corners: array[float]) -> bool:
    """Whether all are numbers of pixels. NaN may hide from min and max, but not from a sum."""
    return min(corners) > -_LARGEST_PX0 and max(corners) < _LARGEST_PX0 and not isnan(sum(corners))


def _is_colour(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(type(part) is int and 0 <= part < 256 for part in value)
