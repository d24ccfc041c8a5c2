"""What the readers return: values as measured, with what is known about them.

Letters: C channels, T frames, Z slices, Y rows, X columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

Unit = Literal["HU", "byte", "stored"]
"""HU: Hounsfield units. byte: display values 0 to 255, shown as they are. stored: any other scale (MRI, raw detector
values, SUV), which means nothing without a window or percentiles."""


@dataclass(frozen=True)
class Window:
    """A linear grey-scale window: `level` is its centre, `width` the range that is spread from black to white."""

    level: float
    width: float
    name: str = ""


@dataclass(frozen=True)
class MedicalImage:
    """One 2-D image.

    Attributes:
        values: (Y, X) or (Y, X, 3). uint8 for `byte`; float32 otherwise, rescaled (slope, intercept), with bright
            meaning much (MONOCHROME1 is turned round).
        unit: What the values are.
        spacing_mm: (row spacing, column spacing) in millimetres; None where the file states none.
        modality: DICOM modality such as CR, DX, MG, US; None where unknown.
        windows: Windows that the file recommends, in the values' unit.
        source: What it was read from, for messages.
    """

    values: np.ndarray
    unit: Unit
    spacing_mm: tuple[float, float] | None = None
    modality: str | None = None
    windows: tuple[Window, ...] = ()
    source: str = ""


@dataclass(frozen=True)
class Volume:
    """One 3-D image of C channels (modalities) or T time points, in RAS+ orientation.

    Attributes:
        values_CZYX: float32; x grows to the patient's right, y to the front, z to the head.
        unit: What the values are.
        spacing_mm: (z, y, x) in millimetres.
        affine: (4, 4) float64, from (x, y, z) voxel indices to RAS millimetres.
        fourth: What C counts: channels, or points in time.
        channels: Names of the channels, where known.
        modality: CT, MR, PT ...; None where unknown.
        windows: Windows that the file recommends.
        source: What it was read from.
    """

    values_CZYX: np.ndarray
    unit: Unit
    spacing_mm: tuple[float, float, float]
    affine: np.ndarray
    fourth: Literal["channel", "time"] = "channel"
    channels: tuple[str, ...] = ()
    modality: str | None = None
    windows: tuple[Window, ...] = ()
    source: str = ""


@dataclass(frozen=True)
class Video:
    """A film, or a 2-D slice over time.

    Attributes:
        frames_TYXC: uint8 (T, Y, X, 3) for `byte`, else float32 (T, Y, X, 1).
        unit: What the values are.
        frame_ms: Milliseconds from frame to frame; None where unknown.
        spacing_mm: (row, column) spacing; None where unknown.
        modality: US, XA, ...; None where unknown.
        windows: Windows that the file recommends.
        source: What it was read from.
    """

    frames_TYXC: np.ndarray
    unit: Unit
    frame_ms: float | None = None
    spacing_mm: tuple[float, float] | None = None
    modality: str | None = None
    windows: tuple[Window, ...] = ()
    source: str = ""
