"""Class maps: what the values of masks mean, as a YAML file.

A class has an id (its value in what `read_mask` returns, and so its place among a model's channels) and the values of
the files that mean it. Ids belong to names: they stand in one file that every command reads, and must be 1, 2, 3, ...
A value that the map does not know is refused; ignored values are no background.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml

from lamella.errors import DatasetError, ImageError, first_line
from lamella.formats.label_values import NOT_LABELLED
from lamella.imaging.datasets.class_map_problems import class_map_problems, value_of
from lamella.imaging.datasets.problems import named, refuse

_REMEDY = "Correct the class map; docs/how-to/datasets.md shows one."
_LARGEST_TABLE = 1 << 16  # values below are looked up in a table, larger ones (colours) one by one


@dataclass(frozen=True)
class ClassMap:
    """Values of masks to classes.

    Attributes:
        name: Of the map.
        ids: Class name to its id, 1 or more.
        values: Class name to the values of the files that mean it.
        ignore: Values that become NOT_LABELLED.
        rest: What the known values become that stand nowhere else: 0, NOT_LABELLED, or nothing: they are refused.
        background: What 0 is called where the rest is background; None otherwise: every pixel has a class or none.
        known: Every value that may occur.
        origin: Where the values come from.
        by_colour: Whether values are colours, 65536 red + 256 green + blue.
    """

    name: str
    ids: dict[str, int]
    values: dict[str, tuple[int, ...]]
    ignore: tuple[int, ...] = ()
    rest: Literal["background", "ignore", "refuse"] = "refuse"
    background: str | None = None
    known: tuple[int, ...] = ()
    origin: str = ""
    by_colour: bool = False

    def ids_of(self, values: np.ndarray, source: Path | str) -> np.ndarray:
        """int32 of the same shape: the id of each pixel's class, 0 for the background, NOT_LABELLED for ignored ones.

        Args:
            values: Whole numbers as the file holds them.
            source: The file, for messages.

        Raises:
            ImageError: A value is unknown; it is named, with the classes that are known.
        """
        present = present_values(values)
        unknown = sorted(set(present) - set(self._target))
        if unknown:
            raise ImageError(
                source,
                f"it holds the unknown value {named([self._said(value) for value in unknown])} "
                f"(class map {self.name} knows {named([self._said(value) for value in sorted(self._target)], 30)})",
                "Is it a mask of this data set? Then name the value in the class map; a JPEG cannot hold a mask.",
            )
        targets = np.array([self._target[value] for value in present], np.int32)
        if present[-1] >= _LARGEST_TABLE:
            return targets[np.searchsorted(present, values)]
        table = np.zeros(present[-1] + 1, np.int32)
        table[present] = targets
        return table[values]

    @functools.cached_property
    def _target(self) -> dict[int, int]:
        rest = {"background": 0, "ignore": NOT_LABELLED}.get(self.rest)
        targets = {} if rest is None else dict.fromkeys(self.known, rest)
        targets |= dict.fromkeys(self.ignore, NOT_LABELLED)
        return targets | {value: self.ids[name] for name, values in self.values.items() for value in values}

    def _said(self, value: int) -> str:
        return f"#{value:06x}" if self.by_colour else str(value)


def present_values(values: np.ndarray) -> list[int]:
    """The whole numbers that occur, in order; counted where they are small, which takes a tenth of sorting them."""
    if values.size and values.min() >= 0 and values.max() < _LARGEST_TABLE:
        return np.flatnonzero(np.bincount(values.ravel())).tolist()
    return np.unique(values).tolist()


def shipped_class_maps() -> dict[str, Path]:
    """Name -> file of the class maps that ship with Lamella."""
    folder = Path(str(resources.files("lamella.imaging.datasets") / "class_maps"))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def open_class_map(name: str | Path) -> ClassMap:
    """A class map that ships with Lamella, by its name, or a YAML file.

    Raises:
        DatasetError: There is none, or something is wrong in it; all problems are listed.
    """
    shipped = shipped_class_maps()
    path = shipped.get(str(name), Path(name))
    if not path.is_file():
        near = difflib.get_close_matches(str(name), shipped, n=1)
        known = f"Did you mean {near[0]}?" if near else f"Shipped class maps: {', '.join(shipped)}."
        raise DatasetError(f"class_map={name}", "there is no such class map or file", known)
    return class_map_of(_tree(path), path)


def class_map_of(tree: Mapping[str, Any], thing: Path | str) -> ClassMap:
    """A class map from plain values, as its file holds them.

    Args:
        tree: `classes`, and as the file needs them `name`, `origin`, `ignore`, `rest`, `rest_name`, `known`.
        thing: The file, for messages.

    Raises:
        DatasetError: All problems: a class without a value, a value in two classes, ids with a hole, known values that
            nothing is said about, ...
    """
    refuse(thing, class_map_problems(tree), _REMEDY)
    entries = {str(name): entry if isinstance(entry, Mapping) else {"values": entry} for name, entry in _classes(tree)}
    values = {name: _values(entry["values"]) for name, entry in entries.items()}
    known = tree.get("known") or ()
    ignore = _values(tree.get("ignore") or ())
    stated = [*(value for several in values.values() for value in several), *ignore]
    listed = list(known.values()) if isinstance(known, Mapping) else list(known)
    return ClassMap(
        name=str(tree.get("name") or Path(thing).stem),
        ids={name: entry.get("id", number) for number, (name, entry) in enumerate(entries.items(), start=1)},
        values=values,
        ignore=ignore,
        rest=tree.get("rest", "refuse"),
        background=tree.get("rest_name"),
        known=tuple(sorted({value_of(value) for value in listed} | set(stated))),
        origin=str(tree.get("origin") or ""),
        by_colour=any(isinstance(value, str) for _, entry in entries.items() for value in _listed(entry["values"])),
    )


def _classes(tree: Mapping[str, Any]) -> list[tuple[Any, Any]]:
    return list(tree["classes"].items())


def _listed(values: Any) -> list[Any]:
    return list(values) if isinstance(values, (list, tuple)) else [values]


def _values(values: Any) -> tuple[int, ...]:
    return tuple(value_of(value) for value in _listed(values))


class _NoRepeats(yaml.SafeLoader):
    """YAML keeps the last of two equal keys; a class that stands twice must not lose its first values."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [str(key.value) for key, _ in node.value]
        repeated = sorted({key for key in keys if keys.count(key) > 1})
        if repeated:
            raise yaml.YAMLError(f"{', '.join(repeated)} stands twice in line {node.start_mark.line + 1} and after")
        return super().construct_mapping(node, deep)


def _tree(path: Path) -> Mapping[str, Any]:
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), Loader=_NoRepeats)
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(path, f"it cannot be read ({first_line(error)})", "Correct the path.") from error
    except yaml.YAMLError as error:
        raise DatasetError(path, f"it is not YAML ({' '.join(str(error).split())[:200]})", _REMEDY) from error
    if not isinstance(tree, Mapping):
        raise DatasetError(path, "it must hold keys and values", _REMEDY)
    return tree
