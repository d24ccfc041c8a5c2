"""A collection: the items of a data set, each with its labels, its group, its split and its files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from lamella.imaging.measured import MedicalImage, Video, Volume

Kind = Literal["image", "volume", "video"]
Measured = MedicalImage | Volume | Video


@dataclass(frozen=True)
class Item:
    """One image, volume or video of a collection.

    Attributes:
        item_id: Unique in the collection.
        sources: Its files; several for one file a channel. A DICOM series is its folder.
        row: Its row in an archive of many images (MedMNIST npz).
        labels: Its classes; one for a single-label collection, any number (also none) for multi-label; None where it
            is unlabelled.
        group: What must never be torn apart: its patient, lesion or slide; itself where nothing is known.
        site: Hospital or scanner; None where unknown.
        split: The split that the data set itself gives; None where it gives none.
        mask: File with its segmentation, None where there is none.
        boxes: (x0, y0, x1, y1, class) in pixels, where lesions are boxed.
        mpp: Micrometres per pixel that the data set states for a file that states none; None where it does not.
    """

    item_id: str
    sources: tuple[Path, ...]
    row: int | None = None
    labels: tuple[str, ...] | None = None
    group: str = ""
    site: str | None = None
    split: Literal["train", "val", "test"] | None = None
    mask: Path | None = None
    boxes: tuple[tuple[float, float, float, float, str], ...] = ()
    mpp: float | None = None


@dataclass(frozen=True)
class Collection:
    """Items that are read alike.

    Attributes:
        name: Of the data set, such as `ham10000`.
        kind: What `read` returns: a MedicalImage, a Volume or a Video.
        items: In a fixed order.
        classes: Names of the label classes, in the data set's order; () where nothing is labelled.
        multi_label: Whether an item may have any number of classes.
        group_noun: What a group is: patient, lesion, slide, image.
        read: Item to what was measured. Raises ImageError naming the file.
        read_mask: Item to its segmentation: (Y, X) or (Z, Y, X) integers on the very grid that `read` returns.
        mask_classes: Class name to its value in the masks, 1 or more; 255 (NOT_LABELLED) is ignored.
        mask_background: What 0 is called in the masks; None where 0 does not occur: every pixel has a class or is
            ignored.
        origin: Where to get the data.
        licence: Under which terms.
        notes: What a reader of the results must know: what the data set does not say, what was passed over.
    """

    name: str
    kind: Kind
    items: tuple[Item, ...]
    read: Callable[[Item], Measured]
    classes: tuple[str, ...] = ()
    multi_label: bool = False
    group_noun: str = "image"
    read_mask: Callable[[Item], np.ndarray] | None = None
    mask_classes: dict[str, int] = field(default_factory=dict)
    mask_background: str | None = "background"
    origin: str = ""
    licence: str = ""
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.items)

    def only(self, items: Sequence[Item]) -> Collection:
        """The same collection of some of its items."""
        return replace(self, items=tuple(items))
