"""The two roads from annotations to a model: `lamella convert ... to=masks`, and `lamella adapt` on the folder."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from lamella.config import Request, Resolved
from lamella.data.drawn import DrawnSettings
from lamella.engine.rundir import MADE_BEFORE
from lamella.errors import LamellaError
from lamella.formats.annotation_folder import is_annotation_folder
from lamella.slides.index import SlideIndex
from lamella.verbs.annotated.planning import planned
from lamella.verbs.annotated.writing import CLASSES, MANIFEST, write_masks


def convert_annotations(request: Request, resolved: Resolved[Any], settings: DrawnSettings, mpp: float | None) -> int:
    """`lamella convert FOLDER -o OUT to=masks`.

    Raises:
        LamellaError: The source is no annotation folder, or as for `planned` and `write_masks`.
    """
    (source,) = request.paths
    if not is_annotation_folder(source):
        raise LamellaError(source, "it is no folder of annotations", "Draw some: lamella view slides/ -o annotations.")
    index = request.options.get("index")
    plan = planned(source, settings, mpp, None if index is None else SlideIndex.load(index))
    if request.dry_run:
        print(resolved.text())
        images = sum(len(work.boxes) for work in plan.works)
        print(f"would write up to {images} images with masks of {', '.join(plan.values)}")
        return 0
    out = request.folder()
    write_masks(out, plan, resolved.tree(), resolved.origins)
    words = [str(out / MANIFEST), "-p", "segment_small", "-o", "runs/drawn", f"data.dataset.class_map={out / CLASSES}"]
    print(f"next: lamella adapt {shlex.join(words)}")
    return 0


@contextmanager
def adaptable(request: Request, mpp: float | None) -> Iterator[Request]:
    """The request with a data set in place of a folder of annotations; any other request as it is.

    Args:
        request: Of `lamella adapt`.
        mpp: What the model is shown: finer pixels need not be stored. None: the slides' own.

    Raises:
        LamellaError: As for `planned` and `write_masks`, or annotations are given beside other data.
    """
    if not any(map(is_annotation_folder, request.paths)):
        yield request
        return
    stated = [text for text in request.overrides if text.startswith("data.dataset.")]
    if len(request.paths) > 1 or stated:
        raise LamellaError(
            "lamella adapt",
            f"{stated[0]} says how files are read" if stated else "annotations are given beside other data",
            "Make a data set of the annotations first: lamella convert annotations -o data to=masks.",
        )
    settings = DrawnSettings()
    plan = planned(request.paths[0], settings, mpp)
    with tempfile.TemporaryDirectory() as passing:
        folder = (Path(passing) if request.dry_run else request.folder()) / MADE_BEFORE
        write_masks(folder, plan, {"mpp": mpp, "masks": settings.model_dump(mode="json")}, {})
        classes = f"data.dataset.class_map={folder / CLASSES}"
        yield replace(request, paths=(folder / MANIFEST,), overrides=(*request.overrides, classes))
