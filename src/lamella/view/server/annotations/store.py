"""Annotations on disk: <folder>/<slide>/<author>.geojson as QuPath reads it, with every version that it had.

Nothing is ever written outside the folder. What lies in it:

- annotations.json: which slide file each subfolder is about (formats/annotation_folder.py)
- classes.json: colours of classes, the same on all slides
- queue.json: places of active-learning lists that were dealt with
- <slide>/<author>.geojson, and <slide>/history/<author>/000001.geojson.gz and so on
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lamella.errors import LamellaError, first_line
from lamella.formats.annotation_folder import (
    AnnotatedSlide,
    author_files,
    read_annotated_slides,
    write_annotated_slides,
)
from lamella.formats.atomic import write_json
from lamella.formats.geojson import GeoObject
from lamella.view.server.annotations.lock import WriteLock
from lamella.view.server.annotations.merge import Change, merged, same
from lamella.view.server.annotations.names import author_name, folder_name
from lamella.view.server.annotations.versions import AuthorFile, Remembered, Version

CLASSES, QUEUE = "classes.json", "queue.json"


class AnnotationStore:
    """Annotations of all slides below one folder, which is made at the first save. Several threads use it at once.

    Args:
        folder: Where they lie: <folder>/<slide>/<author>.geojson.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = WriteLock(folder)
        self._remembered = Remembered()

    def authors(self, slide: str) -> list[str]:
        """Who has drawn on a slide."""
        return list(author_files(self.folder, self._inside(folder_name(slide)).name))

    def version(self, slide: str, author: str) -> Version:
        """What an author has drawn on a slide; version 0 if nothing.

        Raises:
            LamellaError: The name is none, or the file cannot be edited.
        """
        return self._file(slide, author).now()

    def geojson(self, slide: str, author: str) -> Path:
        """The author's file.

        Raises:
            KeyError: There is none.
        """
        path = self._file(slide, author).path
        if not path.is_file():
            raise KeyError(author)
        return path

    def save(self, slide: AnnotatedSlide, author: str, change: Change) -> tuple[Version, bool]:
        """Apply a change to what there is now, whoever changed it since.

        Args:
            slide: What was drawn on.
            author: Under whose name.
            change: New, changed and removed objects.

        Returns:
            The version that holds the change (the present one if that holds it already), and whether it holds what
            others changed since `change.base_version`.

        Raises:
            ConflictError: An object of the change was changed by somebody else since; nothing is saved.
            LamellaError: The folder's slide of this name is another one, or there is too much to draw.
            StorageError: The disk refused the write.
        """
        file = self._file(slide.name, author)
        with self._lock.held():
            now = file.now()
            base = now if change.base_version == now.number else file.at(change.base_version)
            objects = merged(base.objects, now.objects, change)
            if same(objects, now.objects):
                return now, base is not now
            self._record(slide)
            self._add_classes(change.upserts)
            return file.write(objects), base is not now

    def classes(self) -> dict[str, str]:
        """Colours ("#rrggbb") of classes that somebody drew, in the order in which they came up.

        Raises:
            LamellaError: classes.json was damaged.
        """
        return {str(name): str(colour) for name, colour in self._read(CLASSES).items()}

    def done(self) -> dict[str, Any]:
        """Places of lists that were dealt with: key -> who.

        Raises:
            LamellaError: queue.json was damaged.
        """
        return self._read(QUEUE)

    def set_done(self, key: str, author: str | None) -> None:
        """Note that a place was dealt with, or (None) that it was not.

        Raises:
            StorageError: The disk refused the write.
        """
        who = None if author is None else author_name(author)
        self._update(QUEUE, lambda places: {**_without(places, key), **({} if who is None else {key: who})})

    def refusal(self) -> str:
        """Why nothing can be saved, for people; empty if it can."""
        place = self.folder
        while not place.exists() and place != place.parent:
            place = place.parent
        return "" if os.access(place, os.W_OK) else f"{self.folder} cannot be written to: what you draw is not saved."

    def _file(self, slide: str, author: str) -> AuthorFile:
        author, folder = author_name(author), folder_name(slide)
        for part in (f"{folder}/history/{author}", f"{folder}/{author}.geojson"):
            self._inside(part)
        return AuthorFile(self.folder / folder, author, self._remembered)

    def _inside(self, part: str) -> Path:
        """A path in the folder.

        Raises:
            LamellaError: A link leads out of it.
        """
        path = self.folder / part
        if not path.resolve().is_relative_to(self.folder.resolve()):
            raise LamellaError(path, "it leads out of the annotation folder", "Put the file itself there.")
        return path

    def _record(self, slide: AnnotatedSlide) -> None:
        known = read_annotated_slides(self.folder)
        entry = replace(slide, name=folder_name(slide.name))
        there = known.get(entry.name)
        size = (entry.frame.width_px, entry.frame.height_px)
        if there is not None and (there.frame.width_px, there.frame.height_px) != size:
            raise LamellaError(
                self.folder / entry.name,
                f"these annotations were drawn on {there.path.name}, {there.frame.width_px} x {there.frame.height_px}"
                f" pixels, and this slide has {size[0]} x {size[1]}",
                "Outlines are in pixels of that file: choose another folder with -o.",
            )
        if there is None or replace(entry, path=there.path.resolve()) != replace(there, path=entry.path.resolve()):
            write_annotated_slides(self.folder, {**known, entry.name: entry})

    def _add_classes(self, objects: Mapping[str, GeoObject]) -> None:
        found = {
            item.classification: "#{:02x}{:02x}{:02x}".format(*item.colour)
            for item in objects.values()
            if item.classification and item.colour is not None
        }
        known = self._read(CLASSES)
        if not found.keys() <= known.keys():
            write_json(self.folder / CLASSES, {**known, **{name: found[name] for name in found if name not in known}})

    def _update(self, name: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        with self._lock.held():
            write_json(self.folder / name, change(self._read(name)))

    def _read(self, name: str) -> dict[str, Any]:
        path = self._inside(name)
        if not path.is_file():
            return {}
        try:
            tree = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(tree, dict):
                raise ValueError("it is no object")
        except (OSError, ValueError) as error:
            raise LamellaError(path, f"it cannot be read ({first_line(error)})", "Restore or remove it.") from error
        return tree


def _without(tree: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in tree.items() if name != key}
