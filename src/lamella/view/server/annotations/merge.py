"""Two people, or two windows of one, change the same list of objects: what was not changed by both is merged."""

from __future__ import annotations

import json
import uuid
from collections.abc import Container, Mapping, Set
from dataclasses import dataclass, field, replace
from typing import Any

from lamella.errors import LamellaError
from lamella.formats.geojson import GeoObject, as_feature

Objects = Mapping[str, GeoObject]
"""Objects by id, in the order of the file."""


@dataclass(frozen=True)
class Change:
    """What somebody did to the objects of a version.

    Attributes:
        base_version: The version that was changed; 0: there was none.
        upserts: New and changed objects by id.
        deletes: Ids of objects that were removed.
    """

    base_version: int
    upserts: Objects = field(default_factory=dict)
    deletes: Set[str] = frozenset()


class ConflictError(LamellaError):
    """An object was changed by somebody else since. Nothing was saved.

    Args:
        conflicts: The object as it is now, as a GeoJSON feature, by id; None: it was removed.
    """

    def __init__(self, conflicts: Mapping[str, dict[str, Any] | None]) -> None:
        self.conflicts = dict(conflicts)
        many = f"{len(conflicts)} objects were" if len(conflicts) > 1 else "an object was"
        super().__init__("annotations", f"{many} changed elsewhere in the meantime", "Compare, and save again.")

    def __reduce__(self) -> tuple[type, tuple[dict[str, dict[str, Any] | None]]]:
        return type(self), (self.conflicts,)


def merged(base: Objects, now: Objects, change: Change) -> dict[str, GeoObject]:
    """The objects of now with the change applied; `now` itself in content if the change was made already.

    Args:
        base: What the change was made to.
        now: What there is.
        change: What to do.

    Raises:
        ConflictError: An object that the change touches is another one than in `base`, and not what is wanted either:
            what is wanted may have been saved before, by a request whose answer was lost.
    """
    conflicts: dict[str, dict[str, Any] | None] = {}
    for name in (*change.upserts, *change.deletes):
        there = written(now.get(name))
        if there not in (written(base.get(name)), written(change.upserts.get(name))):
            conflicts[name] = there
    if conflicts:
        raise ConflictError(conflicts)
    kept = {name: item for name, item in now.items() if name not in change.deletes}
    return {**kept, **change.upserts}


def keeping_both(change: Change, conflicts: Container[str]) -> Change:
    """The change, taking back nothing that others did: its objects in conflict become new ones beside theirs.

    Their ids depend on their content: sent twice, because an answer was lost, they are added once.
    """
    upserts: dict[str, GeoObject] = {}
    for name, item in change.upserts.items():
        if name in conflicts:
            name = str(uuid.uuid5(uuid.NAMESPACE_OID, json.dumps(written(item))))
        upserts[name] = replace(item, object_id=name)
    return replace(change, upserts=upserts, deletes={name for name in change.deletes if name not in conflicts})


def written(item: GeoObject | None) -> dict[str, Any] | None:
    """An object as it stands in a file: what is compared."""
    return None if item is None else as_feature(item, item.object_id)


def same(one: Objects, other: Objects) -> bool:
    """Whether the same would be written."""
    return one.keys() == other.keys() and all(
        item is other[name] or written(item) == written(other[name]) for name, item in one.items()
    )
