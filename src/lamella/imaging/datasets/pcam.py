"""PatchCamelyon: 96 x 96 patches of lymph nodes, with or without tumour in their middle. Original and Kaggle layout.

Source: Veeling et al. 2018, from Camelyon16. Kaggle's version is the same without the repeated patches.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lamella.imaging.datasets.archive import h5_all, h5_array, h5_row
from lamella.imaging.datasets.collection import Collection, Item
from lamella.imaging.datasets.files import by_name, head_problems
from lamella.imaging.datasets.item_files import ReadFiles
from lamella.imaging.datasets.layouts import Adapter
from lamella.imaging.datasets.metadata import has_columns, refuse_columns, rows_of
from lamella.imaging.datasets.problems import named
from lamella.imaging.datasets.settings import DatasetSettings
from lamella.imaging.datasets.soundness import sound
from lamella.imaging.datasets.split_words import split_of
from lamella.imaging.measured import MedicalImage

CLASSES = ("normal", "tumor")
_STEM = "camelyonpatch_level_2_split_"
_SPLITS = ("train", "valid", "test")
_UNTIED = "slides are not named: every patch is its own group, so patches of one slide may be torn apart"


@dataclass(frozen=True)
class _ReadPatch:
    """A row of an HDF5 file."""

    def __call__(self, item: Item) -> MedicalImage:
        values = h5_row(item.sources[0], "x", item.row or 0)
        return MedicalImage(values, "byte", source=f"{item.sources[0]}, row {item.row}")


def _fits(path: Path) -> bool:
    if not path.is_dir():
        return False
    return has_columns(path / "train_labels.csv", ("id", "label")) or any(path.glob(f"{_STEM}*_x.h5*"))


def _open(path: Path, settings: DatasetSettings) -> Collection:
    return _open_h5(path, settings) if any(path.glob(f"{_STEM}*_x.h5*")) else _open_kaggle(path, settings)


def _open_h5(path: Path, settings: DatasetSettings) -> Collection:
    items: list[Item] = []
    problems = [f"{packed.name} is still packed: gunzip it" for packed in sorted(path.glob(f"{_STEM}*.h5.gz"))]
    untied = []
    for split in _SPLITS:
        images, labels = path / f"{_STEM}{split}_x.h5", path / f"{_STEM}{split}_y.h5"
        if not images.is_file() and not labels.is_file():
            continue
        missing = [f"{each.name} is missing" for each in (images, labels) if not each.is_file()]
        if missing:
            problems += missing
            continue
        shape, dtype = h5_array(images, "x")
        values = h5_all(labels, "y").reshape(-1)
        if dtype != np.uint8 or len(shape) != 4 or shape[-1] != 3 or len(values) != shape[0]:
            problems.append(f"{images.name} is {dtype} of shape {shape}, with {len(values)} labels")
            continue
        slides, wrong = _slides(path / f"{_STEM}{split}_meta.csv", len(values))
        problems += wrong
        if not slides and not wrong:
            untied.append(split)
        for row, value in enumerate(values.tolist()):
            item_id = f"{split}-{row:06d}"
            label = CLASSES[value] if value in (0, 1) else str(value)
            group = slides[row] if slides else item_id
            items.append(Item(item_id, (images,), row, (label,), group=group, split=split_of(split)))
    notes = [f"{' and '.join(untied)}: no _meta.csv, so {_UNTIED}"] if untied else []
    collection = _collection(items, _ReadPatch(), "slide" if len(untied) < len(_SPLITS) else "patch", notes)
    return sound(path, collection, problems, splits=settings.splits)


def _slides(path: Path, count: int) -> tuple[list[str], list[str]]:
    """The slide of each row, and what is wrong; nothing of both if there is no such table."""
    if not path.is_file():
        return [], []
    rows = rows_of(path)
    refuse_columns(path, rows, ("wsi",))
    if len(rows) != count:
        return [], [f"{path.name} has {len(rows)} rows for {count} patches"]
    empty = [index for index, row in enumerate(rows) if not row["wsi"]]
    if empty:
        return [], [f"{path.name} names no slide in {len(empty)} row(s), first in row {empty[0]}"]
    moved = [index for index, row in enumerate(rows) if row.get("", str(index)) != str(index)]
    if moved:
        return [], [f"{path.name} is in another order than the patches, from row {moved[0]} on"]
    return [row["wsi"] for row in rows], []


def _open_kaggle(path: Path, settings: DatasetSettings) -> Collection:
    table = path / "train_labels.csv"
    rows = rows_of(table)
    refuse_columns(table, rows, ("id", "label"))
    files, problems = by_name([path / "train"] if (path / "train").is_dir() else [], (".tif", ".tiff"))
    if not files:
        problems.append("there is no train/*.tif")
    items = []
    for row in rows:
        patch = row["id"]
        if patch not in files:
            problems.append(f"{patch}: there is no train/{patch}.tif")
            continue
        label = {"0": CLASSES[0], "1": CLASSES[1]}.get(row["label"], row["label"])
        items.append(Item(patch, (files[patch],), labels=(label,), group=patch))
    notes = [f"Kaggle's files do not say the slide: {_UNTIED}"]
    extra = sorted(set(files) - {row["id"] for row in rows})
    if extra:
        notes.append(
            f"{len(extra)} patch(es) of train/ are not in train_labels.csv and are left out: {named(extra, 3)}"
        )
    if (path / "test").is_dir():
        tests, wrong = by_name([path / "test"], (".tif", ".tiff"))
        problems += wrong
        items += [Item(patch, (file,), group=patch) for patch, file in tests.items()]
        notes.append(f"{len(tests)} patch(es) of test/ have no public label: unlabelled")
    problems += head_problems([item.sources[0] for item in items])
    return sound(path, _collection(items, ReadFiles("image"), "patch", notes), problems, splits=settings.splits)


def _collection(items: list[Item], read: _ReadPatch | ReadFiles, noun: str, notes: list[str]) -> Collection:
    return Collection(
        name=ADAPTER.name,
        kind="image",
        items=tuple(items),
        read=read,
        classes=CLASSES,
        group_noun=noun,
        origin=ADAPTER.origin,
        licence=ADAPTER.licence,
        notes=tuple(notes),
    )


ADAPTER = Adapter(
    name="pcam",
    title="PatchCamelyon",
    kind="image",
    labels="2: normal, tumor (in the middle 32 x 32 pixels)",
    group="slide (wsi of _meta.csv); Kaggle's copy names none: patch",
    layout="camelyonpatch_level_2_split_{train,valid,test}_{x.h5,y.h5,meta.csv}; or train_labels.csv, train/*.tif",
    origin="https://github.com/basveeling/pcam or https://www.kaggle.com/c/histopathologic-cancer-detection",
    licence="CC0 1.0 (Camelyon16); Kaggle's copy under the competition's rules",
    uses=frozenset(),
    fits=_fits,
    open=_open,
)
