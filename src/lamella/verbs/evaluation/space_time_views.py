"""What an encoder of volumes or films is shown of an item: windows over the whole volume, clips over the whole film.

Shapes: W windows or clips, C channels, Z slices (frames), Y rows, X columns, D width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from lamella.config import Settings
from lamella.data.clips import VideoDataSettings
from lamella.data.even_clips import EvenClips
from lamella.data.volumes import PreparedVolumes, VolumeDataSettings, cut
from lamella.errors import ImageError
from lamella.imaging.datasets.collection import Collection, Item
from lamella.imaging.intensity import IntensitySettings
from lamella.models.hub import model_facts
from lamella.models.volume_encoder import VolumeContract
from lamella.models.voxel_statistics import voxel_statistics
from lamella.verbs.evaluation.volume_windows import corners

Count = Annotated[int, Field(ge=1)]
STRIDE = "frame_stride"  # the key of config.json's facts


class SpaceTimeViewSettings(Settings):
    """What encoders of volumes and of films have in common."""

    intensity: IntensitySettings | None = None
    """How measured values are normalised; the model's own rule unless given."""
    batch_size: Count = 4
    """Windows or clips encoded at once."""
    cache_mb: Annotated[int, Field(ge=0)] = 2048
    """Prepared volumes or films kept in memory."""


class VolumeViewSettings(SpaceTimeViewSettings):
    """What an encoder is shown of a volume: windows of its own size and spacing, whose features are averaged."""

    overlap: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Share by which neighbouring windows overlap."""
    max_windows: Count = 64
    """Windows of one volume behind its feature, spread evenly over it (and over its points in time)."""


class FilmViewSettings(SpaceTimeViewSettings):
    """What an encoder is shown of a film: clips of its own length and size, whose features are averaged."""

    clips: Count = 4
    """Clips of one film, from its first frame to its last; fewer of a film that fewer cover."""
    frame_stride: Count | None = None
    """Take every so many frames; as in the model's pretraining unless given: so many, or so many ms apart."""
    max_side_px: Count | None = 512
    """Reduce larger films to this longest side first, as in pretraining."""


class SpaceTimeViews(Protocol):
    """Parts of an item, and the whole of it."""

    @property
    def statistics_name(self) -> str:
        """What the table calls `statistics`."""

    def parts(self, item: Item) -> Iterator[tuple[Tensor, Sequence[float] | None]]:
        """(W, C, Z, Y, X) batches, and the spacing that the encoder must be told.

        Raises:
            ImageError: The item cannot be read, or is not of the encoder's kind.
        """

    def statistics(self, item: Item) -> np.ndarray:
        """(D,) float32: the whole of it without a network. Raises as `parts`."""

    def facts(self) -> Any:
        """What the features depend on beside encoder and items, as plain values."""


@dataclass(frozen=True)
class VolumeViews:
    """Windows of volumes.

    Args:
        volumes: Prepared as the encoder was shown them in pretraining.
        contract: The encoder's.
        settings: How many windows.
    """

    volumes: PreparedVolumes
    contract: VolumeContract
    settings: VolumeViewSettings
    statistics_name: str = "voxel statistics"

    def parts(self, item: Item) -> Iterator[tuple[Tensor, Sequence[float] | None]]:
        values, background, spacing = self._moments(item)
        windows = [
            (moment, corner)
            for moment in range(len(values))
            for corner in corners(values.shape[2:], self.contract.size, self.settings.overlap)
        ]
        if len(windows) > self.settings.max_windows:
            at = np.linspace(0, len(windows) - 1, self.settings.max_windows)
            windows = [windows[round(number)] for number in at]
        for start in range(0, len(windows), self.settings.batch_size):
            some = windows[start : start + self.settings.batch_size]
            crops = [cut(values[moment], corner, self.contract.size, background[moment])[0] for moment, corner in some]
            yield torch.from_numpy(np.stack(crops)), None if self.contract.spacing_mm else spacing

    def statistics(self, item: Item) -> np.ndarray:
        values, _, _ = self._moments(item)
        each = [voxel_statistics(torch.from_numpy(moment.copy())[None])[0] for moment in values]
        return torch.stack(each).mean(0).numpy()

    def facts(self) -> Any:
        data, shown = self.volumes.settings, self.settings
        return [data.intensity.model_dump(mode="json"), data.spacing_mm, shown.overlap, shown.max_windows]

    def _moments(self, item: Item) -> tuple[np.ndarray, np.ndarray, tuple[float, float, float]]:
        """(M, C, Z, Y, X) values of each point in time (one, where there is no time), their background, the spacing."""
        prepared = self.volumes.prepared(item)
        if prepared.channels != self.contract.channels:
            raise ImageError(
                item.item_id,
                f"it has {prepared.channels} channel(s), and the encoder takes {self.contract.channels}",
                "Give volumes like those that it was trained on.",
            )
        values, background = prepared.values_CZYX, prepared.background_C
        if prepared.timed:
            return values[:, None], background[:, None], prepared.spacing_mm
        return values[None], background[None], prepared.spacing_mm


@dataclass(frozen=True)
class FilmViews:
    """Clips of films, or of the slices of volumes in time.

    Args:
        films: Cut as the encoder takes them.
        settings: How many at once.
    """

    films: EvenClips
    settings: FilmViewSettings
    statistics_name: str = "voxel statistics"

    def parts(self, item: Item) -> Iterator[tuple[Tensor, Sequence[float] | None]]:
        clips, at_once = torch.from_numpy(self.films.clips(item)), self.settings.batch_size
        for start in range(0, len(clips), at_once):
            yield clips[start : start + at_once], None

    def statistics(self, item: Item) -> np.ndarray:
        grey = self.films.clips(item).mean(1, dtype=np.float32, keepdims=True) / 255
        return voxel_statistics(torch.from_numpy(grey)).mean(0).numpy()

    def facts(self) -> Any:
        shown = self.films.settings.model_dump(mode="json")
        keys = ("intensity", "frames", "frame_stride", "frame_ms", "size_px", "max_side_px")
        return [self.films.count, *(shown[key] for key in keys)]


def volume_views(collection: Collection, contract: VolumeContract, settings: VolumeViewSettings) -> VolumeViews:
    """Volumes prepared as in pretraining: the model's spacing and, unless another is given, its intensity rule."""
    return VolumeViews(prepared_volumes(collection, contract, settings), contract, settings)


def prepared_volumes(collection: Collection, contract: VolumeContract, settings: VolumeViewSettings) -> PreparedVolumes:
    """The volumes of a collection as this encoder is shown them."""
    data = VolumeDataSettings(
        spacing_mm=contract.spacing_mm,
        crop=contract.size,
        intensity=_intensity(contract, settings),
        cache_mb=settings.cache_mb,
    )
    return PreparedVolumes(collection, data)


def film_views(collection: Collection, contract: VolumeContract, settings: FilmViewSettings, model: str) -> FilmViews:
    """Films cut as in pretraining; prints at which stride, where the model says it."""
    stride = settings.frame_stride
    if stride is None and contract.frame_ms is None:
        stride = model_facts(model).get(STRIDE)
        if stride is not None:
            print(f"frame_stride={stride} as in the model's pretraining (frame_stride sets another)")
    default = VideoDataSettings()
    data = VideoDataSettings(
        frames=contract.size[0],
        size_px=contract.size[1],
        frame_stride=stride or default.frame_stride,
        frame_ms=None if settings.frame_stride else contract.frame_ms,
        max_side_px=settings.max_side_px,
        intensity=_intensity(contract, settings),
        cache_mb=settings.cache_mb,
    )
    return FilmViews(EvenClips(collection, data, settings.clips), settings)


def _intensity(contract: VolumeContract, settings: SpaceTimeViewSettings) -> IntensitySettings:
    own = IntensitySettings.model_validate(dict(contract.intensity)) if contract.intensity else IntensitySettings()
    return settings.intensity or own
