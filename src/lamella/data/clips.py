"""Masked clips of films, to learn from without labels: the same window of several frames, scaled to one size.

Films are video files, multi-frame DICOM, and slices of volumes in time (each slice of a 4-D volume is a film; those
that show nothing are left out). Where a film is shorter than a clip its last frame is repeated, and the share of such
frames is told. Every random draw is seeded by (seed, what it is for, position), never by rank, worker or history.

Shapes: B samples, T frames, Y rows, X columns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import numpy as np
import torch
from pydantic import Field, model_validator

from lamella.data.films import PreparedFilm, frame_offsets, largest_window, prepared_film
from lamella.data.kept import Kept
from lamella.data.mask_sets import MaskSetsSettings, mask_batch
from lamella.data.sample import Batch
from lamella.data.training_items import Count, DrawSettings, TrainingItems
from lamella.errors import ConfigError
from lamella.imaging.datasets.collection import Collection, Item
from lamella.imaging.spacing import resize_image
from lamella.models.volume_encoder import VolumeContract
from lamella.models.volume_vit import grid_of

# What a random number is for: each use has its own stream at every position.
_START, _WINDOW, _FLIP, _SLICE = range(4)
_HELD_AT_ONCE = 4  # whole clips go through the teacher: so many of 1,568 tokens fit beside a training step
_WINDOW_DRAWS = 10  # a window of wide aspect may not fit into the image; beyond that the largest in the middle is taken
_COLOUR_CLIPS = 32  # mean and deviation of the channels change in the third digit beyond that many clips

Factor = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(gt=0, le=1)]


class VideoDataSettings(DrawSettings):
    """Which films are learned from, and how clips are drawn."""

    frames: Count = 16
    """Frames of a clip; whole tubelets."""
    frame_stride: Count = 2
    """Take every so many frames: at 30 a second, 16 frames with a stride of 2 are about one heartbeat."""
    frame_ms: Factor | None = None
    """Milliseconds from one frame of the clip to the next, for films of different speed; instead of the stride."""
    flips: bool = True
    """Mirror left and right at random; the other axes keep their meaning."""
    size_px: Count = 224
    """Side of the clip in pixels; whole patches."""
    scale: tuple[Share, Share] = (0.3, 1.0)
    """Least and largest share of the image's area that a clip shows (V-JEPA's)."""
    aspect: tuple[Factor, Factor] = (0.75, 1.35)
    """Least and largest width over height of what it shows."""
    max_side_px: Count | None = 512
    """Reduce larger films to this longest side after reading."""

    @model_validator(mode="after")
    def _ascending(self) -> VideoDataSettings:
        if self.scale[0] > self.scale[1] or self.aspect[0] > self.aspect[1]:
            raise ValueError("scale and aspect: the first must not be above the second")
        return self


class VideoClips:
    """Masked clips of the films of some collections.

    Args:
        collections: Of kind `video`, or `volume` if all their volumes have time.
        settings: What takes part and how it is drawn.
        masks: Which tokens are hidden.
        seed: Of the order, the clips, the flips and the masks.
        patch: Frames, rows and columns of a tubelet, the encoder's.

    Raises:
        ConfigError: The clip is not whole tubelets.
        DatasetError: A collection holds pictures, or none is left for training.
    """

    channels = 3

    def __init__(
        self,
        collections: Sequence[Collection],
        settings: VideoDataSettings,
        masks: MaskSetsSettings,
        seed: int,
        patch: tuple[int, int, int],
    ) -> None:
        self.size = (settings.frames, settings.size_px, settings.size_px)
        try:
            self.grid = grid_of(self.size, patch)
        except ValueError as error:
            raise ConfigError([f"data.frames, data.size_px: {error}"]) from error
        self.settings, self.masks, self.seed, self.patch = settings, masks, seed, patch
        self.items = TrainingItems(collections, ("video", "volume"), settings, seed)
        self._collections = tuple(collections)
        self._kept: Kept[PreparedFilm] = Kept(settings.cache_mb)

    def __len__(self) -> int:
        """Films (or volumes in time) that take part."""
        return len(self.items)

    @property
    def samples_per_epoch(self) -> int:
        return self.items.samples_per_epoch

    def positions(self, step: int, rank: int = 0, world_size: int = 1) -> range:
        """Positions of a rank's share of a step."""
        return self.items.positions(step, rank, world_size)

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> Batch:
        """The rank's share of the batch of a step.

        Returns:
            voxels uint8 (B, 3, T, Y, X), the masks of `mask_batch`, position (B,), and padding (B,) float32 (the share
            of the frames that repeat the film's last).

        Raises:
            ImageError: A film cannot be read; the message names it.
        """
        return self._stacked(self.positions(step, rank, world_size), held=False)

    def held(self, images: int) -> list[Batch]:
        """The same batches in every run: the middle of each film in time and space, then drawn clips without flips."""
        starts = range(0, images, _HELD_AT_ONCE)
        return [self._stacked(range(start, min(start + _HELD_AT_ONCE, images)), held=True) for start in starts]

    def colour(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of red, green and blue, 0 to 1, over the first clips of the order."""
        sums, squares, count = np.zeros(3), np.zeros(3), 0
        for position in range(min(_COLOUR_CLIPS, len(self))):
            clip, _ = self._clip(position, held=True)
            values = clip.reshape(-1, 3) / 255
            sums, squares, count = sums + values.sum(0), squares + np.square(values).sum(0), count + len(values)
        mean = sums / count
        # A constant channel would divide by zero: one grey level is the least deviation that bytes can show.
        std = np.maximum(np.sqrt(np.maximum(squares / count - mean**2, 0)), 1 / 255)
        return tuple(round(float(value), 4) for value in mean), tuple(round(float(value), 4) for value in std)

    def contract(self, dim: int) -> VolumeContract:
        """What an encoder of this width, trained on these clips, expects; reads some of them for their colour."""
        mean, std = self.colour()
        return VolumeContract(
            kind="video",
            channels=self.channels,
            size=self.size,
            patch=self.patch,
            dim=dim,
            mean=mean,
            std=std,
            frame_ms=self.settings.frame_ms,
            intensity=self.settings.intensity.model_dump(mode="json"),
        )

    def _stacked(self, positions: Sequence[int], *, held: bool) -> Batch:
        clips = [self._clip(position, held=held) for position in positions]
        voxels_BTYXC = torch.from_numpy(np.stack([clip for clip, _ in clips]))
        return {
            "voxels": voxels_BTYXC.permute(0, 4, 1, 2, 3).contiguous(),
            "padding": torch.tensor([padding for _, padding in clips], dtype=torch.float32),
            "position": torch.tensor(positions, dtype=torch.int64),
            **mask_batch(self.masks, self.grid, self.seed, positions),
        }

    def _clip(self, position: int, *, held: bool) -> tuple[np.ndarray, float]:
        """(T, Y, X, 3) uint8 and the share of its frames that repeat the last one."""
        middle = held and position < len(self)
        film, item = self._film(position)
        number = int(self._rng(_SLICE, position).integers(len(film.slices)))
        frames = film.slices[len(film.slices) // 2 if middle else number]
        numbers, frozen = self._frames(film, item, len(frames), None if middle else self._rng(_START, position))
        if middle:
            top, left, height, width = largest_window(frames.shape[1:3], (1.0, 1.0))
        else:
            window_rng = self._rng(_WINDOW, position)
            top, left, height, width = drawn_window(
                window_rng, frames.shape[1:3], self.settings.scale, self.settings.aspect
            )
        size = self.settings.size_px
        parts = frames[numbers, top : top + height, left : left + width]
        clip = np.stack([resize_image(frame, size, size) for frame in parts])
        if self.settings.flips and not held and self._rng(_FLIP, position).random() < 1 / 2:
            clip = np.ascontiguousarray(clip[:, :, ::-1])
        return clip, frozen

    def _frames(
        self, film: PreparedFilm, item: Item, length: int, rng: np.random.Generator | None
    ) -> tuple[np.ndarray, float]:
        """Numbers of the clip's frames, and the share of them beyond the film's end; without `rng` of its middle."""
        settings = self.settings
        numbers = frame_offsets(film, item.item_id, settings.frames, settings.frame_stride, settings.frame_ms)
        room = max(0, length - 1 - int(numbers[-1]))
        numbers += room // 2 if rng is None else int(rng.integers(room + 1))
        return np.minimum(numbers, length - 1), float((numbers >= length).mean())

    def _film(self, position: int) -> tuple[PreparedFilm, Item]:
        number, item = self.items.at(position)
        read, settings = self._collections[number].read, self.settings
        film = self._kept.get(
            (number, item.item_id),
            lambda: prepared_film(read(item), item.item_id, settings.intensity, settings.max_side_px),
        )
        return film, item

    def _rng(self, use: int, position: int) -> np.random.Generator:
        return np.random.default_rng((use, position, self.seed))


def drawn_window(
    rng: np.random.Generator,
    shape: Sequence[int],
    scale: tuple[float, float],
    aspect: tuple[float, float],
) -> tuple[int, int, int, int]:
    """(top, left, height, width) of a random part of an image: its area uniform, its aspect uniform in the logarithm.

    Args:
        rng: Source of randomness.
        shape: Rows and columns of the image.
        scale: Least and largest share of the area.
        aspect: Least and largest width over height.
    """
    rows, columns = shape
    for _ in range(_WINDOW_DRAWS):
        area, ratio = rows * columns * rng.uniform(*scale), math.exp(rng.uniform(*np.log(aspect)))
        height, width = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
        if 1 <= height <= rows and 1 <= width <= columns:
            return int(rng.integers(rows - height + 1)), int(rng.integers(columns - width + 1)), height, width
    return largest_window(shape, aspect)
