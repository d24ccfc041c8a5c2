"""Writes annotations as a data set: images, masks, a class map, and a manifest that `lamella adapt` takes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from lamella.data.drawn import BACKGROUND, EVERYBODY
from lamella.data.drawn_masks import drawn_mask
from lamella.engine.rundir import claim
from lamella.errors import LamellaError
from lamella.formats.atomic import whole_file, write_text
from lamella.formats.digests import file_digest
from lamella.formats.label_values import NOT_LABELLED
from lamella.formats.tables import write_csv
from lamella.slides.slide import Slide
from lamella.verbs.annotated.planning import Plan, Work
from lamella.verbs.progress import progress

MANIFEST, CLASSES = "manifest.csv", "classes.yaml"
_COLUMNS = ("image", "mask", "slide", "patient", "author", "mpp", "x_px0", "y_px0", "width_px0", "height_px0")
_MM2_PER_UM2 = 1e-6


@dataclass
class _Areas:
    """What a reader of the data set must know, in square micrometres."""

    classes: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    overlaps: dict[tuple[str, str], float] = field(default_factory=lambda: defaultdict(float))


def write_masks(out: Path, plan: Plan, tree: Mapping[str, Any], origins: Mapping[str, str]) -> None:
    """Write the data set; the manifest comes last and says that it is complete.

    Args:
        out: Its folder.
        plan: What to write.
        tree: The settings, as they are kept in the folder.
        origins: Where they come from.

    Raises:
        OutputConflictError: The folder holds other masks: the annotations were changed since.
        LamellaError: A slide cannot be read, or is not the one that was drawn on, or no pixel of an image is labelled.
        StorageError: The disk refused the write.
    """
    inputs = {f"{work.subfolder}/{work.author}": file_digest(work.file) for work in plan.works}
    inputs |= {f"patient of {work.subfolder}": work.slide.patient for work in plan.works if work.slide.patient}
    claimed = claim(out, tree, origins, verb="convert", ignore=("masks.slides",), inputs=inputs)
    if claimed.resumed and (out / MANIFEST).is_file():
        print(f"the masks of {plan.source} are in {out} already")
        return
    rows: list[dict[str, Any]] = []
    areas = _Areas()
    for work in progress(plan.works, "masks"):
        if work.boxes:
            with work.open() as slide:
                rows += _images(out, plan, work, slide, areas)
    if not rows:
        raise LamellaError(plan.source, "nothing that was drawn lies on its slide", "Draw on the tissue.")
    columns = [name for name in _COLUMNS if name != "patient" or any(work.slide.patient for work in plan.works)]
    write_text(out / CLASSES, yaml.safe_dump(class_tree(plan.values), sort_keys=False, allow_unicode=True))
    write_csv(out / MANIFEST, ({name: row[name] for name in columns} for row in rows), columns)
    print("\n".join(_told(out, plan, rows, areas)))


def class_tree(values: Mapping[str, int]) -> dict[str, Any]:
    """A class map of such masks, as its YAML holds it."""
    classes = {name: {"id": value, "values": [value]} for name, value in values.items() if name != BACKGROUND}
    tree: dict[str, Any] = {"name": "annotations", "classes": classes, "ignore": [NOT_LABELLED]}
    if BACKGROUND in values:
        known = [0, *(value for value in values.values() if value), NOT_LABELLED]
        tree |= {"rest": "background", "rest_name": BACKGROUND, "known": known}
    return tree


def _images(out: Path, plan: Plan, work: Work, slide: Slide, areas: _Areas) -> Iterator[dict[str, Any]]:
    """Write the images and masks of one author on one slide; their rows of the manifest."""
    names = {value: name for name, value in plan.values.items()}
    smaller_wins = plan.settings.overlaps == "smaller"
    for box in work.boxes:
        pixels = slide.read(box, work.mpp).pixels
        height, width = pixels.shape[:2]
        mask, overlaps = drawn_mask(work.drawn, box, (width, height), plan.values, smaller_wins=smaller_wins)
        if (mask == NOT_LABELLED).all():
            continue  # a cell of a large region that its outline does not reach
        pixel_um2 = slide.frame.box_um(box).area / (width * height)
        for value, count in zip(*np.unique(mask[mask != NOT_LABELLED], return_counts=True), strict=True):
            areas.classes[names[int(value)]] += int(count) * pixel_um2
        for pair, count in overlaps.items():
            areas.overlaps[pair] += count * pixel_um2
        stem = f"{work.subfolder}_x{box.x0:.0f}_y{box.y0:.0f}_w{box.width:.0f}_h{box.height:.0f}"
        if plan.settings.author == EVERYBODY:
            stem += f"_{work.author}"
        files = {"image": f"images/{stem}.png", "mask": f"masks/{stem}.png"}
        for key, array in (("image", pixels), ("mask", mask)):
            with whole_file(out / files[key]) as part:
                Image.fromarray(array).save(part, format="PNG", compress_level=1)
        place = {"x_px0": box.x0, "y_px0": box.y0, "width_px0": box.width, "height_px0": box.height}
        yield {
            **files,
            "slide": work.slide.name,
            "patient": work.slide.patient or work.slide.name,
            "author": work.author,
            "mpp": f"{work.mpp:.6g}",
            **{name: f"{number:.0f}" for name, number in place.items()},
        }


def _told(out: Path, plan: Plan, rows: Sequence[Mapping[str, Any]], areas: _Areas) -> Iterator[str]:
    slides = {work.slide.name for work in plan.works}
    authors = sorted({work.author for work in plan.works})
    yield f"wrote {_count(len(rows), 'image')} of {_count(len(slides), 'slide')} to {out}, by {', '.join(authors)}"
    yield "labelled: " + ", ".join(
        f"{name} {areas.classes.get(name, 0.0) * _MM2_PER_UM2:.4g} mm2" for name in plan.values
    )
    for (one, other), area in sorted(areas.overlaps.items()):
        fate = "the smaller object counts" if plan.settings.overlaps == "smaller" else "not labelled"
        yield f"{one} and {other} overlap on {area * _MM2_PER_UM2:.4g} mm2: {fate} (masks.overlaps)"
    passed_over: Counter[str] = Counter()
    for work in plan.works:
        passed_over.update(work.drawn.passed_over)
    for kind, count in sorted(passed_over.items()):
        yield f"{count} object(s) of {kind} have no area and are in no mask"
    if BACKGROUND not in plan.values:
        yield "no Region was drawn: what no object covers is not labelled, and no background is learned"
    if not any(work.slide.patient for work in plan.works):
        yield "no patients are known: each slide is a group of its own (--index INDEX names them)"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
