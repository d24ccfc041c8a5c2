"""Volumes as networks see them: read, normalised by the intensity rule, brought to one spacing in millimetres.

Whoever cuts crops of a fixed size fills what lies beyond a volume with its background: in each channel the smallest
value of the normalised volume, which is air in CT and nothing in MRI. Nothing is ever resized to fit.

Shapes: C channels, Z slices, Y rows, X columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated

import numpy as np
from pydantic import Field

from lamella.data.kept import Kept
from lamella.data.training_items import Count, DrawSettings
from lamella.errors import ImageError
from lamella.imaging.datasets.collection import Collection, Item
from lamella.imaging.intensity import to_network
from lamella.imaging.measured import Volume
from lamella.imaging.spacing import resample_volume

# A voxel belongs to the body if it stands out from the background by this share of the range up to the 99th percentile:
# more than the noise of empty space, less than fat or cerebrospinal fluid.
_BODY_SHARE_OF_RANGE = 0.1
_RANGE_PERCENTILE = 99
_RANGE_STRIDES = (2, 4, 4)  # every 32nd voxel: the percentile of a million voxels moves in the third digit

Spacing = Annotated[float, Field(gt=0)]


class VolumeDataSettings(DrawSettings):
    """Which volumes are learned from, how they are prepared, and how crops are drawn."""

    spacing_mm: tuple[Spacing, Spacing, Spacing] | None = (2.0, 1.0, 1.0)
    """Bring all volumes to this (z, y, x) size of a voxel; patches of 8 x 16 x 16 voxels are then cubes of 16 mm. null
    takes each as it is; positions are millimetres in any case."""
    flips: bool = True
    """Mirror left and right at random; the other axes keep their meaning."""
    crop: tuple[Count, Count, Count] = (64, 128, 128)
    """Voxels of a crop along (z, y, x); whole patches."""
    least_body: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Draw a crop anew while less than this share of it is body (brighter than the background); 0 takes the first."""
    redraws: Annotated[int, Field(ge=0)] = 8
    """Times that it is drawn anew at most; then the one with the most body is taken."""


@dataclass(frozen=True)
class PreparedVolume:
    """A normalised volume at the spacing that was asked for.

    Attributes:
        values_CZYX: float32; C counts points in time where `timed`.
        spacing_mm: (z, y, x).
        source_spacing_mm: Before it was resampled.
        timed: Whether C is time.
    """

    values_CZYX: np.ndarray
    spacing_mm: tuple[float, float, float]
    source_spacing_mm: tuple[float, float, float]
    timed: bool

    @property
    def nbytes(self) -> int:
        return self.values_CZYX.nbytes

    @property
    def channels(self) -> int:
        """Values of a voxel at one time."""
        return 1 if self.timed else len(self.values_CZYX)

    @cached_property
    def background_C(self) -> np.ndarray:
        """float32: the smallest value of each channel."""
        return self.values_CZYX.min((1, 2, 3))

    @cached_property
    def body_above_C(self) -> np.ndarray:
        """What a voxel's value must exceed, in any channel, for it to belong to the body."""
        z, y, x = _RANGE_STRIDES
        bright_C = np.percentile(self.values_CZYX[:, ::z, ::y, ::x], _RANGE_PERCENTILE, axis=(1, 2, 3))
        return self.background_C + _BODY_SHARE_OF_RANGE * (bright_C - self.background_C)


class PreparedVolumes:
    """The volumes of a collection as networks see them.

    Args:
        collection: Of kind `volume`.
        settings: How they are prepared.
    """

    def __init__(self, collection: Collection, settings: VolumeDataSettings) -> None:
        self.collection, self.settings = collection, settings
        self._kept: Kept[PreparedVolume] = Kept(settings.cache_mb)

    def prepared(self, item: Item) -> PreparedVolume:
        """The volume of an item with its spacing.

        Raises:
            ImageError: It cannot be read, or is no volume. Nothing is put in its place.
        """
        return self._kept.get(item.item_id, lambda: self._prepare(item))

    def values(self, item: Item) -> np.ndarray:
        """float32 (C, Z, Y, X), not to be written to; see `prepared`."""
        return self.prepared(item).values_CZYX

    def mask(self, item: Item) -> np.ndarray:
        """Integers (Z, Y, X) on the grid of `values`: the segmentation, by the nearest voxel.

        Raises:
            ImageError: The item has none, or it does not lie over its volume.
        """
        if self.collection.read_mask is None or item.mask is None:
            raise ImageError(item.item_id, "it has no segmentation", "Leave it out, or name its mask file.")
        labels = self.collection.read_mask(item)
        prepared = self.prepared(item)
        if self.settings.spacing_mm is not None:
            resampled = resample_volume(
                labels[None], prepared.source_spacing_mm, self.settings.spacing_mm, labels=True
            )  # fmt: skip
            labels = resampled[0]
        if labels.shape != prepared.values_CZYX.shape[1:]:
            raise ImageError(
                item.mask,
                f"its grid {labels.shape} is not its volume's {prepared.values_CZYX.shape[1:]}",
                "Give the mask that was drawn on this very volume.",
            )
        return labels

    def _prepare(self, item: Item) -> PreparedVolume:
        measured = self.collection.read(item)
        if not isinstance(measured, Volume):
            raise ImageError(item.item_id, "it is no volume", "Set data.dataset.kind=volume, or leave it out.")
        values, spacing = to_network(measured, self.settings.intensity), self.settings.spacing_mm
        if spacing is not None:
            values = resample_volume(values, measured.spacing_mm, spacing)
        values = np.ascontiguousarray(values, np.float32)
        values.setflags(write=False)
        timed = measured.fourth == "time" and len(values) > 1
        return PreparedVolume(values, spacing or measured.spacing_mm, measured.spacing_mm, timed)


def cut(
    values_CZYX: np.ndarray, corner: Sequence[int], size: Sequence[int], background_C: np.ndarray
) -> tuple[np.ndarray, float]:
    """A crop, filled with the background where it lies beyond the volume.

    Returns:
        (C, *size) of the values' type, a copy; and the share of it that was filled.
    """
    starts = np.maximum(corner, 0)
    stops = np.minimum(np.add(corner, size), values_CZYX.shape[1:])
    inside = tuple(slice(start, max(start, stop)) for start, stop in zip(starts, stops, strict=True))
    part = values_CZYX[:, *inside]
    if part.shape[1:] == tuple(size):
        return part.copy(), 0.0
    crop = np.empty((len(values_CZYX), *size), values_CZYX.dtype)
    crop[...] = background_C[:, None, None, None]
    at = starts - corner
    crop[:, *(slice(first, first + length) for first, length in zip(at, part.shape[1:], strict=True))] = part
    return crop, 1 - part[0].size / crop[0].size


def body_share(prepared: PreparedVolume, corner: Sequence[int], size: Sequence[int]) -> float:
    """Share of a crop that is body; what lies beyond the volume is none."""
    crop, _ = cut(prepared.values_CZYX, corner, size, prepared.background_C)
    return float((crop > prepared.body_above_C[:, None, None, None]).any(0).mean())
