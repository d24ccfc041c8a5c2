"""A run folder belongs to one verb with one set of settings. It is claimed before any work starts.

`config.yaml` holds the settings and can be given back with `-r`; `origins.json` says where each value came from;
`run.json` names the verb, the version, the inputs and the hash of all settings that change results.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lamella import __version__
from lamella.engine.folder_lock import FolderLock, lock_folder
from lamella.errors import OutputConflictError, storage_faults
from lamella.formats.atomic import remove_parts, write_json, write_text

MADE_BEFORE = "from_annotations"
"""Subfolder of a data set that is made of what the user gave before its run's folder is claimed."""
_CONFIG, _ORIGINS, _RUN = "config.yaml", "origins.json", "run.json"
_SHOWN_DIFFERENCES = 12  # a message stays readable; the number of the rest is told
_ABSENT = object()


@dataclass(frozen=True)
class Claim:
    """A folder that may be written to, by this process alone. Keep it while you write: its lock goes with it.

    `resumed` says that it was claimed before by the same verb with the same settings.
    """

    folder: Path
    settings_hash: str
    resumed: bool
    lock: FolderLock | None = field(default=None, repr=False, compare=False)


def claim(
    folder: Path | str,
    tree: Mapping[str, Any],
    origins: Mapping[str, str],
    *,
    verb: str,
    ignore: Iterable[str] = (),
    inputs: Mapping[str, Any] | None = None,
    shared: bool = False,
) -> Claim:
    """Take the folder for this run, or find that it is this run's already.

    An identical rerun rewrites nothing. A rerun that differs in ignored keys only updates config.yaml and origins.json.
    What a killed run left half written is cleared away.

    Args:
        folder: Made if it does not exist.
        tree: The settings as plain values.
        origins: Where each setting came from.
        verb: Who writes here.
        ignore: Dotted keys, or blocks, that do not change results, such as `data.workers`.
        inputs: What the results depend on beside the settings, such as the fingerprint of a catalogue.
        shared: This is a shard; others of the same run write to the folder at the same time.

    Raises:
        OutputConflictError: The folder holds another verb's output, other settings or inputs, or foreign files, or
            another process is writing there.
        StorageError: The folder cannot be written to.
    """
    folder, ignore = Path(folder), tuple(ignore)
    run = {
        "verb": verb,
        "lamella": __version__,
        "settings_hash": settings_hash(tree, ignore=ignore, inputs=inputs),
        "inputs": dict(inputs or {}),
    }
    _claimed_before(folder)  # refuses foreign folders before a file is made in them
    lock = lock_folder(folder / _RUN, shared=shared, settled=folder / _CONFIG, who=f"lamella {verb}")
    resumed = _claimed_before(folder)
    if lock.alone:
        remove_parts(folder, leave=_RUN)  # not in folders of other runs inside this one
    if resumed:
        old_tree, old_run = _read(folder)
        _refuse_other_run(folder, old_tree, old_run, tree, run, ignore)
        if _plain(old_tree) != _plain(tree):
            write_json(folder / _ORIGINS, dict(origins))
            _write_config(folder, tree, verb)
    else:
        write_json(folder / _ORIGINS, dict(origins))
        _write_run(folder, run)
        _write_config(folder, tree, verb)  # last: it marks the folder as claimed
    if shared:
        lock.take(shared=True)  # the first shard had it alone
    return Claim(folder, str(run["settings_hash"]), resumed, lock)


def settings_hash(
    tree: Mapping[str, Any], *, ignore: Iterable[str] = (), inputs: Mapping[str, Any] | None = None
) -> str:
    """16 hexadecimal digits that change when a setting that matters, or an input, changes."""
    leaves = {**_leaves(tree, tuple(ignore)), **{f"inputs.{key}": value for key, value in (inputs or {}).items()}}
    text = json.dumps(_plain(leaves), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _claimed_before(folder: Path) -> bool:
    if not folder.exists():
        return False
    if not folder.is_dir():
        raise OutputConflictError(folder, "it is a file, and a folder is needed", "Give another folder with -o.")
    if (folder / _CONFIG).exists():
        return True
    # Hidden files are leftovers of a write that was cut short, or the desktop's own.
    foreign = sorted(
        path.name
        for path in folder.iterdir()
        if path.name not in (_ORIGINS, _RUN, MADE_BEFORE) and not path.name.startswith(".")
    )
    if foreign:
        raise OutputConflictError(
            folder,
            f"it is not empty and no Lamella run wrote it (it holds {', '.join(foreign[:3])}"
            f"{', ...' if len(foreign) > 3 else ''})",
            "Give a new folder with -o.",
        )
    return False


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        tree = yaml.safe_load((folder / _CONFIG).read_text(encoding="utf-8"))
        run = json.loads((folder / _RUN).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, json.JSONDecodeError) as error:
        raise OutputConflictError(
            folder, f"its {_CONFIG} or {_RUN} cannot be read ({error})", "Give another folder with -o."
        ) from error
    if not isinstance(tree, dict) or not isinstance(run, dict):
        raise OutputConflictError(
            folder, f"its {_CONFIG} or {_RUN} was not written by Lamella", "Give another folder with -o."
        )
    return tree, run


def _refuse_other_run(
    folder: Path,
    old_tree: Mapping[str, Any],
    old_run: Mapping[str, Any],
    tree: Mapping[str, Any],
    run: Mapping[str, Any],
    ignore: tuple[str, ...],
) -> None:
    if old_run.get("verb") != run["verb"]:
        raise OutputConflictError(
            folder, f"it holds the output of `lamella {old_run.get('verb')}`", "Give another folder with -o."
        )
    old = {**_leaves(old_tree, ignore), **_leaves({"inputs": old_run.get("inputs", {})}, ())}
    new = {**_leaves(tree, ignore), **_leaves({"inputs": run["inputs"]}, ())}
    differences = list(_differences(_plain(old), _plain(new)))
    if differences:
        shown = differences[:_SHOWN_DIFFERENCES]
        if len(differences) > len(shown):
            shown.append(f"and {len(differences) - len(shown)} more")
        lines = "\n".join(f"  {line}" for line in shown)
        raise OutputConflictError(
            folder,
            f"it holds a run with other settings:\n{lines}\nNothing was changed",
            f"Give another folder with -o, or the old settings with -r {folder / _CONFIG}.",
        )


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    for key in sorted({*old, *new}):
        before, now = old.get(key, _ABSENT), new.get(key, _ABSENT)
        if before != now:
            yield f"{key}: {_text(before)} there, {_text(now)} now"


def _text(value: Any) -> str:
    return "absent" if value is _ABSENT else json.dumps(value)


def _leaves(tree: Mapping[str, Any], ignore: tuple[str, ...], prefix: str = "") -> dict[str, Any]:
    """Dotted key -> value, without the ignored keys and blocks."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if path in ignore:
            continue
        if isinstance(value, Mapping) and value:
            leaves.update(_leaves(value, ignore, f"{path}."))
        else:
            leaves[path] = value
    return leaves


def _plain(value: Any) -> Any:
    """As JSON gives it back, so that tuples equal lists and paths their text."""
    return json.loads(json.dumps(value, default=str))


def _write_run(folder: Path, run: Mapping[str, Any]) -> None:
    """In place, unlike every other file: it is the one that is locked, and a lock holds a file, not a name."""
    with storage_faults(folder / _RUN), open(folder / _RUN, "w", encoding="utf-8") as file:
        file.write(json.dumps(run, indent=2) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _write_config(folder: Path, tree: Mapping[str, Any], verb: str) -> None:
    text = yaml.safe_dump(_plain(tree), sort_keys=False, allow_unicode=True)
    write_text(folder / _CONFIG, f"# Settings of `lamella {verb}`; `-r` with this file repeats the run.\n{text}")
