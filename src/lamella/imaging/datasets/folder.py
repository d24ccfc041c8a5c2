"""Any folder: one subfolder per class, parts (train, val, test) of such, images beside masks, or unlabelled files."""

from __future__ import annotations

import re
from pathlib import Path

from lamella.errors import DatasetError
from lamella.imaging.datasets.collection import Collection, Item
from lamella.imaging.datasets.files import head_problems, stem_of
from lamella.imaging.datasets.folder_files import Found, find_files
from lamella.imaging.datasets.item_files import ReadFiles, refuse_mpp
from lamella.imaging.datasets.kinds import kind_of_all
from lamella.imaging.datasets.layouts import Adapter
from lamella.imaging.datasets.mask_files import mask_facts
from lamella.imaging.datasets.problems import named, refuse
from lamella.imaging.datasets.settings import DatasetSettings
from lamella.imaging.datasets.soundness import sound
from lamella.imaging.datasets.split_words import split_of

_REMEDY = "Correct the folder; nothing is left out in silence."
_IMAGES, _MASKS = "images", "masks"


def _fits(path: Path) -> bool:
    return path.is_dir()


def _open(path: Path, settings: DatasetSettings) -> Collection:
    if not path.is_dir():
        raise DatasetError(path, "it is no folder", "Give a folder.")
    if settings.label not in (None, "folder", "none"):
        raise DatasetError("dataset.label", f"a folder has no column {settings.label!r}", "Set label=folder or none.")
    found = find_files(path, settings.kind)
    refuse(path, [*found.problems, *head_problems(found.items)], _REMEDY)
    if not found.items:
        raise DatasetError(path, "there is no image, volume or video in it", "Give the folder that holds the files.")
    masks, problems = _masks(path, found)
    places = [_parts(path, item) for item in found.items]
    in_parts = all(len(parts) > 1 and split_of(parts[0]) for parts in places)
    labelled = not masks and _labelled(path, [parts[in_parts:] for parts in places], settings)
    items = []
    for source, parts, item_id in zip(
        found.items, places, _ids(path / _IMAGES if masks and not in_parts else path, found.items), strict=True
    ):
        group, problem = _group(source, item_id, path, found, settings)
        problems += problem
        items.append(
            Item(
                item_id=item_id,
                sources=(source,),
                labels=(parts[in_parts],) if labelled else None,
                group=group,
                split=split_of(parts[0]) if in_parts else None,
                mask=masks.get(source),
                mpp=settings.mpp,
            )
        )
    refuse(path, problems, _REMEDY)
    kind = kind_of_all(path, found.items, settings)
    refuse_mpp(path, kind, settings)
    labels = {label for item in items for label in item.labels or ()}
    grouped = "patient" if found.patients else "group" if settings.group_pattern else kind
    collection = Collection(
        name=path.absolute().name,
        kind=kind,
        items=tuple(items),
        read=ReadFiles(kind, fourth=settings.stated_fourth),
        classes=settings.classes or tuple(sorted(labels)),
        group_noun=settings.group_noun or grouped,
        **mask_facts(kind, settings, masked=bool(masks)),
        origin=f"your own: {path}",
        licence="as its owner says",
        notes=tuple(_notes(found, items, settings)),
    )
    return sound(path, collection, splits=settings.splits, remedy=_REMEDY)


def _parts(path: Path, item: Path) -> tuple[str, ...]:
    """Folders and name below `path`; where that is one series itself, its own name."""
    return item.relative_to(path).parts or (path.name,)


def _masks(path: Path, found: Found) -> tuple[dict[Path, Path], list[str]]:
    """Image -> mask if the folder, or each part of it, holds `images` and `masks`; masks are taken out of the items."""
    pairs = {item: _pair(_parts(path, item)) for item in found.items}
    if {top for top, _ in pairs.values()} != {_IMAGES, _MASKS}:
        return {}, []
    masks: dict[str, Path] = {}
    problems = []
    for item, (top, name) in pairs.items():
        if top == _MASKS and masks.setdefault(name, item) != item:
            problems.append(f"{masks[name].name} and {item.name} are both the mask of {name}")
    found.items = [item for item in found.items if pairs[item][0] == _IMAGES]
    of_image = {item: masks[pairs[item][1]] for item in found.items if pairs[item][1] in masks}
    problems += [f"{item.name} has no mask of its name" for item in found.items if item not in of_image]
    used = set(of_image.values())
    return of_image, [
        *problems,
        *(f"{mask.name} has no image of its name" for mask in masks.values() if mask not in used),
    ]


def _pair(parts: tuple[str, ...]) -> tuple[str, str]:
    """(images or masks, what an image shares with its mask): train/images/a.png gives (images, train/a)."""
    part = parts[:1] if len(parts) > 2 and split_of(parts[0]) else ()
    top, *below = parts[len(part) :]
    return top, "/".join((*part, *below[:-1], *(stem_of(Path(name)) for name in below[-1:])))


def _labelled(path: Path, places: list[tuple[str, ...]], settings: DatasetSettings) -> bool:
    """Whether the first folder names the class."""
    if settings.label == "none":
        return False
    depths = {len(parts) for parts in places}
    classes = sorted({parts[0] for parts in places if len(parts) > 1})
    if settings.label == "folder":
        loose = ["/".join(parts) for parts in places if len(parts) == 1]
        refuse(path, [f"{name} lies in no class folder" for name in loose], _REMEDY)
        return True
    if depths == {1}:
        return False
    if depths == {2} and len(classes) > 1:
        return True
    what = (
        f"all files lie in one folder, {classes[0]}"
        if len(classes) == 1 and depths == {2}
        else "some files lie in subfolders and some beside or deeper"
    )
    raise DatasetError(
        path,
        f"it is not clear whether its folders ({named(classes)}) are classes: {what}",
        "Set label=folder (the first folder is the class) or label=none (unlabelled).",
    )


def _ids(path: Path, sources: list[Path]) -> list[str]:
    """Paths below the folder, without suffixes where they stay unique."""
    whole = [source.relative_to(path).as_posix() for source in sources]
    if len(sources) == 1 and sources[0] == path:
        return [path.name]
    short = [
        name[: len(name) - len(source.name) + len(stem_of(source))] if source.is_file() else name
        for name, source in zip(whole, sources, strict=True)
    ]
    return short if len(set(short)) == len(short) else whole


def _group(source: Path, item_id: str, path: Path, found: Found, settings: DatasetSettings) -> tuple[str, list[str]]:
    if settings.group_pattern is None:
        return found.patients.get(source, item_id), []
    place = source.relative_to(path).as_posix()
    match = re.search(settings.group_pattern, place)
    if match is None or not match.groups() or not match[1]:
        return item_id, [f"{place} does not match group_pattern, or it has no bracket"]
    return match[1], []


def _notes(found: Found, items: list[Item], settings: DatasetSettings) -> list[str]:
    notes = []
    if found.beside:
        notes.append(
            f"{len(found.beside)} file(s) that are no images were passed over: "
            f"{named([each.name for each in found.beside], 3)}"
        )
    if settings.group_pattern is None:
        alone = sum(item.group == item.item_id for item in items)
        if alone:
            notes.append(f"{alone} item(s) are groups of their own: set group_pattern if file names tell the patient")
    if found.patients and settings.group_pattern is None:
        notes.append("patients are told apart by the DICOM PatientID (hashed)")
    return notes


ADAPTER = Adapter(
    name="folder",
    title="any folder",
    kind="image, volume or video",
    labels="the first subfolder (label=folder), or none (label=none)",
    group="first bracket of group_pattern in the path; DICOM: PatientID; else the item",
    layout="class/file, train/class/file, images/ beside masks/, or files; a folder of DICOM slices is one volume",
    origin="your own",
    licence="as its owner says",
    uses=frozenset(
        {"kind", "fourth", "label", "classes", "group_pattern", "group_noun", "mask_classes", "class_map", "mpp"}
    ),
    fits=_fits,
    open=_open,
)
