"""What lies in a run's folder and can be shown: logs, pictures, model cards. Nothing outside it is ever named."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lamella.errors import LamellaError
from lamella.view.server.catalogue.ids import Ids

LOG, MONITORS, CARD, RESULTS = "log.jsonl", "monitors.jsonl", "README.md", "results.json"
PICTURE_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".gif": "image/gif"}
"""Suffix -> media type. No SVG: it can hold scripts."""
_MAX_DEPTH = 4  # models/base/without_P1/seed0 of an expression study
_MAX_ENTRIES = 20_000  # a listing stays below a tenth of a second
_MAX_PICTURES, _MAX_LOGS, _MAX_CARDS = 500, 64, 24  # more is no page to read
_INSIDES = frozenset({"checkpoints", "tensorboard"})
_LISTED_S = 3.0  # while a page asks every other second, the folder is listed every third
_KEPT_LISTINGS = 32


@dataclass(frozen=True)
class RunFile:
    """A file of a run.

    Attributes:
        id: Stands in URLs.
        title: Its folder inside the run's, empty for the run's own.
        path: Where it is.
    """

    id: str
    title: str
    path: Path


@dataclass
class RunFiles:
    """What a listing found.

    Attributes:
        logs: log.jsonl and monitors.jsonl by id.
        pictures: Pictures for the eye, by id; in the order of their folders.
        label_maps: Folder -> how many grey PNGs it holds: their values are classes and look black.
        cards: Model cards by id.
        said: What was left out.
    """

    logs: dict[str, RunFile] = field(default_factory=dict)
    pictures: dict[str, RunFile] = field(default_factory=dict)
    label_maps: dict[str, int] = field(default_factory=dict)
    cards: dict[str, RunFile] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)


class Listings:
    """Listings of folders, each kept for a moment; shared by all requests."""

    def __init__(self) -> None:
        self._kept: dict[Path, tuple[float, RunFiles]] = {}
        self._lock = threading.Lock()

    def of(self, folder: Path) -> RunFiles:
        """What lies in the folder, as it was a few seconds ago at most."""
        with self._lock:
            taken, files = self._kept.get(folder, (-_LISTED_S, RunFiles()))
            if time.monotonic() - taken > _LISTED_S:
                files = list_run(folder)
                self._kept.pop(folder, None)
                self._kept[folder] = (time.monotonic(), files)
                while len(self._kept) > _KEPT_LISTINGS:
                    self._kept.pop(next(iter(self._kept)))
            return files


def list_run(folder: Path) -> RunFiles:
    """Walk a run's folder; links that lead out of it are left out, and so is what lies in hidden folders."""
    found, ids, root = RunFiles(), Ids(), folder.resolve()
    left: dict[str, int] = {}
    for path in _files(folder, found.said):
        name, suffix = path.name, path.suffix.lower()
        if name not in (LOG, MONITORS, CARD) and suffix not in PICTURE_TYPES:
            continue
        if not is_inside(path, root):
            left["links that lead out of the folder"] = left.get("links that lead out of the folder", 0) + 1
            continue
        relative = path.relative_to(folder)
        title = relative.parent.as_posix().removeprefix(".")
        kept: Mapping[str, tuple[dict[str, RunFile], int]] = {
            LOG: (found.logs, _MAX_LOGS), MONITORS: (found.logs, _MAX_LOGS), CARD: (found.cards, _MAX_CARDS)
        }  # fmt: skip
        shelf, most = kept.get(name, (found.pictures, _MAX_PICTURES))
        if suffix == ".png" and title and _is_grey(path):
            found.label_maps[title] = found.label_maps.get(title, 0) + 1
        elif name == CARD and not (path.parent / "config.json").is_file():
            continue  # a text, but not a model's
        elif len(shelf) >= most:
            noun = {LOG: "logs", MONITORS: "logs", CARD: "model cards"}.get(name, "pictures")
            left[noun] = left.get(noun, 0) + 1
        else:
            file = RunFile(ids.new(relative.as_posix().replace("/", "-")), title, path)
            shelf[file.id] = file
    found.said += [f"{count} {noun} more are not shown." for noun, count in left.items()]
    return found


def is_inside(path: Path, root: Path) -> bool:
    """Whether a path, all links followed, lies below a resolved folder."""
    return path.resolve().is_relative_to(root)


def refuse_link_out(path: Path) -> None:
    """Refuse a file of a run that lies elsewhere.

    Raises:
        LamellaError: It is a symbolic link that leads out of its folder.
    """
    if not is_inside(path, path.parent.resolve()):
        raise LamellaError(path, "it is a symbolic link that leads out of the run's folder", "Put the file there.")


def ordered(pictures: Sequence[RunFile], captions: Mapping[str, str], folder: Path) -> list[RunFile]:
    """Pictures with a caption first, in the order of the captions, then those of the run's own folder."""
    names = list(captions)

    def place(file: RunFile) -> tuple[int, int]:
        relative = file.path.relative_to(folder).as_posix()
        return (0, names.index(relative)) if relative in captions else (1 + bool(file.title), 0)

    return sorted(pictures, key=place)


def _files(folder: Path, said: list[str]) -> Iterator[Path]:
    """Files below a folder, by name; those of a folder before those of the folders in it."""
    entries = 0
    for place, folders, names in os.walk(folder):
        depth = len(Path(place).relative_to(folder).parts)
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and name not in _INSIDES and not name.endswith(".zarr")
        )
        if depth >= _MAX_DEPTH:
            folders.clear()
        entries += len(names) + len(folders)
        if entries > _MAX_ENTRIES:
            said.append(f"Only the first {_MAX_ENTRIES} files and folders of this run were looked at.")
            return
        yield from (Path(place, name) for name in sorted(names) if not name.startswith("."))


def _is_grey(png: Path) -> bool:
    """Whether a PNG's header says one channel of grey, as label maps have; False for what is no PNG."""
    with open(png, "rb") as file:
        head = file.read(26)  # signature, length, "IHDR", width, height, depth, colour type
    return len(head) == 26 and head[:8] == b"\x89PNG\r\n\x1a\n" and head[25] == 0
