"""What pages send: JSON of a known form, or a plain refusal."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lamella.errors import LamellaError, first_line
from lamella.formats.geojson import GeoObject
from lamella.view.server.annotations.merge import Change
from lamella.view.server.annotations.objects import MAX_OBJECTS, is_uuid, read_objects
from lamella.view.server.annotations.selectors import without_selector

Body = TypeVar("Body", bound=BaseModel)
_FORM = "Reload the page; if that does not help, tell the makers."


class SaveBody(BaseModel):
    """POST annotations/{author}: what was done to the objects of `base_version`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    base_version: Annotated[int, Field(ge=0)]
    upserts: Annotated[list[dict[str, Any]], Field(max_length=MAX_OBJECTS)] = []
    deletes: Annotated[list[str], Field(max_length=MAX_OBJECTS)] = []


class DoneBody(BaseModel):
    """POST queue: a place of the list was dealt with, or not."""

    model_config = ConfigDict(extra="forbid", strict=True)

    key: Annotated[str, Field(max_length=300)]
    done: bool
    author: str


class RefusedObjectsError(LamellaError):
    """None of the objects can be saved as it is; nothing was.

    Args:
        reasons: By id.
    """

    def __init__(self, reasons: dict[str, str]) -> None:
        self.reasons = reasons
        super().__init__("annotations", "; ".join(sorted(set(reasons.values()))), "Draw it again, or move its corners.")

    def __reduce__(self) -> tuple[type, tuple[dict[str, str]]]:
        return type(self), (self.reasons,)


def parsed(form: type[Body], text: bytes) -> Body:
    """The body of a request.

    Raises:
        LamellaError: It has another form.
    """
    try:
        return form.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "it"
        raise LamellaError("the request", f"{where}: {first_line(first['msg'])}", _FORM) from error


def change_of(body: SaveBody) -> tuple[Change, dict[str, str]]:
    """The change that a page asks for, and why some of its objects are left out of it, by id.

    Raises:
        LamellaError: An id is missing or stands twice, or there is too much.
        RefusedObjectsError: Nothing of it can be saved.
    """
    ids = [str(feature.get("id", "")) for feature in body.upserts]
    if not all(map(is_uuid, (*ids, *body.deletes))) or len({*ids, *body.deletes}) < len(ids) + len(body.deletes):
        raise LamellaError("the request", "objects need ids that are UUIDs, each once", _FORM)
    features = dict(zip(ids, map(without_selector, body.upserts), strict=True))
    refused: dict[str, str] = {}
    try:
        objects = read_objects("annotations", features.values())
    except LamellaError:
        refused = _reasons(features)
        good = {name: feature for name, feature in features.items() if name not in refused}
        if refused and not good and not body.deletes:
            raise RefusedObjectsError(refused) from None
        objects = read_objects("annotations", good.values())  # may be too many, which is the fault of none of them
    if list(objects) != [name for name in ids if name not in refused]:
        raise LamellaError("the request", "a feature holds further objects, or an id in another form", _FORM)
    return Change(body.base_version, objects, frozenset(body.deletes)), refused


def imported(name: str, text: bytes) -> dict[str, GeoObject]:
    """Objects of a GeoJSON document: a FeatureCollection, a list of features, one feature or geometry.

    Raises:
        LamellaError: It is no GeoJSON; the feature at fault is named by its number.
    """
    try:
        tree = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise LamellaError(name, f"it is no JSON ({first_line(error)})", "Export it again.") from error
    features = tree.get("features", [tree]) if isinstance(tree, dict) else tree
    if not isinstance(features, list):
        raise LamellaError(name, "it is no GeoJSON", "Export it again.")
    return read_objects(name, features)


def _reasons(features: Mapping[str, dict[str, Any]]) -> dict[str, str]:
    """Looks at each by itself: only what is at fault is left out."""
    reasons = {}
    for name, feature in features.items():
        try:
            read_objects("annotations", [feature])
        except LamellaError as error:
            reasons[name] = error.cause.removeprefix("feature 1: ")
    return reasons


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")
