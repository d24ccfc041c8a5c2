"""Reads the objects of a GeoJSON file in the background; what was read so far can be shown at any time."""

from __future__ import annotations

import threading
import time
from array import array
from itertools import chain
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np

from lamella.errors import LamellaError
from lamella.formats.geojson import objects_of
from lamella.formats.json_stream import iterate_features
from lamella.view.marks import Colour
from lamella.view.server.layers.outlines import LINES, NO_CLASS, POINTS, POLYGON, Outlines

# Corners kept: 8 bytes each, so 320 MB. Of further objects only the boxes are kept, and that is said.
MOST_CORNERS = 40_000_000
_LARGEST_PX0 = 1e9  # as formats/geojson.py has it: larger coordinates are a broken file
_LOOK_AFTER = 64  # features between two looks at the clock
_FIRST_SHOWN_S, _GROWTH = 0.25, 1.5  # when what was read is first shown, and how much later each time


class OutlineReader:
    """Begins when it is first asked.

    Args:
        path: `.geojson` or `.geojson.gz`.
        most_corners: See `MOST_CORNERS`.
    """

    def __init__(self, path: Path, most_corners: int = MOST_CORNERS) -> None:
        self.path, self._most = path, most_corners
        self._bytes = max(1, path.stat().st_size)
        self._taken = 0
        self._shown = _Growing().snapshot()
        self._fault: LamellaError | None = None
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self.boxed = 0

    @property
    def ready(self) -> float:
        """The share of the file that was read."""
        return 1.0 if self._done.is_set() else min(0.999, self._taken / self._bytes)

    def start(self) -> None:
        with self._lock:
            if self._thread is None:
                # A daemon: a viewer that is ended does not wait for half a million outlines.
                self._thread = threading.Thread(target=self._read, name=f"outlines of {self.path.name}", daemon=True)
                self._thread.start()

    def outlines(self, wait_s: float = 0.0) -> Outlines:
        """What was read so far.

        Args:
            wait_s: How long to wait for the end of the file, at most: short files are shown whole at once.

        Raises:
            LamellaError: The file is damaged.
        """
        self.start()
        self._done.wait(wait_s)
        if self._fault is not None:
            raise self._fault
        return self._shown

    def _read(self) -> None:
        growing, began = _Growing(), time.monotonic()
        show_at = _FIRST_SHOWN_S
        try:
            for number, feature in iterate_features(self.path, self._count):
                growing.add(self.path, number, feature, keep=len(growing.corners) < 2 * self._most)
                if number % _LOOK_AFTER == 0 and time.monotonic() - began > show_at:
                    self._shown, show_at = growing.snapshot(), show_at * _GROWTH
            self._shown, self.boxed = growing.snapshot(), growing.boxed
        except LamellaError as error:
            self._fault = error
        except Exception as error:  # noqa: BLE001 - told to whoever asks, as nobody sees a thread's own
            self._fault = LamellaError(self.path, f"it cannot be shown ({error!r})", "Export it again.")
        finally:
            self._done.set()

    def _count(self, taken: int) -> None:
        self._taken = taken


class _Growing:
    """Arrays that grow object by object."""

    def __init__(self) -> None:
        self.corners = array("f")
        self._bounds, self._classes, self._kinds = array("f"), array("i"), array("B")
        self._first_ring, self._first_corner, self._outer = array("q", [0]), array("q", [0]), array("B")
        self._names: dict[str, int] = {}
        self._colours: list[Colour | None] = []  # of a class as its first object has it
        self.boxed = 0

    def add(self, path: Path, number: int, feature: Any, *, keep: bool) -> None:
        """Take a feature.

        Args:
            path: For messages.
            number: Of the feature.
            feature: As json has it.
            keep: Its corners, too, not its box alone.

        Raises:
            LamellaError: It is no feature with polygons, points or lines.
        """
        if self._add_plain(feature, keep):
            return
        for item in objects_of(path, number, feature):
            kind = POINTS if item.points is not None else LINES if item.lines else POLYGON
            groups = [[part] for part in (item.lines or (item.points,))] if kind else item.polygons
            rings = [(part, place == 0) for group in groups for place, part in enumerate(group)]
            self._object(kind, item.classification, item.colour, rings, keep)

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
        self._begin(POLYGON, name, None if colour is None else tuple(colour), (min(x), min(y), max(x), max(y)))
        if keep:
            for place, corners in enumerate(rings):
                self._outer.append(place == 0)
                self.corners.extend(corners[:-2])
                self._first_corner.append(len(self.corners) // 2)
        else:
            self.boxed += 1
        self._first_ring.append(len(self._outer))
        return True

    def _object(
        self, kind: int, name: str, colour: Colour | None, rings: list[tuple[np.ndarray, bool]], keep: bool
    ) -> None:
        every = np.concatenate([ring for ring, outer in rings if outer])
        self._begin(kind, name, colour, (*every.min(axis=0).tolist(), *every.max(axis=0).tolist()))
        if keep:
            for ring, outer in rings:
                self._outer.append(outer)
                self.corners.extend(ring.astype(np.float32).ravel().tolist())
                self._first_corner.append(len(self.corners) // 2)
        else:
            self.boxed += 1
        self._first_ring.append(len(self._outer))

    def _begin(self, kind: int, name: str, colour: Colour | None, bounds: tuple[float, ...]) -> None:
        self._bounds.extend(bounds)
        self._kinds.append(kind)
        named = name or NO_CLASS
        number = self._names.setdefault(named, len(self._names))
        if number == len(self._colours):
            self._colours.append(colour)
        self._classes.append(number)

    def snapshot(self) -> Outlines:
        """What was taken so far, copied."""
        return Outlines(
            bounds=np.array(self._bounds, np.float32).reshape(-1, 4),
            classes=np.array(self._classes, np.int32),
            kinds=np.array(self._kinds, np.uint8),
            first_ring=np.array(self._first_ring, np.int64),
            first_corner=np.array(self._first_corner, np.int64),
            outer=np.array(self._outer, bool),
            corners=np.array(self.corners, np.float32).reshape(-1, 2),
            names=tuple(self._names),
            colours=tuple(self._colours),
        )


def _finite(corners: array[float]) -> bool:
    """Whether all are numbers of pixels. NaN may hide from min and max, but not from a sum."""
    return min(corners) > -_LARGEST_PX0 and max(corners) < _LARGEST_PX0 and not isnan(sum(corners))


def _is_colour(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(type(part) is int and 0 <= part < 256 for part in value)
