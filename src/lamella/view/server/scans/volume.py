"""A volume as three linked planes: grey pictures by window, masks in their colours, and what lies at a voxel.

Places are voxels (x, y, z) of the volume in RAS+: x grows to the right, y to the front, z to the head. Planes are shown
as radiologists look at them (`view.planes`): rows and columns run against their axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from lamella.errors import ImageError
from lamella.imaging.datasets.item_files import grid_difference
from lamella.imaging.intensity import WINDOWS, robust_range
from lamella.imaging.measured import Volume, Window
from lamella.imaging.reading import read_volume
from lamella.view.class_colours import class_colours
from lamella.view.marks import web
from lamella.view.planes import fullest

# Where each axis stands in (Z, Y, X).
AXES = {"x": 2, "y": 1, "z": 0}
_UNITS = {"HU": " HU", "byte": "", "stored": ""}
_MOST_LABELS = 200  # a mask with more is no segmentation, but an image that was taken for one
_COUNTED = 1 << 16
_MM3_PER_ML = 1000.0
# Axes that lie further from the patient's own are told: the letters at the edges are then the nearest ones.
_ASKEW_DEGREES = 2.0


@dataclass(frozen=True)
class SeenMask:
    """Labels on the volume's grid.

    Attributes:
        name: Of its file.
        ranks_ZYX: uint8: 0 for none, else the place of the label in `labels`, counted from 1.
        labels: The numbers that the file holds, ascending, without 0.
        table: (labels + 1, 4) uint8 colours; the first is transparent.
    """

    name: str
    ranks_ZYX: np.ndarray
    labels: Sequence[int]
    table: np.ndarray


class SeenVolume:
    """An open volume with its masks, held in memory.

    Args:
        path: NIfTI, a folder with a DICOM series, or multi-frame DICOM.
        masks: Files with labels; one on another grid is left out and said in `facts`.

    Raises:
        ImageError: The volume cannot be read.
    """

    def __init__(self, path: Path, masks: Sequence[Path] = ()) -> None:
        self.volume = read_volume(path)
        self.masks: list[SeenMask] = []
        self.refused: list[str] = []
        for mask in masks:
            try:
                self.masks.append(_read_mask(mask, self.volume))
            except ImageError as error:
                self.refused.append(str(error))

    @property
    def nbytes(self) -> int:
        return self.volume.values_CZYX.nbytes + sum(mask.ranks_ZYX.nbytes for mask in self.masks)

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What the page shows and needs; `said` are lines for people."""
        count, *shape_ZYX = self.volume.values_CZYX.shape
        at_ZYX = (fullest(self.masks[0].ranks_ZYX) if self.masks else None) or tuple(side // 2 for side in shape_ZYX)
        first = self._windows[0][0]
        voxel_ml = float(np.prod(self.volume.spacing_mm)) / _MM3_PER_ML
        return {
            "size": {axis: shape_ZYX[place] for axis, place in AXES.items()},
            "mm": {axis: shape_ZYX[place] * self.volume.spacing_mm[place] for axis, place in AXES.items()},
            "at": {axis: at_ZYX[place] for axis, place in AXES.items()},
            "fourth": "Point in time" if self.volume.fourth == "time" else "Channel",
            "count": count,
            "frame_ms": None,
            "windows": [window.name for window in self._windows[0]],
            "low": float(f"{first.level - first.width / 2:.5g}"),
            "high": float(f"{first.level + first.width / 2:.5g}"),
            "masks": [
                {
                    "name": mask.name,
                    "labels": [
                        {"text": f"label {label}: {voxels * voxel_ml:.3g} ml", "colour": web(tuple(colour[:3]))}
                        for label, voxels, colour in zip(mask.labels, _counts(mask), mask.table[1:], strict=True)
                    ],
                }
                for mask in self.masks
            ],
            "refused": self.refused,
            "said": self._said(),
        }

    def window(self, number: int, channel: int) -> Window:
        """One of the windows that `facts` names, for a channel.

        Raises:
            IndexError: There is no such window.
        """
        return self._windows[0 if self.volume.fourth == "time" else channel][number]

    def plane(self, axis: str, at: int, channel: int, window: Window) -> np.ndarray:
        """(rows, columns) uint8 of one plane.

        Raises:
            KeyError: There is no such axis.
            IndexError: There is no such plane or channel.
        """
        if not 0 <= channel < len(self.volume.values_CZYX):
            raise IndexError(f"channel {channel}")
        plane = _cut(self.volume.values_CZYX[channel], axis, at)
        scaled = (plane - np.float32(window.level - window.width / 2)) * np.float32(255 / window.width)
        return np.rint(scaled).clip(0, 255).astype(np.uint8)

    def mask_plane(self, mask: int, axis: str, at: int) -> np.ndarray:
        """(rows, columns, 4) uint8, transparent where there is no label.

        Raises:
            KeyError: There is no such axis.
            IndexError: There is no such plane or mask.
        """
        seen = self.masks[mask]
        return seen.table[_cut(seen.ranks_ZYX, axis, at)]

    def at(self, x: int, y: int, z: int, channel: int) -> str:
        """What lies at a voxel, in words: its place, its value, its labels.

        Raises:
            IndexError: There is no such voxel or channel.
        """
        count, depth, height, width = self.volume.values_CZYX.shape
        if not (0 <= x < width and 0 <= y < height and 0 <= z < depth and 0 <= channel < count):
            raise IndexError(f"voxel {x}, {y}, {z}")
        places_mm = self.volume.affine @ (x, y, z, 1)
        letters = ("RL", "AP", "SI")
        place = " ".join(f"{pair[int(mm < 0)]} {abs(mm):.1f}" for pair, mm in zip(letters, places_mm, strict=False))
        value = f"{self.volume.values_CZYX[channel, z, y, x]:.5g}{_UNITS[self.volume.unit]}"
        found = [
            f"{mask.name}: label {mask.labels[mask.ranks_ZYX[z, y, x] - 1]}"
            for mask in self.masks
            if mask.ranks_ZYX[z, y, x]
        ]
        return ", ".join([f"voxel {x} {y} {z}", f"{place} mm", f"value {value}", *found])

    @cached_property
    def _windows(self) -> list[list[Window]]:
        """Windows by channel, the best first; points in time share one list, so that they compare."""
        values = self.volume.values_CZYX
        return [self._windows_of(part) for part in ([values] if self.volume.fourth == "time" else values)]

    def _windows_of(self, values: np.ndarray) -> list[Window]:
        """The file's own windows, then those of its kind, then what its values say."""
        found = [
            replace(window, name=window.name or f"the file's ({number + 1})")
            for number, window in enumerate(self.volume.windows)
        ]
        if self.volume.unit == "HU":
            found += [replace(window, name=name.replace("_", " ")) for name, window in WINDOWS.items()]
        for name, (low, high) in (
            ("0.5 to 99.5 %", robust_range(values)),
            ("all values", (float(values.min()), float(values.max()))),
        ):
            # One value everywhere has no range: it is shown grey, and `said` tells why.
            found.append(Window((low + high) / 2, (high - low) or 1.0, name))
        return found

    def _said(self) -> list[str]:
        count, depth, height, width = self.volume.values_CZYX.shape
        z_mm, y_mm, x_mm = self.volume.spacing_mm
        low, high = float(self.volume.values_CZYX.min()), float(self.volume.values_CZYX.max())
        said = [
            f"{width} x {height} x {depth} voxels of {x_mm:.3g} x {y_mm:.3g} x {z_mm:.3g} mm (x, y, z)",
            f"values {low:.5g} to {high:.5g}{_UNITS[self.volume.unit]}"
            + (f", {self.volume.modality}" if self.volume.modality else ""),
        ]
        if low == high:
            said.append("all values are the same: there is nothing to see")
        if count > 1:
            said.append(f"{count} {'points in time' if self.volume.fourth == 'time' else 'channels'}")
        axes = self.volume.affine[:3, :3]
        cosines = np.diag(axes / np.linalg.norm(axes, axis=0)).clip(-1, 1)
        askew = float(np.degrees(np.arccos(cosines)).max())
        if askew > _ASKEW_DEGREES:
            said.append(f"the scan lies askew by up to {askew:.0f} degrees: letters name the nearest direction")
        return said


def _cut(grid_ZYX: np.ndarray, axis: str, at: int) -> np.ndarray:
    place = AXES[axis]
    if not 0 <= at < grid_ZYX.shape[place]:
        raise IndexError(f"plane {at} of {grid_ZYX.shape[place]}")
    return np.take(grid_ZYX, at, axis=place)[::-1, ::-1]


def _read_mask(path: Path, image: Volume) -> SeenMask:
    mask = read_volume(path)
    values = mask.values_CZYX
    if len(values) != 1:
        raise ImageError(path, f"it holds {len(values)} volumes", "A mask is one volume.")
    if difference := grid_difference(mask, image):
        raise ImageError(path, f"it lies on another grid than its image: {difference}", "Resample it to the image.")
    if not (values == np.rint(values)).all():
        raise ImageError(path, "its values are not whole numbers", "A mask holds the number of a label at each voxel.")
    whole = values[0].astype(np.int64)
    # Counting is far faster than sorting, and labels are small numbers.
    counted = whole.min() >= 0 and whole.max() < _COUNTED
    found = np.flatnonzero(np.bincount(whole.ravel())) if counted else np.unique(whole)
    labels = [int(label) for label in found if label]
    if len(labels) > _MOST_LABELS:
        raise ImageError(path, f"it holds {len(labels)} labels", f"A mask holds at most {_MOST_LABELS} here.")
    known = np.array(sorted({0, *labels}))
    rank_of = np.array([labels.index(label) + 1 if label else 0 for label in known], np.uint8)
    table = np.zeros((len(labels) + 1, 4), np.uint8)
    table[1:, 3] = 255
    for number, colour in enumerate(class_colours([str(label) for label in labels], None).values()):
        table[number + 1, :3] = colour
    return SeenMask(path.name, rank_of[np.searchsorted(known, whole)], labels, table)


def _counts(mask: SeenMask) -> np.ndarray:
    return np.bincount(mask.ranks_ZYX.ravel(), minlength=len(mask.table))[1:]
