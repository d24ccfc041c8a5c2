"""Medical Segmentation Decathlon: ten tasks of CT and MRI volumes with masks, each with a `dataset.json`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lamella.errors import DatasetError
from lamella.imaging.datasets.collection import Collection, Item
from lamella.imaging.datasets.files import head_problems, stem_of
from lamella.imaging.datasets.item_files import ReadFiles
from lamella.imaging.datasets.layouts import Adapter
from lamella.imaging.datasets.mask_files import ReadMask
from lamella.imaging.datasets.problems import named
from lamella.imaging.datasets.settings import DatasetSettings
from lamella.imaging.datasets.soundness import sound

_FILE = "dataset.json"


@dataclass(frozen=True)
class _Task:
    """What dataset.json says."""

    name: str
    channels: tuple[str, ...]
    classes: dict[str, int]
    training: tuple[tuple[str, str], ...]
    test: tuple[str, ...]
    licence: str


def _fits(path: Path) -> bool:
    return path.name == _FILE or (path / _FILE).is_file()


def _open(path: Path, settings: DatasetSettings) -> Collection:
    table = path if path.name == _FILE else path / _FILE
    folder, task = table.parent, _task(table)
    items, problems = [], []
    for image, mask in task.training:
        problems += [f"there is no file {each}" for each in (image, mask) if not (folder / each).is_file()]
        name = stem_of(Path(image))
        items.append(Item(name, (folder / image,), group=name, mask=folder / mask))
    for image in task.test:
        problems += [f"there is no file {image}"] if not (folder / image).is_file() else []
        name = stem_of(Path(image))
        items.append(Item(name, (folder / image,), group=name))
    files = [file for item in items for file in (*item.sources, *([item.mask] if item.mask else []))]
    problems += head_problems([file for file in files if file.is_file()])
    notes = [f"{len(task.test)} case(s) of imagesTs have no public mask"] if task.test else []
    if extra := sorted(_unlisted(folder, items)):
        notes.append(f"{len(extra)} file(s) are not in {_FILE} and are left out: {named(extra, 3)}")
    # NIfTI cannot say that its values are Hounsfield units; dataset.json says CT.
    ct = task.channels == ("CT",)
    collection = Collection(
        name=task.name,
        kind="volume",
        items=tuple(items),
        read=ReadFiles("volume", task.channels, modality="CT" if ct else "MR", unit="HU" if ct else None),
        group_noun="case",
        read_mask=ReadMask("volume", task.classes),
        mask_classes=task.classes,
        origin=ADAPTER.origin,
        licence=task.licence or ADAPTER.licence,
        notes=tuple(notes),
    )
    return sound(table, collection, problems, splits=settings.splits)


def _unlisted(folder: Path, items: list[Item]) -> Iterator[str]:
    listed = {file.resolve() for item in items for file in (*item.sources, *([item.mask] if item.mask else []))}
    for place in ("imagesTr", "labelsTr", "imagesTs"):
        for file in (folder / place).glob("*.nii*") if (folder / place).is_dir() else ():
            if file.resolve() not in listed and not file.name.startswith("."):
                yield f"{place}/{file.name}"


def _task(path: Path) -> _Task:
    """Read and check `dataset.json`.

    Raises:
        DatasetError: It is no JSON, or not of this layout.
    """
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DatasetError(path, f"it cannot be read as JSON ({error})", "Download the task again.") from error
    if isinstance(tree, dict) and "channel_names" in tree:
        raise DatasetError(
            path, "this is nnU-Net's layout, with one file per channel", "Write a CSV with a column for each channel."
        )
    try:
        return _Task(
            name=str(tree.get("name") or path.parent.name),
            channels=tuple(str(name) for _, name in _numbered(tree["modality"])),
            classes={str(name): number for number, name in _numbered(tree["labels"]) if number != 0},
            training=tuple((str(pair["image"]), str(pair["label"])) for pair in tree["training"]),
            # A few copies list the test cases as pairs without a mask.
            test=tuple(str(each["image"] if isinstance(each, dict) else each) for each in tree.get("test", ())),
            licence=str(tree.get("licence") or tree.get("license") or ""),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DatasetError(
            path,
            f"it is not of the Decathlon's layout ({type(error).__name__}: {error})",
            "It needs modality, labels and training.",
        ) from error


def _numbered(names: dict[str, Any]) -> list[tuple[int, Any]]:
    return sorted((int(number), name) for number, name in names.items())


ADAPTER = Adapter(
    name="decathlon",
    title="Medical Segmentation Decathlon (10 tasks)",
    kind="volume",
    labels="masks: the classes of the task",
    group="case",
    layout="dataset.json, imagesTr/*.nii.gz, labelsTr/*.nii.gz, imagesTs/*.nii.gz",
    origin="http://medicaldecathlon.com",
    licence="CC BY-SA 4.0",
    uses=frozenset(),
    fits=_fits,
    open=_open,
)
