"""The cells of the ablation grid: a name, and the study's settings with the change applied."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from lamella.errors import ConfigError
from lamella.verbs.expression_stages.grid_settings import GridSettings
from lamella.verbs.expression_stages.settings import ExpressionConfig

BASE = "base"
Tree = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """One combination of the grid.

    Attributes:
        name: `base`, `loss=zinb`, `fusion=gated,loss=zinb`, `control=shuffled_labels`; it is a folder's name too.
        config: All settings of the cell; its own grid is empty.
        changes: Axis -> value that differs from the study's own.
    """

    name: str
    config: ExpressionConfig
    changes: Mapping[str, str]

    @property
    def is_control(self) -> bool:
        return "control" in self.changes


@dataclass(frozen=True)
class _Change:
    """One value on one axis; `apply` changes a tree of settings."""

    axis: str
    value: str
    apply: Callable[[Tree], None]


def cells_of(config: ExpressionConfig) -> tuple[Cell, ...]:
    """The study's own cell first, then the grid's in the order of its lists, then the controls.

    Raises:
        ConfigError: A value of the grid is none of its setting's, or two cells have one name, or `only` names none.
    """
    own = _plain(config)
    axes = [list(changes) for changes in _axes(config.grid, own)]
    combined: list[tuple[_Change, ...]] = [()]
    if config.grid.mode == "product":
        choices = [[None, *changes] for changes in axes if changes]
        combined = [tuple(one for one in some if one is not None) for some in itertools.product(*choices)]
    else:
        combined += [(change,) for changes in axes for change in changes]
    combined += [(change,) for change in _controls(config)]
    cells, problems = [], []
    for changes in combined:
        try:
            cells.append(_cell(own, changes))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            problems.append(f"grid: {_name(changes)} cannot be ({where}: {first['msg'].removeprefix('Value error, ')})")
    _check(cells, config.grid, problems)
    return tuple(cell for cell in cells if not config.grid.only or cell.name in config.grid.only)


def _cell(own: Tree, changes: tuple[_Change, ...]) -> Cell:
    tree = json.loads(json.dumps(own))
    for change in changes:
        change.apply(tree)
    return Cell(
        _name(changes), ExpressionConfig.model_validate(tree), {change.axis: change.value for change in changes}
    )


def _name(changes: tuple[_Change, ...]) -> str:
    return ",".join(f"{change.axis}={change.value}" for change in changes) or BASE


def _plain(config: ExpressionConfig) -> Tree:
    """The settings as plain values, with an empty grid."""
    tree = config.model_dump(mode="json")
    tree["grid"] = GridSettings().model_dump(mode="json")
    return dict(tree)


def _axes(grid: GridSettings, own: Tree) -> Iterator[Iterator[_Change]]:
    yield (_encoder(value) for value in grid.encoder if value != own["features"]["encoder"])
    steps = [view["token_um"] for view in own["features"]["views"]]
    yield (_views(value, own) for value in grid.views if list(value) != steps)
    for axis, path in (("fusion", ("train", "model")), ("decoder", ("train", "model")), ("loss", ("train",))):
        block = own
        for key in path:
            block = block[key]
        yield (_variant(axis, path, value) for value in getattr(grid, axis) if not _is_own(value, dict(block[axis])))


def _encoder(value: str) -> _Change:
    def apply(tree: Tree) -> None:
        tree["features"]["encoder"] = value

    return _Change("encoder", _as_name(value), apply)


def _views(value: tuple[float, ...], own: Tree) -> _Change:
    known = {view["token_um"]: view for view in own["features"]["views"]}

    def apply(tree: Tree) -> None:
        first, *more = [dict(known.get(step, {"token_um": step})) for step in value]
        tree["features"]["views"] = [{**first, "fov_um": None}, *more]  # the first has the samples' field
        if len(value) == 1:
            tree["train"]["model"]["fusion"] = {"name": "none"}

    return _Change("views", "+".join(f"{step:g}" for step in value), apply)


def _variant(axis: str, path: tuple[str, ...], value: str | dict[str, Any]) -> _Change:
    """A block that carries a name; what it does not say has the variant's defaults."""
    block = {"name": value} if isinstance(value, str) else dict(value)

    def apply(tree: Tree) -> None:
        for key in path:
            tree = tree[key]
        tree[axis] = block

    more = [f"{key}_{_as_name(str(each))}" for key, each in block.items() if key != "name"]
    return _Change(axis, "-".join([_as_name(str(block.get("name"))), *more]), apply)


def _is_own(value: str | dict[str, Any], block: Tree) -> bool:
    """Whether a variant is the study's own setting: the same name, and of what it states nothing else."""
    if isinstance(value, str):
        return value == block["name"]
    return all(block.get(key, None) == each for key, each in value.items())


def _controls(config: ExpressionConfig) -> Iterator[_Change]:
    def shuffle(tree: Tree) -> None:
        tree["train"]["shuffle_labels"] = True

    def forget(tree: Tree) -> None:
        tree["features"]["random_seed"] = config.seed

    ways = {"shuffled_labels": shuffle, "random_encoder": forget}
    for name in config.grid.controls:
        yield _Change("control", name, ways[name])


def _as_name(value: str) -> str:
    """A value as part of a folder's name: of a path its last part, and no signs that a file system minds."""
    last = value.rstrip("/").rsplit("/", 1)[-1]
    return re.sub(r"[^\w.+-]+", "_", last)


def _check(cells: list[Cell], grid: GridSettings, problems: list[str]) -> None:
    names = [cell.name for cell in cells]
    problems += [
        f"grid: two cells are named {name}; leave one out" for name in sorted({*names}) if names.count(name) > 1
    ]
    problems += [
        f"grid.only: there is no cell {name}; there are {', '.join(names)}" for name in grid.only if name not in names
    ]
    if problems:
        raise ConfigError(problems, "expression")
