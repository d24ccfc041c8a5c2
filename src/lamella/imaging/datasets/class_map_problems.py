"""Everything that can be wrong with a class map, told at once."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from lamella.formats.label_values import NOT_LABELLED

_KEYS = ("name", "origin", "classes", "ignore", "rest", "rest_name", "known")
_RESTS = ("background", "ignore", "refuse")
_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")


def value_of(value: Any) -> int:
    """A value of a mask: a whole number, or a colour such as "#ff0000" as one number."""
    return int(value[1:], 16) if isinstance(value, str) else int(value)


def class_map_problems(tree: Mapping[str, Any]) -> list[str]:
    """All problems, as sentences; none for a sound map."""
    unknown = [f"{key} is no key of a class map (known: {', '.join(_KEYS)})" for key in tree if key not in _KEYS]
    classes = tree.get("classes")
    if not isinstance(classes, Mapping) or not classes:
        return [*unknown, "classes must name each class and its values, such as `tumor: [1]`"]
    shapes = [*unknown, *_shape_problems(classes, tree)]
    if shapes:  # what is no number cannot be counted
        return shapes
    return [*_id_problems(classes), *_overlap_problems(classes, tree), *_rest_problems(classes, tree)]


def _listed(values: Any) -> list[Any]:
    return list(values) if isinstance(values, (list, tuple)) else [values]


def _given(entry: Any) -> list[Any]:
    values = entry.get("values") if isinstance(entry, Mapping) else entry
    return [] if values is None else _listed(values)


def _known(tree: Mapping[str, Any]) -> list[Any]:
    known = tree.get("known") or ()
    return list(known.values()) if isinstance(known, Mapping) else _listed(known)


def _is_value(value: Any) -> bool:
    if isinstance(value, str):
        return bool(_COLOUR.fullmatch(value))
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31


def _shape_problems(classes: Mapping[Any, Any], tree: Mapping[str, Any]) -> Iterator[str]:
    places = {f"class {name}": _given(entry) for name, entry in classes.items()}
    places |= {"ignore": _listed(tree.get("ignore") or ()), "known": _known(tree)}
    for place, values in places.items():
        for value in values:
            if not _is_value(value):
                yield f"{place}: {value!r} is no value of a mask (0, 1, 2, ... or a colour such as '#ff0000')"
    every = [value for values in places.values() for value in values]
    if len({isinstance(value, str) for value in every}) > 1:
        yield "some values are numbers and some are colours"
    for name, entry in classes.items():
        if not isinstance(name, str):
            yield f"the class {name!r} is called by no word: put its name in quotes"
        if isinstance(entry, Mapping) and (strange := sorted(set(map(str, entry)) - {"id", "values"})):
            yield f"class {name}: {', '.join(strange)} is no key of a class (known: id, values)"
        if not _given(entry):
            yield f"class {name} has no value"
    if tree.get("rest", "refuse") not in _RESTS:
        yield f"rest is {tree['rest']!r}, not one of {', '.join(_RESTS)}"


def _id_problems(classes: Mapping[str, Any]) -> Iterator[str]:
    ids = {name: entry["id"] for name, entry in classes.items() if isinstance(entry, Mapping) and "id" in entry}
    if len(classes) >= NOT_LABELLED:
        yield f"{len(classes)} classes, where ids end at {NOT_LABELLED - 1}"
    if not ids:
        return
    if without := [name for name in classes if name not in ids]:
        yield f"{', '.join(without)}: no id, where {next(iter(ids))} has one; state all or none"
        return
    wanted = range(1, len(ids) + 1)
    if wrong := [f"{name} {number!r}" for name, number in ids.items() if type(number) is not int or number < 1]:
        yield f"ids are whole numbers from 1, not {', '.join(wrong)}"
    elif len(set(ids.values())) < len(ids):
        yield f"two classes share an id: {', '.join(f'{name} {number}' for name, number in ids.items())}"
    elif missing := sorted(set(wanted) - set(ids.values())):
        hole = ", ".join(map(str, missing))
        yield f"the ids have a hole: {hole} is no class (a model would learn a channel that never occurs)"


def _overlap_problems(classes: Mapping[str, Any], tree: Mapping[str, Any]) -> Iterator[str]:
    places: dict[Any, list[str]] = defaultdict(list)
    for name, entry in classes.items():
        for value in _given(entry):
            places[value_of(value)].append(name)
    for value in _listed(tree.get("ignore") or ()):
        places[value_of(value)].append("ignore")
    for value, held in sorted(places.items()):
        if len(held) > 1:
            yield f"value {value} is in {' and in '.join(held)}"


def _rest_problems(classes: Mapping[str, Any], tree: Mapping[str, Any]) -> Iterator[str]:
    rest, rest_name, known = tree.get("rest", "refuse"), tree.get("rest_name"), {value_of(v) for v in _known(tree)}
    stated = {value_of(value) for entry in classes.values() for value in _given(entry)}
    stated |= {value_of(value) for value in _listed(tree.get("ignore") or ())}
    if rest == "background" and not (isinstance(rest_name, str) and rest_name):
        yield "rest is background, which needs a name: rest_name: other"
    if rest != "background" and rest_name is not None:
        yield f"rest_name says what the background is called, and rest is {rest}"
    if rest_name in classes:
        yield f"rest_name {rest_name} is a class already"
    if rest != "refuse" and not known:
        yield f"rest is {rest}, so `known` must list every value of the masks: an unknown one would pass unseen"
    if known and (outside := sorted(stated - known)):
        yield f"`known` leaves out {', '.join(map(str, outside))}, which the map uses"
    if rest == "refuse" and (holes := sorted(known - stated)):
        yield f"a hole: the known value {', '.join(map(str, holes))} is in no class and not ignored"
    if len(classes) == 1 and rest != "background":
        yield "there is one class and no background, so nothing to tell apart"
