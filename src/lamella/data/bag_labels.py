"""Split, labels and groups brought onto slides: whatever name a file uses, it means one slide or it is refused."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from lamella.data.bag_slides import Listed, SlideNames
from lamella.data.bags import Part
from lamella.errors import DatasetError, LamellaError
from lamella.formats.label_csv import LabelFormat, Labels, label_reader, read_labels
from lamella.formats.split_csv import part_of, read_split
from lamella.imaging.datasets.problems import named

SPLIT, LABEL = "split", "label"


def parts_of(path: Path | None, names: SlideNames[Listed], problems: list[str]) -> dict[str, Part] | None:
    """slide_id -> part, by the split CSV, else by the manifest's column `split`; None: there is no split.

    A slide that stands in two parts, under one name or two, is a problem, and so is a name of no slide.
    """
    found: dict[str, Part] = {}
    for name, part in _stated_parts(path, names, problems):
        try:
            slide_id = names[name].slide_id
        except LamellaError as error:
            problems.append(f"{path}: {error}")
            continue
        if found.setdefault(slide_id, part) != part:
            also = "" if name == slide_id else f" (as {name})"
            problems.append(f"{path or 'split'}: slide {slide_id}{also} stands in {found[slide_id]} and in {part}")
    return found if found or path is not None else None


def _stated_parts(path: Path | None, names: SlideNames[Listed], problems: list[str]) -> list[tuple[str, Part]]:
    if path is not None:
        try:
            return list(read_split(path))
        except LamellaError as error:
            problems.append(str(error))
            return []
    found: list[tuple[str, Part]] = []
    for slide in names.slides:
        word = slide.metadata.get(SPLIT, "")
        part = part_of(word)
        if part is not None:
            found.append((slide.slide_id, part))
        elif word:
            problems.append(
                f"slide {slide.slide_id}: {word!r} in the column {SPLIT} is no part; write train, val or test"
            )
    return found


def labels_of(
    path: Path | None,
    names: SlideNames[Listed],
    classes: Sequence[str],
    background: str | None,
    label_format: LabelFormat | None,
    problems: list[str],
    notes: list[str],
) -> dict[str, Labels]:
    """slide_id -> labels, by the labels CSV, else by the manifest's columns; slides without labels are left out."""
    try:
        if path is None:
            return _of_manifest(names, classes, background, label_format, problems)
        rows = read_labels(path, classes, background, label_format)
    except LamellaError as error:
        problems.append(str(error))
        return {}
    problems += rows.problems
    found: dict[str, Labels] = {}
    strange: list[str] = []
    for name, labels in rows.labels:
        try:
            slide = names.get(name)
        except DatasetError as error:
            problems.append(f"{path}: {error}")
            continue
        if slide is None:
            strange.append(name)
        elif labels is not None and found.setdefault(slide.slide_id, labels) != labels:
            problems.append(f"{path}: slide {slide.slide_id} is labelled twice, and differently")
    if strange:
        notes.append(f"{path}: {len(strange)} labels are of no slide that was given ({named(strange, 3)})")
    return found


def _of_manifest(
    names: SlideNames[Listed],
    classes: Sequence[str],
    background: str | None,
    label_format: LabelFormat | None,
    problems: list[str],
) -> dict[str, Labels]:
    rows = {slide.slide_id: slide.metadata for slide in names.slides}
    columns = {name for row in rows.values() for name in row}
    if LABEL not in columns and not columns & set(classes):
        return {}
    read = label_reader("manifest", list(rows.values()), classes, background, label_format)
    found: dict[str, Labels] = {}
    for slide_id, row in rows.items():
        try:
            labels = read(row)
        except ValueError as error:
            problems.append(f"slide {slide_id}: {error}")
            continue
        if labels is not None:
            found[slide_id] = labels
    return found


def groups_by_column(slides: Iterable[Listed], column: str | None, problems: list[str]) -> tuple[dict[str, str], str]:
    """slide_id -> group, and what a group is called; the slide itself where nothing is known."""
    slides = tuple(slides)
    chosen = column or "patient"
    if column is not None and not any(slide.metadata.get(column) for slide in slides):
        problems.append(f"data.group_column: no slide has a column {column!r}")
    groups = {slide.slide_id: slide.metadata.get(chosen) or slide.slide_id for slide in slides}
    named_ones = sum(bool(slide.metadata.get(chosen)) for slide in slides)
    return groups, "slide" if not named_ones else chosen if named_ones == len(slides) else "group"


def shared_groups(groups: Mapping[str, str], parts: Mapping[str, Part], noun: str) -> list[str]:
    """Groups that stand in two parts of the split, a line each: what was learned of one part is known in the other."""
    held: dict[str, dict[Part, str]] = defaultdict(dict)
    for slide_id, part in parts.items():
        held[groups[slide_id]].setdefault(part, slide_id)
    return [
        f"{noun} {group} stands in {' and in '.join(f'{part} ({slide})' for part, slide in by_part.items())}"
        for group, by_part in held.items()
        if len(by_part) > 1 and noun != "slide"
    ]
