"""Reads the files of an item: one image, volume or video, or one file per channel stacked to one volume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from lamella.errors import DatasetError, ImageError
from lamella.imaging.datasets.collection import Item, Kind, Measured
from lamella.imaging.datasets.settings import DatasetSettings
from lamella.imaging.measured import MedicalImage, Unit, Volume
from lamella.imaging.reading import read_image, read_video, read_volume

# Two files lie on one grid if no corner of theirs is further apart than this share of a voxel. Headers of one series
# that went through several programs differ by 1e-4 of a voxel; a real misplacement is a voxel or more.
GRID_TOLERANCE = 0.1
# Spacings that differ by less are the same: headers round 0.2525 to 0.25.
SPACING_TOLERANCE = 0.02


@dataclass(frozen=True)
class ReadFiles:
    """Item to what was measured.

    Attributes:
        kind: What the files hold.
        channels: Names of the channels: one for each file, or for each channel of the one file.
        modality: Where the data set states it and the files cannot (NIfTI).
        unit: The same for the unit of the values.
        fourth: What the fourth axis of a NIfTI is, where its header does not say it.
    """

    kind: Kind
    channels: tuple[str, ...] = ()
    modality: str | None = None
    unit: Unit | None = None
    fourth: Literal["channel", "time"] | None = None

    def __call__(self, item: Item) -> Measured:
        if self.kind == "image":
            return spaced(read_image(item.sources[0]), item)
        if self.kind == "video":
            return read_video(item.sources[0])
        volume = stacked([read_volume(path, fourth=self.fourth) for path in item.sources])
        if self.channels:
            volume = _with_channels(volume, self.channels)
        if self.modality:
            volume = replace(volume, modality=self.modality)
        return replace(volume, unit=self.unit) if self.unit else volume


def spaced(image: MedicalImage, item: Item) -> MedicalImage:
    """An image with the spacing that its data set states, where its file states none.

    Raises:
        ImageError: Both state one, and they differ.
    """
    if item.mpp is None:
        return image
    stated_mm = item.mpp / 1000
    if image.spacing_mm is None:
        return replace(image, spacing_mm=(stated_mm, stated_mm))
    if max(abs(own / stated_mm - 1) for own in image.spacing_mm) > SPACING_TOLERANCE:
        own = " x ".join(f"{1000 * each:.6g}" for each in image.spacing_mm)
        raise ImageError(
            image.source,
            f"its file states {own} um per pixel, the data set {item.mpp:g}",
            "Leave out mpp, which is for files that state none.",
        )
    return image


def refuse_mpp(path: Path, kind: Kind, settings: DatasetSettings) -> None:
    """Refuse `mpp` where nothing is measured by it.

    Raises:
        DatasetError: It is set, and the items are volumes or videos.
    """
    if settings.mpp is not None and kind != "image":
        raise DatasetError(
            path, f"mpp has no effect on {kind}s", "Leave it out; it is for pictures that state no spacing."
        )


def stacked(volumes: Sequence[Volume]) -> Volume:
    """One volume of the channels of several, which must lie on one grid.

    Raises:
        ImageError: A file holds several volumes, or lies on another grid, or is in another unit.
    """
    first = volumes[0]
    if len(volumes) == 1:
        return first
    for volume in volumes:
        if volume.values_CZYX.shape[0] != 1:
            raise ImageError(
                volume.source,
                f"it holds {volume.values_CZYX.shape[0]} volumes, where one channel is wanted",
                "Give a file for each channel, or one file with all of them.",
            )
        if volume.unit != first.unit:
            raise ImageError(
                volume.source, f"its values are in {volume.unit}, those of {first.source} in {first.unit}", "Check it."
            )
        difference = grid_difference(volume, first)
        if difference:
            raise ImageError(
                volume.source,
                f"it lies on another grid than {first.source}: {difference}",
                "Resample all channels of a case to one grid first.",
            )
    values = np.concatenate([volume.values_CZYX for volume in volumes])
    return replace(first, values_CZYX=values, fourth="channel", source=", ".join(volume.source for volume in volumes))


def grid_difference(one: Volume, other: Volume) -> str:
    """What tells two grids apart; nothing if they are one within a tenth of a voxel."""
    shape, other_shape = one.values_CZYX.shape[1:], other.values_CZYX.shape[1:]
    if shape != other_shape:
        return f"{_by(shape)} voxels (z, y, x) against {_by(other_shape)}"
    z, y, x = (size - 1 for size in shape)
    corners = np.array([[i * x, j * y, k * z, 1] for i in (0, 1) for j in (0, 1) for k in (0, 1)], np.float64)
    apart_mm = np.linalg.norm((corners @ (one.affine - other.affine).T)[:, :3], axis=1).max()
    if apart_mm > GRID_TOLERANCE * min(other.spacing_mm):
        return f"its corners lie up to {apart_mm:.3g} mm away"
    return ""


def _with_channels(volume: Volume, channels: tuple[str, ...]) -> Volume:
    found = volume.values_CZYX.shape[0]
    if found != len(channels):
        raise ImageError(
            volume.source, f"it has {found} channel(s), not {len(channels)} ({', '.join(channels)})", "Check the file."
        )
    return replace(volume, channels=channels, fourth="channel")


def _by(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
