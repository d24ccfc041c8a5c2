"""Slides with expression: which there are, whose they are, and what is to be predicted of them.

Shapes: N places (bins or spots) of a slide, G genes of the panel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from lamella.formats.spatial_counts import SpatialCounts
from lamella.geometry import Frame

Kind = Literal["bin", "spot"]
Target = Literal["counts", "log1p", "log10_library", "log_cpm", "log_cpm_smoothed", "values"]


@dataclass(frozen=True)
class ExpressionSlide:
    """One slide (section) with an image and expression.

    Attributes:
        slide_id: Its name; unique.
        wsi_path: Its image.
        frame: Level 0 of the image.
        patient: Whose it is. Splits are by patient.
        load: Reads its expression, all genes.
        expression_path: File or folder that it is read from, for messages and digests.
        mask_path: A given tissue mask of the image; None: tissue is found on it.
        mask_mpp: Stated micrometres per pixel of that mask.
    """

    slide_id: str
    wsi_path: Path
    frame: Frame
    patient: str
    load: Callable[[], SpatialCounts]
    expression_path: Path | None = None
    mask_path: Path | None = None
    mask_mpp: float | None = None

    @property
    def mpp_stated(self) -> tuple[float, float]:
        """(x, y) micrometres per pixel of level 0, for the reader."""
        return self.frame.mpp_x, self.frame.mpp_y

    @cached_property
    def counts(self) -> SpatialCounts:
        """Its expression, read once."""
        return self.load()


@dataclass(frozen=True)
class ExpressionStudy:
    """Slides of several patients with expression of the same kind.

    Attributes:
        slides: In order of their names.
        kind: Bins of a chip (Visium HD), or spots.
        bin_um: Side of the bins that are predicted. Of `bin` data: their own size, or pooled by a whole factor. Spots
            are the sums of predicted bins under their disk.
        tile_bins: Bins along the side of a sample: 128 x 2 um = 256 um. Of spots: enough to cover a disk.
        notes: What a reader of the results must know.
    """

    slides: tuple[ExpressionSlide, ...]
    kind: Kind
    bin_um: float
    tile_bins: int
    notes: tuple[str, ...] = ()

    @property
    def patients(self) -> tuple[str, ...]:
        return tuple(sorted({slide.patient for slide in self.slides}))

    @property
    def by_id(self) -> dict[str, ExpressionSlide]:
        return {slide.slide_id: slide for slide in self.slides}

    def of(self, patients: frozenset[str] | set[str] | tuple[str, ...]) -> tuple[ExpressionSlide, ...]:
        """The slides of some patients."""
        return tuple(slide for slide in self.slides if slide.patient in patients)


@dataclass(frozen=True)
class Fold:
    """One fold of nested leave-one-patient-out.

    Attributes:
        number: From 0.
        test: The patient that is judged; nothing is chosen on it.
        inner: The patient that chooses when to stop; None where only one other patient is left.
        train: The others.
        inner_slides: Slides of the training patient that choose, where `inner` is None and it has several; stated in
            every report, as they are no other patient.
    """

    number: int
    test: str
    inner: str | None
    train: tuple[str, ...]
    inner_slides: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"without_{self.test}"
