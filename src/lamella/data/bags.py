"""Weakly labelled slides: a bag of tiles for each slide, and a label of the whole that says nothing of where.

A patch with a label of its own is a slide of one tile: plain images are opened as slides. So there is one kind of data,
and one path from files to predictions.

Shapes: N tiles of a bag, C classes (without the background).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa

from lamella.geometry import Frame
from lamella.slides.grid import tile_table

Part = Literal["train", "val", "test"]
LabelsAre = Literal["slide", "patch"]


@dataclass(frozen=True)
class Bag:
    """One slide. What `data.tiles.TileBatches` and `slides` read it by has the names of an IndexedSlide.

    Attributes:
        slide_id: Its name without extension.
        wsi_path: Its file.
        frame: Level 0.
        corners_px0: (N, 2) float64, top-left corners of its tiles.
        labels: (C,) 0 or 1 for each class; None where it is unlabelled.
        tile_labels: (N, C) uint8 where tiles have labels of their own; None where only the whole has. Where labels are
            of patches every bag of the train part has them.
        group: Patient, or the slide itself where nothing is known.
        part: Of the split; None where it is in none.
        mask_path: Its pixel truth, for judging only; None where there is none.
    """

    slide_id: str
    wsi_path: Path
    frame: Frame
    corners_px0: np.ndarray
    labels: tuple[int, ...] | None
    tile_labels: np.ndarray | None
    group: str
    part: Part | None
    mask_path: Path | None = None

    def __len__(self) -> int:
        """Tiles."""
        return len(self.corners_px0)

    @property
    def mpp_stated(self) -> tuple[float, float]:
        """(x, y) micrometres per pixel of level 0, for the reader."""
        return self.frame.mpp_x, self.frame.mpp_y


@dataclass(frozen=True)
class WeakStudy:
    """Bags with labels of the same classes, and the tiles' size.

    Attributes:
        classes: C names in order; a class's number is its value in masks and label maps that are written.
        background: What is none of the classes; it comes last among the channels. None: every pixel has a class.
        bags: In order of their names.
        mpp: Micrometres per pixel of a tile.
        tile_px: Side of a tile.
        mask_values: Name of a class or of the background -> its values in the truth masks; others are not labelled.
        group_noun: What a group is, such as `patient`.
        notes: What a reader of the results must know, such as a class that no validation slide has.
        labels_are: Of whole slides, or of each patch.
    """

    classes: tuple[str, ...]
    background: str | None
    bags: tuple[Bag, ...]
    mpp: float
    tile_px: int
    mask_values: Mapping[str, tuple[int, ...]]
    group_noun: str = "slide"
    notes: tuple[str, ...] = ()
    labels_are: LabelsAre = "slide"

    @property
    def channels(self) -> tuple[str, ...]:
        """The classes, then the background."""
        return self.classes if self.background is None else (*self.classes, self.background)

    @property
    def fov_um(self) -> float:
        return self.mpp * self.tile_px

    @property
    def by_id(self) -> dict[str, Bag]:
        return {bag.slide_id: bag for bag in self.bags}

    def of(self, part: Part) -> tuple[Bag, ...]:
        """The bags of a part of the split."""
        return tuple(bag for bag in self.bags if bag.part == part)

    def table(self, bag: Bag) -> pa.Table:
        """The tile table of a bag."""
        return tile_table(bag.slide_id, bag.corners_px0, self.fov_um, self.mpp)
