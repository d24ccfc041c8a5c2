"""What must hold for a study, and what a reader of its results must know."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from lamella.data.bag_slides import OpenedSlide
from lamella.data.bags import Bag, LabelsAre, Part
from lamella.formats.digests import ends_digest, file_digest


def name_problems(classes: Sequence[str], background: str | None) -> Iterator[str]:
    """Names of classes must differ, and become names of files."""
    names = [*classes, *([] if background is None else [background])]
    for name, count in Counter(names).items():
        if count > 1:
            yield f"class_order: {name!r} stands twice (the background's name counts too)"
        if not name or name != name.strip() or name.startswith(".") or set(name) & set("/\\\0"):
            yield f"class_order: {name!r} cannot be a file name: leave out slashes, outer blanks and leading dots"


def copied_slides(slides: Sequence[OpenedSlide], of: Mapping[str, str]) -> Iterator[str]:
    """Slides of two parts (or groups) whose files are the same: what was learned of one is known of the other.

    Args:
        slides: Of the study.
        of: slide_id -> part of the split, or group where there is no split: folds are made of groups.
    """
    by_size: dict[int, list[OpenedSlide]] = defaultdict(list)
    for slide in slides:
        if slide.wsi_path.is_file():
            by_size[slide.wsi_path.stat().st_size].append(slide)
    for alike in by_size.values():
        if len({of[slide.slide_id] for slide in alike}) > 1:  # only then is anything read
            yield from _copies(alike, of)


def _copies(slides: Sequence[OpenedSlide], of: Mapping[str, str]) -> Iterator[str]:
    """Of files of one size: by their ends first, and as a whole where these are alike."""
    by_ends: dict[str, list[OpenedSlide]] = defaultdict(list)
    for slide in slides:
        by_ends[ends_digest(slide.wsi_path)].append(slide)
    for alike in by_ends.values():
        first: dict[str, OpenedSlide] = {}
        for slide in alike if len(alike) > 1 else ():
            twin = first.setdefault(file_digest(slide.wsi_path), slide)
            if of[twin.slide_id] != of[slide.slide_id]:
                here, there = of[slide.slide_id], of[twin.slide_id]
                yield f"slide {slide.slide_id} of {here} is a copy of {twin.slide_id} of {there}"


def label_problems(bags: Sequence[Bag], labels_are: LabelsAre) -> Iterator[str]:
    """Who is learned from has a label; where labels are of patches, of each tile."""
    for bag in bags:
        # It is judged then, not learned from; labels of test slides are an oracle.
        judged_only = bag.part == "test" or (bag.part is None and bag.mask_path is not None)
        if bag.labels is None and not judged_only:
            yield f"slide {bag.slide_id}{f' of {bag.part}' if bag.part else ''} has no label"
        learned = bag.labels is not None and bag.part in ("train", None)
        if learned and labels_are == "patch" and bag.tile_labels is None:
            yield (
                f"slide {bag.slide_id} has {len(bag)} tiles and one label, but labels are of patches: give a table of "
                "tiles with labels, make it one tile (data.tile_px), or set data.labels_are=slide"
            )


def class_problems(bags: Sequence[Bag], classes: Sequence[str]) -> Iterator[str]:
    """A class that no training slide has cannot be learned."""
    training = [bag.labels for bag in bags if bag.part in ("train", None) and bag.labels is not None]
    for number, name in enumerate(classes):
        if not any(labels[number] for labels in training):
            yield f"class {name}: no training slide has it"


def class_notes(bags: Sequence[Bag], classes: Sequence[str]) -> Iterator[str]:
    """Classes that a part of the split says nothing of, or nothing else."""
    by_part: dict[Part | None, list[tuple[int, ...]]] = defaultdict(list)
    for bag in bags:
        if bag.labels is not None:
            by_part[bag.part].append(bag.labels)
    for part, labelled in by_part.items():
        for number, name in enumerate(classes):
            holding = sum(labels[number] for labels in labelled)
            if part in ("train", None) and holding == len(labelled):
                yield f"class {name}: every training slide has it, and none shows its absence"
            elif part in ("val", "test") and not holding:
                yield f"class {name}: no slide of {part} has it; there is no score of it by {part} labels"


def truth_notes(bags: Sequence[Bag], folder: Path | None) -> Iterator[str]:
    """Slides that should be judged and cannot be."""
    without = [bag.slide_id for bag in bags if bag.part == "test" and bag.mask_path is None]
    if folder is not None and without:
        yield f"{folder}: {len(without)} test slides have no mask and are not judged with one (first: {without[0]})"


def edge_notes(bags: Sequence[Bag], fov_um: float) -> Iterator[str]:
    """Tiles that reach over the edge: what lies beyond is white glass, and is not judged."""
    over = 0
    for bag in bags:
        side = (fov_um / bag.frame.mpp_x, fov_um / bag.frame.mpp_y)
        # Half a level-0 pixel is rounding of corners and spacings.
        last = (bag.frame.width_px + 0.5, bag.frame.height_px + 0.5)
        over += int(((bag.corners_px0 < -0.5) | (bag.corners_px0 + side > last)).any(axis=1).sum())
    if over:
        yield f"{over} tiles reach over the edge of their slides; what lies beyond is read as white and is not judged"
