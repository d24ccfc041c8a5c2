"""A folder of annotations that people draw in `lamella view`: <slide>/<author>.geojson, and annotations.json.

annotations.json says which slide file each subfolder is about, and that file's size and spacing when it was drawn on:
outlines are level-0 pixels and mean nothing over another file. Paths in it are relative to the folder, so that
annotations and slides can be moved together.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lamella.errors import LamellaError, first_line
from lamella.formats.atomic import write_json
from lamella.geometry import Frame

RECORDS = "annotations.json"
SUFFIX = ".geojson"  # of an author's file
_FORMAT = "lamella-annotations-1"


@dataclass(frozen=True)
class AnnotatedSlide:
    """A slide that was drawn on.

    Attributes:
        name: Of the slide. Its annotations lie in a subfolder, which has this name unless no folder can have it.
        path: The slide's file.
        frame: Its level 0 when it was drawn on.
        patient: Of an index, if the slide came from one that says it; else empty.
    """

    name: str
    path: Path
    frame: Frame
    patient: str = ""


def is_annotation_folder(path: Path | str) -> bool:
    """Whether a path is such a folder; looks at names only."""
    return (Path(path) / RECORDS).is_file()


def read_annotated_slides(folder: Path | str) -> dict[str, AnnotatedSlide]:
    """The slides of a folder by their subfolders; none where nothing was saved yet.

    Raises:
        LamellaError: annotations.json cannot be read or is not ours.
    """
    path = Path(folder) / RECORDS
    if not path.is_file():
        return {}
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        if tree["format"] != _FORMAT:
            raise ValueError(f"its format is {tree['format']!r}, not {_FORMAT!r}")
        return {subfolder: _slide(Path(folder), subfolder, entry) for subfolder, entry in tree["slides"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise LamellaError(
            path, f"it does not say which slides were drawn on ({first_line(error)})", "Restore it from a copy."
        ) from error


def write_annotated_slides(folder: Path | str, slides: Mapping[str, AnnotatedSlide]) -> None:
    """Write annotations.json, whole or not at all. Its callers see to it that only one of them does so at a time.

    Args:
        folder: Of the annotations.
        slides: By their subfolders.

    Raises:
        StorageError: The disk refused the write.
    """
    folder = Path(folder)
    entries = {
        subfolder: {
            **({} if slide.name == subfolder else {"name": slide.name}),
            "slide": Path(os.path.relpath(slide.path.absolute(), folder.absolute())).as_posix(),
            "width_px0": slide.frame.width_px,
            "height_px0": slide.frame.height_px,
            "mpp_x": slide.frame.mpp_x,
            "mpp_y": slide.frame.mpp_y,
            **({"patient": slide.patient} if slide.patient else {}),
        }
        for subfolder, slide in sorted(slides.items())
    }
    write_json(folder / RECORDS, {"format": _FORMAT, "slides": entries})


def author_files(folder: Path | str, subfolder: str) -> dict[str, Path]:
    """Author -> file of what this author drew on the slide of a subfolder, in the order of the names."""
    files = sorted((Path(folder) / subfolder).glob(f"*{SUFFIX}"))
    return {path.name.removesuffix(SUFFIX): path for path in files if not path.name.startswith(".")}


def _slide(folder: Path, subfolder: str, entry: Mapping[str, Any]) -> AnnotatedSlide:
    frame = Frame(int(entry["width_px0"]), int(entry["height_px0"]), float(entry["mpp_x"]), float(entry["mpp_y"]))
    name = str(entry.get("name", subfolder))
    if min(frame.width_px, frame.height_px) < 1 or not (frame.mpp_x > 0 and frame.mpp_y > 0):
        raise ValueError(f"slide {name} has no size or spacing")
    return AnnotatedSlide(name, folder / entry["slide"], frame, str(entry.get("patient", "")))
