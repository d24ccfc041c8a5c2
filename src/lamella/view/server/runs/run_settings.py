"""The settings of a run with where each came from, and the differences of two runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lamella.config import DEFAULT_ORIGIN
from lamella.errors import LamellaError, first_line
from lamella.view.server.runs.run_files import refuse_link_out

_CONFIG, _ORIGINS, _RUN = "config.yaml", "origins.json", "run.json"
_MAX_BYTES = 8 << 20  # of a settings file; one that is larger is none
ABSENT = "not there"


@dataclass(frozen=True)
class Setting:
    """One value as text, and where it came from: `default`, a file and line, or the command line."""

    key: str
    value: str
    origin: str

    @property
    def given(self) -> bool:
        """Whether somebody chose it."""
        return self.origin != DEFAULT_ORIGIN


@dataclass(frozen=True)
class SettingDifference:
    """A setting that two runs do not share; ABSENT stands for one that a run does not have."""

    key: str
    first: Setting
    second: Setting


def settings_of(folder: Path) -> list[Setting]:
    """The resolved settings in the order of config.yaml.

    Raises:
        LamellaError: config.yaml or origins.json is missing or damaged.
    """
    tree, origins = _read(folder / _CONFIG), _read(folder / _ORIGINS)
    leaves = _leaves(tree)
    return [Setting(key, _text(value), _origin(key, origins)) for key, value in leaves.items()]


def facts_of(folder: Path) -> dict[str, str]:
    """run.json as label -> text: the verb, the version, fingerprints of settings and inputs.

    Raises:
        LamellaError: It is missing or damaged.
    """
    return {key: _text(value) for key, value in _leaves(_read(folder / _RUN)).items()}


def different(first: list[Setting], second: list[Setting]) -> tuple[list[SettingDifference], int]:
    """The settings in which two runs differ, and how many they share.

    Args:
        first: Of the one run.
        second: Of the other.
    """
    one, two = ({setting.key: setting for setting in settings} for settings in (first, second))
    found = []
    for key in dict.fromkeys((*one, *two)):
        pair = [settings.get(key, Setting(key, ABSENT, "")) for settings in (one, two)]
        if pair[0].value != pair[1].value:
            found.append(SettingDifference(key, *pair))
    return found, len({*one, *two}) - len(found)


def _read(path: Path) -> Mapping[str, Any]:
    refuse_link_out(path)
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise LamellaError(path, "it is too large to be what a run writes", "Look at the folder.")
        text = path.read_text(encoding="utf-8")
        tree = yaml.load(text, _LOADER) if path.name == _CONFIG else json.loads(text)
    except FileNotFoundError as error:
        raise LamellaError(path, "it is not there", "A folder of a Lamella run has one.") from error
    except (OSError, yaml.YAMLError, ValueError) as error:
        raise LamellaError(path, f"it cannot be read ({first_line(error)})", "Look at the file.") from error
    if not isinstance(tree, dict):
        raise LamellaError(path, "it holds no settings", "Look at the file.")
    return tree


_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's is ten times as fast


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted key -> value; a list is one value."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            leaves.update(_leaves(value, f"{prefix}{key}."))
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _origin(key: str, origins: Mapping[str, Any]) -> str:
    """Of the key, or of the block that it came with."""
    while key:
        if key in origins:
            return str(origins[key])
        key = key.rpartition(".")[0]
    return DEFAULT_ORIGIN
