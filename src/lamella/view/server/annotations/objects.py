"""Objects as they come in: checked, counted, named by UUIDs."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from lamella.errors import LamellaError
from lamella.formats.geojson import GeoObject, as_feature, parse_features

# What a page draws and edits without long waits (opening 2,000 takes some seconds without a graphics card); hundreds of
# thousands of objects are a layer, not annotations.
MAX_OBJECTS = 5_000
MAX_CORNERS = 1_000_000  # of all objects of a file; some 20 MB of text
MAX_TEXT = 200  # characters of a name or a class
MAX_MEASUREMENTS = 500  # of one object; QuPath writes some 50 of a cell
_AS_LAYER = "To look at many objects, lay them beside the slide as predictions: they are shown as a layer."


def read_objects(thing: object, features: Iterable[Any]) -> dict[str, GeoObject]:
    """Objects of GeoJSON features by id, as they will stand in the file: checked again after rounding.

    An object without a UUID gets one that depends on its content alone, so that the same file read twice gives the same
    objects. Objects that repeat an id do, too.

    Args:
        thing: Where they come from, for messages.
        features: As the json module gives them.

    Raises:
        LamellaError: A feature is no GeoJSON, or its outline crosses itself, or it holds too much.
    """
    found: dict[str, GeoObject] = {}
    copies: Counter[str] = Counter()
    for item in _bounded(thing, parse_features(thing, features)):
        name = _uuid(item.object_id)
        if not name or name in found:
            text = json.dumps(as_feature(replace(item, object_id=""), thing))
            copies[text] += 1
            name = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{copies[text]} {text}"))
        found[name] = replace(item, object_id=name)
    return {
        item.object_id: item for item in parse_features(thing, (as_feature(item, thing) for item in found.values()))
    }


def check_size(thing: object, objects: Mapping[str, GeoObject]) -> None:
    """Refuse more than a page can draw.

    Raises:
        LamellaError: There are too many objects or corners.
    """
    for _ in _bounded(thing, iter(objects.values())):
        pass


def _bounded(thing: object, items: Iterator[GeoObject]) -> Iterator[GeoObject]:
    corners = 0
    for number, item in enumerate(items, 1):
        corners += _corners(item)
        if number > MAX_OBJECTS or corners > MAX_CORNERS:
            what = f"{MAX_OBJECTS:,} objects" if number > MAX_OBJECTS else f"{MAX_CORNERS:,} corners"
            raise LamellaError(thing, f"more than {what} cannot be edited in a page", _AS_LAYER)
        texts = (item.name, item.classification, item.object_type, *item.measurements)
        if max(map(len, texts)) > MAX_TEXT:
            raise LamellaError(thing, f"a name of object {number} is longer than {MAX_TEXT} characters", "Shorten it.")
        if len(item.measurements) > MAX_MEASUREMENTS:
            raise LamellaError(thing, f"object {number} has more than {MAX_MEASUREMENTS} measurements", _AS_LAYER)
        yield item


def _corners(item: GeoObject) -> int:
    rings = [ring for polygon in (*item.polygons, *item.nucleus) for ring in polygon]
    return sum(map(len, (*rings, *item.lines))) + (0 if item.points is None else len(item.points))


def is_uuid(text: str) -> bool:
    """Whether it is one in its usual form."""
    return text != "" and _uuid(text) == text


def _uuid(text: str) -> str:
    """In its usual form; empty if it is none."""
    try:
        return str(uuid.UUID(text))
    except ValueError:
        return ""
