"""Masked crops of volumes, to learn from without labels.

A crop has a fixed number of voxels and is never resized; where it reaches beyond its volume it is background (see
`lamella.data.volumes`), and the share of such voxels is told. Every random draw is seeded by (seed, what it is for,
position), never by rank, worker or history.

Shapes: B samples, C channels, Z slices, Y rows, X columns.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from lamella.data.mask_sets import MaskSetsSettings, mask_batch
from lamella.data.sample import Batch
from lamella.data.training_items import TrainingItems
from lamella.data.volumes import PreparedVolume, PreparedVolumes, VolumeDataSettings, body_share, cut
from lamella.errors import ConfigError, ImageError
from lamella.imaging.datasets.collection import Collection
from lamella.models.volume_encoder import VolumeContract
from lamella.models.volume_vit import grid_of

# What a random number is for: each use has its own stream at every position.
_CORNER, _FLIP, _TIME = range(3)
_HELD_AT_ONCE = 8  # whole crops go through the teacher: so many of 512 tokens fit beside a training step


class VolumeCrops:
    """Masked crops of the volumes of some collections.

    A sequence of volumes in time gives crops of one moment, drawn at random.

    Args:
        collections: All of kind `volume`.
        settings: What takes part and how it is drawn.
        masks: Which tokens are hidden.
        seed: Of the order, the crops, the flips and the masks.
        patch: Voxels of a patch, the encoder's.

    Raises:
        ConfigError: The crop is not whole patches.
        DatasetError: A collection holds no volumes, or none is left for training.
        ImageError: The first volume, which says how many channels all have, cannot be read.
    """

    def __init__(
        self,
        collections: Sequence[Collection],
        settings: VolumeDataSettings,
        masks: MaskSetsSettings,
        seed: int,
        patch: tuple[int, int, int],
    ) -> None:
        try:
            self.grid = grid_of(settings.crop, patch)
        except ValueError as error:
            raise ConfigError([f"data.crop: {error}"]) from error
        self.settings, self.masks, self.seed, self.patch = settings, masks, seed, patch
        self.items = TrainingItems(collections, ("volume",), settings, seed)
        self._volumes = [PreparedVolumes(collection, settings) for collection in collections]
        self.channels = self._prepared(0).channels

    def __len__(self) -> int:
        """Volumes that take part."""
        return len(self.items)

    @property
    def samples_per_epoch(self) -> int:
        return self.items.samples_per_epoch

    def contract(self, dim: int) -> VolumeContract:
        """What an encoder of this width, trained on these crops, expects."""
        return VolumeContract(
            kind="volume",
            channels=self.channels,
            size=self.settings.crop,
            patch=self.patch,
            dim=dim,
            spacing_mm=self.settings.spacing_mm,
            intensity=self.settings.intensity.model_dump(mode="json"),
        )

    def positions(self, step: int, rank: int = 0, world_size: int = 1) -> range:
        """Positions of a rank's share of a step."""
        return self.items.positions(step, rank, world_size)

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> Batch:
        """The rank's share of the batch of a step.

        Returns:
            voxels float32 (B, C, Z, Y, X), the masks of `mask_batch`, position (B,), padding (B,) float32 (the share
            of the crop beyond its volume), and spacing_mm (B, 3) where volumes keep their own.

        Raises:
            ImageError: A volume cannot be read or has other channels; the message names it.
        """
        return self._stacked(self.positions(step, rank, world_size), held=False)

    def held(self, images: int) -> list[Batch]:
        """The same batches in every run: each volume's middle, then further crops of them, without flips."""
        starts = range(0, images, _HELD_AT_ONCE)
        return [self._stacked(range(start, min(start + _HELD_AT_ONCE, images)), held=True) for start in starts]

    def _stacked(self, positions: Sequence[int], *, held: bool) -> Batch:
        crops = [self._crop(position, held=held) for position in positions]
        batch = {
            "voxels": torch.from_numpy(np.stack([crop for crop, _ in crops])),
            "padding": torch.tensor([padding for _, padding in crops], dtype=torch.float32),
            "position": torch.tensor(positions, dtype=torch.int64),
            **mask_batch(self.masks, self.grid, self.seed, positions),
        }
        if self.settings.spacing_mm is None:
            batch["spacing_mm"] = torch.tensor([self._prepared(position).spacing_mm for position in positions])
        return batch

    def _crop(self, position: int, *, held: bool) -> tuple[np.ndarray, float]:
        """(C, Z, Y, X) float32 and the share of it that lies beyond the volume."""
        prepared = self._like_the_first(position)
        values, background = prepared.values_CZYX, prepared.background_C
        if prepared.timed:
            moment = int(self._rng(_TIME, position).integers(len(values)))
            values, background = values[moment, None], background[moment, None]
        if held and position < len(self):
            corner = [(length - side) // 2 for length, side in zip(values.shape[1:], self.settings.crop, strict=True)]
        else:
            corner = self._corner(position, prepared)
        crop, padding = cut(values, corner, self.settings.crop, background)
        if self.settings.flips and not held and self._rng(_FLIP, position).random() < 1 / 2:
            crop = np.ascontiguousarray(crop[..., ::-1])
        return crop, padding

    def _corner(self, position: int, prepared: PreparedVolume) -> list[int]:
        """First voxel of the crop along (z, y, x); negative where it begins before the volume."""
        rng = self._rng(_CORNER, position)
        best, most = [0, 0, 0], -1.0
        for _ in range(self.settings.redraws + 1 if self.settings.least_body else 1):
            room = np.array(prepared.values_CZYX.shape[1:]) - self.settings.crop
            corner = rng.integers(np.minimum(room, 0), np.maximum(room, 0) + 1).tolist()
            body = body_share(prepared, corner, self.settings.crop) if self.settings.least_body else 1.0
            if body > most:
                best, most = corner, body
            if body >= self.settings.least_body:
                break
        return best

    def _prepared(self, position: int) -> PreparedVolume:
        number, item = self.items.at(position)
        return self._volumes[number].prepared(item)

    def _like_the_first(self, position: int) -> PreparedVolume:
        prepared = self._prepared(position)
        if prepared.channels != self.channels:
            raise ImageError(
                self.items.at(position)[1].item_id,
                f"it has {prepared.channels} channel(s), where the first volume has {self.channels}",
                "Learn from volumes of the same channels.",
            )
        return prepared

    def _rng(self, use: int, position: int) -> np.random.Generator:
        return np.random.default_rng((use, position, self.seed))
