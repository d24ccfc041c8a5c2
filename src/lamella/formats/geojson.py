"""QuPath's GeoJSON: outlines, points and their classes, one at a time in and out; `.geojson`, `.geojson.gz`, ZIP in.

Coordinates are level-0 pixels. In memory a ring is open (its first corner is not repeated), in the file it is closed
and wound as RFC 7946 asks: outer rings counter-clockwise, holes clockwise, with y taken as upward. Two decimals are
written: a hundredth of a pixel is finer than any outline is known.

An outline whose edges cross is refused on reading: what it encloses depends on the rule of filling (even-odd leaves out
what is enclosed twice, winding takes it in), and a mask with a silent hole is worse than none. Rings that touch
themselves or each other enclose the same by every rule and are taken.

Source of the properties: qupath/qupath, PathObjectTypeAdapter in qupath-core/.../io/QuPathTypeAdapters.java.
"""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

import numpy as np

from lamella.errors import LamellaError
from lamella.formats.atomic import whole_file
from lamella.formats.json_stream import iterate_features
from lamella.formats.ring_crossings import first_crossing

Polygon = tuple[np.ndarray, ...]
"""Rings (M, 2) in level-0 pixels, open; the first is the outline, the others are holes."""

_JSON = json.JSONEncoder(allow_nan=False, separators=(",", ":"))
_DECIMALS = 2
_LARGEST_PX0 = 1e9  # no slide has a side of a thousand million pixels; larger numbers are a broken file
_LEAST_CORNERS = 3
_CHECKED_AT_ONCE = 4096  # corners, or objects: one by one, looking for crossings takes five times as long as reading
_EXPORT_AGAIN = "Correct it in QuPath and export it again."
# In v0.2 QuPath kept the kind of an object in `id`; later in object_type, then objectType; `type` is read too.
_OLD_TYPES = {
    "PathTileObject": "tile",
    "PathCellObject": "cell",
    "TMACoreObject": "tmaCore",
    "PathDetectionObject": "detection",
    "PathRootObject": "root",
    "PathAnnotationObject": "annotation",
}


@dataclass(frozen=True)
class GeoObject:
    """One object of a slide: polygons, or points, or lines; with its class and its measurements."""

    polygons: tuple[Polygon, ...] = ()
    """One for a Polygon, several for a MultiPolygon."""
    points: np.ndarray | None = None
    """(N, 2) level-0 pixels."""
    lines: tuple[np.ndarray, ...] = ()
    """Each (M, 2) level-0 pixels, M >= 2."""
    name: str = ""
    classification: str = ""
    """The class's name; parts of a derived class are joined by ": ", as QuPath shows them."""
    object_type: str = "annotation"
    """annotation | detection | cell | tile | tmaCore."""
    colour: tuple[int, int, int] | None = None
    """The class's colour; the object's own where it has no class."""
    measurements: Mapping[str, float] = field(default_factory=dict)
    """A value that is not a number stays NaN, and is left out on writing."""
    nucleus: tuple[Polygon, ...] = ()
    """The nucleus of a cell."""
    locked: bool = False
    object_id: str = ""
    """QuPath's UUID, if the file has one."""

    def bounds_px0(self) -> tuple[float, float, float, float]:
        """x0, y0, x1, y1 around everything but the nucleus."""
        rings = [polygon[0] for polygon in self.polygons] + list(self.lines)
        corners = np.concatenate(rings + ([] if self.points is None else [self.points]))
        return (*map(float, corners.min(axis=0)), *map(float, corners.max(axis=0)))  # type: ignore[return-value]


def read_geojson(path: Path | str, *, crossings: Literal["refuse", "keep"] = "refuse") -> Iterator[GeoObject]:
    """Yield the objects of a file in its order, children behind their parent; memory holds a few features.

    Args:
        path: The file.
        crossings: refuse: an outline whose edges cross is an error; keep: it is handed on, for those who use no more of
            it than its place.

    Raises:
        LamellaError: The file is missing, cut short or no GeoJSON; or a feature has another geometry than polygons,
            points or lines, a coordinate that is no finite number, a ring that is not closed, an outline that crosses
            itself. The feature is named; those before it were yielded.
    """
    numbered = _numbered(path, iterate_features(path))
    yield from (item for _, item in numbered) if crossings == "keep" else _checked(path, numbered)


def parse_features(thing: object, features: Iterable[Any]) -> Iterator[GeoObject]:
    """Yield the objects of features that are in memory already, with every check of `read_geojson`.

    Args:
        thing: Where they come from, for messages.
        features: As the json module gives them; counted from 1.

    Raises:
        LamellaError: As for `read_geojson`.
    """
    yield from _checked(thing, _numbered(thing, enumerate(features, 1)))


def objects_of(thing: object, number: int, feature: Any) -> Iterator[GeoObject]:
    """The objects of one feature, for those who only draw them: outlines may cross themselves.

    Args:
        thing: Where it comes from, for messages.
        number: Of the feature, for messages.
        feature: As the json module gives it.

    Raises:
        LamellaError: As for `read_geojson`, but for crossings.
    """
    yield from (item for _, item in _numbered(thing, [(number, feature)]))


def _checked(path: object, objects: Iterator[tuple[int, GeoObject]]) -> Iterator[GeoObject]:
    """Objects up to the first fault; crossings are looked for in many at once."""
    waiting: list[tuple[int, GeoObject]] = []
    corners = 0
    while True:
        fault: LamellaError | None = None
        try:
            found = next(objects, None)
        except LamellaError as error:
            found, fault = None, error
        if found is not None:
            waiting.append(found)
            corners += sum(len(ring) for polygon in found[1].polygons for ring in polygon)
        if found is None or corners > _CHECKED_AT_ONCE or len(waiting) > _CHECKED_AT_ONCE:
            yield from _uncrossed(path, waiting)
            waiting, corners = [], 0
        if fault is not None:
            raise fault
        if found is None:
            return


def write_geojson(
    path: Path | str, objects: Iterable[GeoObject], *, written: Callable[[int, Any], None] | None = None
) -> None:
    """Write a FeatureCollection, one feature a line, whole or not at all; packed if the name ends in `.gz`.

    The same objects give the same bytes.

    Args:
        path: The file.
        objects: To write.
        written: Is shown each feature with its number, as the json module would read it.

    Raises:
        LamellaError: An object is empty, or has a coordinate that is no number, or a ring of fewer than three corners.
        StorageError: The disk refused the write.
    """
    with whole_file(path) as part, _opened(part) as file:
        file.write(b'{"type":"FeatureCollection","features":[')
        for number, item in enumerate(objects, 1):
            try:
                feature = _feature(item)
            except _Fault as fault:
                raise LamellaError(path, f"object {number}: {fault}", "Nothing was written; correct it.") from fault
            file.write((",\n" if number > 1 else "\n").encode() + _JSON.encode(feature).encode())
            if written is not None:
                written(number, feature)
        file.write(b"\n]}\n")


def as_feature(item: GeoObject, thing: object) -> dict[str, Any]:
    """One object as its feature stands in a file; it shares no memory with the object.

    Args:
        item: The object.
        thing: What to call it in an error.

    Raises:
        LamellaError: As for `write_geojson`.
    """
    try:
        return _feature(item)
    except _Fault as fault:
        raise LamellaError(thing, str(fault), "Correct it.") from fault


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    with open(path, "wb") as file:
        if path.suffix != ".gz":
            yield file
            return
        # No name and no time inside: the bytes depend on the objects alone. Level 9 would take three times as long for
        # files smaller by a two-hundredth.
        with gzip.GzipFile("", "wb", compresslevel=6, fileobj=file, mtime=0) as packed:
            yield cast(BinaryIO, packed)


def _numbered(path: object, features: Iterable[tuple[int, Any]]) -> Iterator[tuple[int, GeoObject]]:
    """Objects and the number of their feature."""
    for number, feature in features:
        try:
            for item in _objects(feature):
                yield number, item
        except _Fault as fault:
            raise LamellaError(path, f"feature {number}: {fault}", _EXPORT_AGAIN) from fault


def _uncrossed(path: object, numbered: list[tuple[int, GeoObject]]) -> Iterator[GeoObject]:
    """Objects up to the first whose outline crosses itself."""
    outlines = [(at, polygon) for at, (_, item) in enumerate(numbered) for polygon in (*item.polygons, *item.nucleus)]
    crossing = first_crossing([polygon for _, polygon in outlines])
    if crossing is None:
        yield from (item for _, item in numbered)
        return
    at = outlines[crossing[0]][0]
    yield from (item for _, item in numbered[:at])
    x, y = crossing[1]
    cause = f"feature {numbered[at][0]}: its outline crosses itself near x {x:.1f}, y {y:.1f} (level-0 pixels)"
    raise LamellaError(path, cause, _EXPORT_AGAIN)


class _Fault(Exception):
    """What is wrong with a feature; the caller knows its number."""


def _objects(feature: Any) -> Iterator[GeoObject]:
    if not isinstance(feature, dict):
        raise _Fault("it is no object")
    if feature.get("type") != "Feature":
        feature = {"geometry": feature}  # a geometry that stands alone
    properties = feature.get("properties") or {}
    if not isinstance(properties, dict):
        raise _Fault("its properties are no object")
    kind = _kind(feature, properties)
    if kind != "root":  # the root of QuPath's hierarchy is no object of the slide, its children are
        name, colour = _class(properties.get("classification"))
        yield GeoObject(
            **_geometry(feature.get("geometry")),
            name=_text(properties.get("name")),
            classification=name,
            object_type=kind,
            colour=colour or _colour(properties.get("color")),
            measurements=_measurements(properties.get("measurements")),
            nucleus=_nucleus(feature.get("nucleusGeometry")),
            locked=properties.get("isLocked") is True,
            object_id="" if feature.get("id") in _OLD_TYPES else _text(feature.get("id")),
        )
    children = properties.get("childObjects", properties.get("children")) or []
    if not isinstance(children, list):
        raise _Fault("its child objects are no list")
    for child in children:
        yield from _objects(child)


def _kind(feature: Mapping[str, Any], properties: Mapping[str, Any]) -> str:
    for value in (*(properties.get(key) for key in ("objectType", "object_type", "type")), feature.get("id")):
        kind = _OLD_TYPES.get(str(value), str(value))
        if kind in _OLD_TYPES.values():
            return kind
    return "annotation"  # as QuPath takes it


def _geometry(geometry: Any) -> dict[str, Any]:
    if not isinstance(geometry, dict):
        raise _Fault("it has no geometry")
    kind, coordinates = geometry.get("type"), geometry.get("coordinates")
    if kind == "Polygon":
        return {"polygons": (_polygon(coordinates),)}
    if kind == "MultiPolygon":
        return {"polygons": tuple(_polygon(polygon) for polygon in _list(coordinates))}
    if kind in ("Point", "MultiPoint"):
        return {"points": _positions([coordinates] if kind == "Point" else coordinates)}
    if kind in ("LineString", "MultiLineString"):
        lines = [coordinates] if kind == "LineString" else _list(coordinates)
        return {"lines": tuple(_positions(line, least=2) for line in lines)}
    raise _Fault(f"its geometry is a {kind}; polygons, points and lines can be used")


def _nucleus(geometry: Any) -> tuple[Polygon, ...]:
    if geometry is None:
        return ()
    polygons = _geometry(geometry).get("polygons")
    if polygons is None:
        raise _Fault("its nucleus is no polygon")
    return cast("tuple[Polygon, ...]", polygons)


def _polygon(rings: Any) -> Polygon:
    return tuple(_ring(ring) for ring in _list(rings))


def _ring(corners: Any) -> np.ndarray:
    ring = _positions(corners, least=_LEAST_CORNERS + 1)
    if (ring[0] != ring[-1]).any():
        raise _Fault("a ring is not closed: its last corner must repeat its first")
    return ring[:-1]


def _positions(values: Any, least: int = 1) -> np.ndarray:
    """(N, 2) float64; a third number of a position (a height) is passed over."""
    if len(_list(values)) < least:
        raise _Fault(f"{len(values)} positions where at least {least} are needed")
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise _Fault("its positions are not all pairs of numbers") from error
    if array.dtype.kind not in "iuf" or array.ndim != 2 or array.shape[1] not in (2, 3):
        raise _Fault("its positions are not all pairs of numbers")
    positions = array[:, :2].astype(np.float64)
    if not (np.abs(positions) < _LARGEST_PX0).all():
        raise _Fault("a coordinate is not a finite number of pixels")
    return positions


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise _Fault("its geometry has no coordinates")
    return value


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _class(value: Any) -> tuple[str, tuple[int, int, int] | None]:
    """Name and colour of a class: {name, color}, {names, color}, {name, colorRGB} of older versions, or a text."""
    if not isinstance(value, dict):
        return _text(value), None
    names = value.get("names")
    name = ": ".join(map(str, names)) if isinstance(names, list) else _text(value.get("name"))
    return name, _colour(value.get("color", value.get("colorRGB")))


def _colour(value: Any) -> tuple[int, int, int] | None:
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool):  # packed 0xAARRGGBB, signed, in older versions
        return (value >> 16) & 255, (value >> 8) & 255, value & 255
    if isinstance(value, list) and len(value) == 3 and all(isinstance(part, int) and 0 <= part < 256 for part in value):
        return value[0], value[1], value[2]
    raise _Fault(f"its colour {value!r} is not three numbers from 0 to 255")


def _measurements(value: Any) -> dict[str, float]:
    """A mapping, or a list of {name, value} before v0.4."""
    if isinstance(value, list):
        if not all(isinstance(entry, dict) and "name" in entry for entry in value):
            raise _Fault("its measurements are neither a mapping nor a list of name and value")
        value = {entry["name"]: entry.get("value") for entry in value}
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _Fault("its measurements are neither a mapping nor a list of name and value")
    try:
        return {str(name): math.nan if number is None else float(number) for name, number in value.items()}
    except (TypeError, ValueError) as error:
        raise _Fault("a measurement is not a number") from error


def _feature(item: GeoObject) -> dict[str, Any]:
    feature: dict[str, Any] = {"type": "Feature"}
    if item.object_id:
        feature["id"] = item.object_id
    feature["geometry"] = _written_geometry(item)
    if item.nucleus:
        feature["nucleusGeometry"] = _written_polygons(item.nucleus)
    properties: dict[str, Any] = {"objectType": item.object_type}
    if item.name:
        properties["name"] = item.name
    colour = None if item.colour is None else list(item.colour)
    if item.classification:
        properties["classification"] = {"name": item.classification, **({"color": colour} if colour else {})}
    elif colour:
        properties["color"] = colour
    if item.locked:
        properties["isLocked"] = True
    numbers = {name: float(value) for name, value in item.measurements.items() if math.isfinite(value)}
    if numbers:
        properties["measurements"] = numbers
    feature["properties"] = properties
    return feature


def _written_geometry(item: GeoObject) -> dict[str, Any]:
    given = [bool(item.polygons), item.points is not None and len(item.points) > 0, bool(item.lines)]
    if sum(given) != 1:
        raise _Fault(f"it has {'no geometry' if not any(given) else 'more than one kind of geometry'}")
    if item.polygons:
        return _written_polygons(item.polygons)
    if item.points is not None:
        points = _rounded(item.points)
        return {"type": "Point", "coordinates": points[0]} if len(points) == 1 else _typed("MultiPoint", points)
    lines = [_rounded(line) for line in item.lines]
    return _typed("LineString", lines[0]) if len(lines) == 1 else _typed("MultiLineString", lines)


def _typed(kind: str, coordinates: Any) -> dict[str, Any]:
    return {"type": kind, "coordinates": coordinates}


def _written_polygons(polygons: tuple[Polygon, ...]) -> dict[str, Any]:
    written = [
        [_closed(ring, counter_clockwise=number == 0) for number, ring in enumerate(polygon)] for polygon in polygons
    ]
    return _typed("Polygon", written[0]) if len(written) == 1 else _typed("MultiPolygon", written)


def _closed(ring: np.ndarray, *, counter_clockwise: bool) -> list[list[float]]:
    ring = np.asarray(ring, np.float64).reshape(-1, 2)
    if len(ring) > 1 and (ring[0] == ring[-1]).all():
        ring = ring[:-1]
    if len(ring) < _LEAST_CORNERS:
        raise _Fault(f"a ring has {len(ring)} corners and needs {_LEAST_CORNERS}")
    if (signed_area(ring) > 0) != counter_clockwise:
        ring = ring[::-1]
    return _rounded(np.concatenate([ring, ring[:1]]))


def signed_area(ring: np.ndarray) -> float:
    """Area of an open ring by the shoelace formula, positive if it runs counter-clockwise with y upward."""
    # From the first corner: far from the origin the products would lose the digits that matter, and the terms of the
    # first corner vanish.
    x, y = (ring - ring[0]).T
    return float(x[:-1] @ y[1:] - y[:-1] @ x[1:]) / 2


def _rounded(positions: np.ndarray) -> list[list[float]]:
    """Pairs of numbers with at most two decimals, whole ones without a point."""
    rounded = np.round(np.asarray(positions, np.float64).reshape(-1, 2), _DECIMALS)
    if not (np.abs(rounded) < _LARGEST_PX0).all():
        raise _Fault("a coordinate is not a finite number of pixels")
    pairs = rounded.astype(np.int64) if (rounded == np.rint(rounded)).all() else rounded
    return cast("list[list[float]]", pairs.tolist())
