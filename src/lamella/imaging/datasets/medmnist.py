"""MedMNIST: small images or volumes of many kinds in one npz archive, with the authors' own split.

Source: Yang et al., MedMNIST v2, Scientific Data 2023; class names from `medmnist/info.py`, version 2.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lamella.errors import DatasetError
from lamella.imaging.datasets.archive import npz_array, npz_members
from lamella.imaging.datasets.collection import Collection, Item
from lamella.imaging.datasets.layouts import Adapter
from lamella.imaging.datasets.medmnist_classes import CUBE_MM, MULTI_LABEL, NAMES
from lamella.imaging.datasets.settings import DatasetSettings
from lamella.imaging.datasets.soundness import sound
from lamella.imaging.measured import MedicalImage, Volume

_SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class _Rows:
    """Reads rows counted through train, val and test."""

    path: Path
    starts: tuple[int, ...]
    spacing_mm: tuple[float, float, float] | None

    def __call__(self, item: Item) -> MedicalImage | Volume:
        part = max(index for index, start in enumerate(self.starts) if start <= (item.row or 0))
        values = npz_array(self.path, f"{_SPLITS[part]}_images")[(item.row or 0) - self.starts[part]]
        source = f"{self.path}, {item.item_id}"
        if self.spacing_mm is None:
            return MedicalImage(values.copy(), "byte", source=source)
        z, y, x = self.spacing_mm
        return Volume(values.astype(np.float32)[None], "byte", self.spacing_mm, np.diag([x, y, z, 1.0]), source=source)


def _fits(path: Path) -> bool:
    return path.suffix.lower() == ".npz"


def _open(path: Path, settings: DatasetSettings) -> Collection:
    members = npz_members(path)
    _refuse_members(path, members)
    flag = path.stem.split("_")[0].lower()  # pneumoniamnist_224
    shapes = [members[f"{split}_images"][0] for split in _SPLITS]
    volumes = len(shapes[0]) == 4 and shapes[0][-1] != 3
    labels = [_labels(path, split) for split in _SPLITS]
    multi_label = flag in MULTI_LABEL or labels[0].shape[1] > 1
    classes = _classes(path, flag, labels, settings, multi_label)
    items, problems = [], []
    starts = (0, len(labels[0]), len(labels[0]) + len(labels[1]))
    for split, start, of_split in zip(_SPLITS, starts, labels, strict=True):
        for index, values in enumerate(of_split):
            item_id = f"{split}-{index:06d}"
            names, problem = _named(values, classes, multi_label)
            if problem:
                problems.append(f"{item_id}: {problem}")
            items.append(Item(item_id, (path,), start + index, names, group=item_id, split=split))  # type: ignore[arg-type]
    spacing_mm, notes = _spacing_mm(flag, shapes[0], settings) if volumes else (None, [])
    if not volumes and settings.spacing_mm:
        raise DatasetError("dataset.spacing_mm", "these are images, not volumes", "Leave it out.")
    collection = Collection(
        name=flag,
        kind="volume" if volumes else "image",
        items=tuple(items),
        read=_Rows(path, starts, spacing_mm),
        classes=classes,
        multi_label=multi_label,
        origin=ADAPTER.origin,
        licence=ADAPTER.licence,
        notes=("which images are of one patient is not published: every image is its own group", *notes),
    )
    return sound(path, collection, problems, splits=settings.splits)


def _refuse_members(path: Path, members: dict[str, tuple[tuple[int, ...], np.dtype]]) -> None:
    """Six arrays, bytes, of equal shape and length."""
    wanted = [f"{split}_{what}" for split in _SPLITS for what in ("images", "labels")]
    missing = [name for name in wanted if name not in members]
    if missing:
        raise DatasetError(
            path,
            f"it has no array {', '.join(missing)} (it has {', '.join(members) or 'none'})",
            "A MedMNIST archive has images and labels of train, val and test.",
        )
    for split in _SPLITS:
        (shape, dtype), (label_shape, _) = members[f"{split}_images"], members[f"{split}_labels"]
        if dtype != np.uint8 or len(shape) not in (3, 4):
            raise DatasetError(path, f"{split}_images is {dtype} of shape {shape}, not bytes", "Download it again.")
        if shape[1:] != members["train_images"][0][1:] or 0 in shape[1:]:
            raise DatasetError(path, f"{split}_images has images of another size: {shape[1:]}", "Download it again.")
        if not label_shape or label_shape[0] != shape[0]:
            raise DatasetError(
                path, f"{split} has {shape[0]} images and labels of shape {label_shape}", "Download it again."
            )


def _labels(path: Path, split: str) -> np.ndarray:
    """(N, 1) or (N, classes) whole numbers."""
    values = npz_array(path, f"{split}_labels")
    if values.dtype.kind not in "iub":
        raise DatasetError(path, f"{split}_labels is {values.dtype}, not whole numbers", "Download it again.")
    return values.reshape(len(values), -1).astype(np.int64)


def _classes(
    path: Path, flag: str, labels: list[np.ndarray], settings: DatasetSettings, multi_label: bool
) -> tuple[str, ...]:
    widths = {values.shape[1] for values in labels}
    if len(widths) != 1:
        raise DatasetError(path, f"its splits have {sorted(widths)} labels each", "Download it again.")
    count = widths.pop() if multi_label else max(int(values.max(initial=0)) for values in labels) + 1
    if settings.classes:
        if multi_label and len(settings.classes) != count:
            raise DatasetError(
                "dataset.classes", f"{len(settings.classes)} names for {count} labels", "Name each label once."
            )
        return settings.classes
    return NAMES.get(flag) or tuple(str(number) for number in range(count))


def _named(values: np.ndarray, classes: tuple[str, ...], multi_label: bool) -> tuple[tuple[str, ...], str]:
    """The names of one row of labels, and what is wrong with it."""
    if multi_label:
        odd = sorted({int(value) for value in values} - {0, 1})
        if odd or len(values) != len(classes):
            return (), f"unknown label value {odd}" if odd else f"{len(values)} labels for {len(classes)} classes"
        return tuple(name for name, value in zip(classes, values, strict=True) if value), ""
    number = int(values[0])
    if not 0 <= number < len(classes):
        return (classes[0],), f"unknown label {number} (known: 0 to {len(classes) - 1})"
    return (classes[number],), ""


def _spacing_mm(
    flag: str, shape: tuple[int, ...], settings: DatasetSettings
) -> tuple[tuple[float, float, float], list[str]]:
    """The size of a voxel: as set, as published, or 1 mm, which is then said."""
    orientation = "the axes of a volume are taken as (z, y, x); the archive does not say them"
    if settings.spacing_mm:
        return settings.spacing_mm, [orientation]
    if flag in CUBE_MM:
        side_mm = CUBE_MM[flag] / shape[1]
        return (side_mm, side_mm, side_mm), [orientation]
    unknown = "the archive states no voxel size: 1 mm stands for one voxel (set spacing_mm if you know it)"
    return (1.0, 1.0, 1.0), [orientation, unknown]


ADAPTER = Adapter(
    name="medmnist",
    title="MedMNIST (2-D and 3-D)",
    kind="image or volume",
    labels="the classes of the chosen set; chestmnist is multi-label",
    group="image (patients are not published)",
    layout="one .npz with train_, val_ and test_ images and labels, e.g. pneumoniamnist.npz or pathmnist_224.npz",
    origin="https://medmnist.com (Zenodo record 10519652)",
    licence="CC BY 4.0, DermaMNIST CC BY-NC 4.0; see https://medmnist.com",
    uses=frozenset({"classes", "spacing_mm"}),
    fits=_fits,
    open=_open,
)
