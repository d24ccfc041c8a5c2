"""PanNuke: 256 x 256 patches of 19 tissues with nuclei of five kinds, as arrays of folds.

Gamper et al., "PanNuke: an open pan-cancer histology dataset for nuclei instance segmentation and classification",
2019. A fold is images.npy (N, 256, 256, 3) and masks.npy (N, 256, 256, 6): in each of the first five channels the
numbers of the nuclei of a kind, in the last what is no nucleus. The semantic mask is made of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lamella.errors import DatasetError, ImageError, first_line
from lamella.formats.label_values import NOT_LABELLED
from lamella.imaging.datasets.collection import Collection, Item
from lamella.imaging.datasets.item_files import spaced
from lamella.imaging.datasets.layouts import Adapter
from lamella.imaging.datasets.settings import DatasetSettings
from lamella.imaging.datasets.soundness import sound
from lamella.imaging.measured import MedicalImage

CLASSES = {"neoplastic": 1, "inflammatory": 2, "connective": 3, "dead": 4, "epithelial": 5}
_MPP = 0.25  # 40x, as the paper states
# As it is unpacked (Fold 1/images/fold1/images.npy), one fold of it, and folds side by side.
_PLACES = ("images.npy", "images/*/images.npy", "[Ff]old*/images.npy", "[Ff]old*/images/*/images.npy")


def _rows(path: Path) -> np.ndarray:
    """An array whose rows are read from disk when they are asked for."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DatasetError(path, f"it is no array ({first_line(error)})", "Download it again.") from error


@dataclass(frozen=True)
class _ReadPatch:
    """A row of images.npy."""

    def __call__(self, item: Item) -> MedicalImage:
        values = np.asarray(_rows(item.sources[0])[item.row or 0])
        if values.dtype != np.uint8:  # PanNuke stores bytes as float64
            if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 255):
                raise ImageError(f"{item.sources[0]}, row {item.row}", "its values are no bytes", "Download it again.")
            values = np.rint(values).astype(np.uint8)
        return spaced(MedicalImage(values, "byte", source=f"{item.sources[0]}, row {item.row}"), item)


@dataclass(frozen=True)
class _ReadNuclei:
    """A row of masks.npy as classes. A pixel of two kinds, or of none and no background, is not labelled."""

    def __call__(self, item: Item) -> np.ndarray:
        if item.mask is None:
            raise ImageError(item.item_id, "it has no mask", "Leave it out where masks are needed.")
        is_kind = np.asarray(_rows(item.mask)[item.row or 0]) > 0
        *kinds, background = np.moveaxis(is_kind, -1, 0)
        mask = np.full(is_kind.shape[:2], NOT_LABELLED, np.int32)
        mask[background] = 0
        for value, kind in enumerate(kinds, start=1):
            mask[kind] = value
        mask[is_kind.sum(-1) > 1] = NOT_LABELLED
        return mask


def _fits(path: Path) -> bool:
    return path.is_dir() and bool(_folds(path))


def _folds(path: Path) -> list[tuple[Path, Path]]:
    """(images.npy, masks.npy) of each fold: side by side, or in images/foldN and masks/foldN."""
    found = []
    for pattern in _PLACES:
        for images in sorted(path.glob(pattern)):
            beside = images.with_name("masks.npy")
            apart = Path(*("masks" if part == "images" else part for part in images.parent.parts), "masks.npy")
            masks = next((each for each in (beside, apart) if each.is_file()), None)
            if masks is not None:
                found.append((images, masks))
    return found


def _open(path: Path, settings: DatasetSettings) -> Collection:
    folds = _folds(path) if path.is_dir() else []
    if not folds:
        raise DatasetError(path, "there is no images.npy with its masks.npy", "Unpack a fold of PanNuke.")
    items: list[Item] = []
    problems: list[str] = []
    for number, (images, masks) in enumerate(folds, start=1):
        shape, mask_shape = _rows(images).shape, _rows(masks).shape
        if len(shape) != 4 or shape[-1] != 3 or mask_shape != (*shape[:3], len(CLASSES) + 1):
            problems.append(
                f"{images}: its shape is {shape} and that of its masks {mask_shape}, "
                "where (N, 256, 256, 3) and (N, 256, 256, 6) are wanted"
            )
            continue
        tissues, wrong = _tissues(images.with_name("types.npy"), shape[0])
        problems += wrong
        name = images.parent.name if len({each.parent.name for each, _ in folds}) == len(folds) else f"fold{number}"
        items += [
            Item(
                f"{name}-{row:05d}",
                (images,),
                row=row,
                labels=(tissues[row],) if tissues else None,
                group=f"{name}-{row:05d}",
                mask=masks,
                mpp=settings.mpp or _MPP,
            )
            for row in range(shape[0])
        ]
    collection = Collection(
        name=ADAPTER.name,
        kind="image",
        items=tuple(items),
        read=_ReadPatch(),
        classes=tuple(sorted({label for item in items for label in item.labels or ()})),
        group_noun="patch",
        read_mask=_ReadNuclei(),
        mask_classes=dict(CLASSES),
        origin=ADAPTER.origin,
        licence=ADAPTER.licence,
        notes=(
            "patients are not published: every patch is its own group, so patches of one slide may be torn apart",
            "a pixel of two kinds of nuclei, or of none and no background, is not labelled",
        ),
    )
    return sound(path, collection, problems, splits=settings.splits)


def _tissues(path: Path, count: int) -> tuple[list[str], list[str]]:
    """The tissue of each patch, and what is wrong; nothing of both where there is no such file."""
    if not path.is_file():
        return [], []
    types = _rows(path)
    if types.shape != (count,) or types.dtype.kind not in "US":
        return [], [f"{path} is {types.dtype} of shape {types.shape}, not one name for each of {count} patches"]
    return [str(name) for name in types.tolist()], []


ADAPTER = Adapter(
    name="pannuke",
    title="PanNuke (nuclei of five kinds, 19 tissues)",
    kind="image",
    labels="tissue (types.npy); masks: " + ", ".join(CLASSES),
    group="patch: patients are not published",
    layout="images.npy (N, 256, 256, 3), masks.npy (N, 256, 256, 6), types.npy; of one fold or of several in folders",
    origin="https://warwick.ac.uk/fac/cross_fac/tia/data/pannuke",
    licence="CC BY-NC-SA 4.0 (non-commercial)",
    uses=frozenset({"mpp"}),
    fits=_fits,
    open=_open,
)
