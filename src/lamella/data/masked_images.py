"""One crop of each image and a mask over its tokens: the samples of I-JEPA, as a pure function of a position.

Every draw is seeded by (seed, what it is for, position), never by rank, worker or history.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
import torch
from pydantic import Field

from lamella.config import Settings
from lamella.data.augment import Turn
from lamella.data.image_augment import ColourSettings, NoColour, recoloured
from lamella.data.images import TrainingImages
from lamella.data.masks.blocks import Proportions, Shares
from lamella.data.masks.kinds import MaskSettings, draw_masks
from lamella.data.masks.mask import Grid
from lamella.data.masks.multiblock import MultiBlockMaskSettings
from lamella.data.multi_crop import crop, crop_box
from lamella.data.sample import Batch
from lamella.errors import ConfigError
from lamella.geometry import Box
from lamella.imaging.spacing import fit

# What a random number is for: each use has its own stream at every position. Another first number than the views of
# `data.multi_crop` have, so that two methods of one seed do not share crops by accident.
_CROP, _TURN, _COLOUR = range(3, 6)
_VIEWS_AT_ONCE = 16  # images of a held batch: as many as a network without gradients takes beside a training step
_TRIED = 256  # masks drawn at the start, so that settings that no grid can meet fail before the first image is read


class MaskedImageSettings(Settings):
    """Which crop of each image is shown, and which of its tokens are asked for."""

    mask: Annotated[MaskSettings, Field(discriminator="name")] = MultiBlockMaskSettings()
    """Which tokens the encoder is shown and which the predictor is asked for."""
    scale: Shares = (0.3, 1.0)
    """Least and greatest share of the image's area in the crop."""
    aspect: Proportions = (3 / 4, 4 / 3)
    """Least and greatest width over height of the crop before it is made square."""
    mirror: bool = True
    """Mirror half of the crops left to right."""
    turn: bool = False
    """Show crops in any of the eight orientations; for images without an up, such as tissue, cells and skin."""
    colour: ColourSettings = NoColour()
    """Changes of appearance; prediction needs none."""


class MaskedImages:
    """The masked crops of training images.

    Args:
        images: Where they are cut from, in which order.
        settings: How.
        size_px: Side of a crop.
        patch_px: Side of the encoder's patch, whose tokens are masked.

    Raises:
        ConfigError: The crop is not whole patches, or is a single one.
        LamellaError: The masks cannot leave anything to see on this grid.
    """

    def __init__(self, images: TrainingImages, settings: MaskedImageSettings, size_px: int, patch_px: int) -> None:
        if size_px % patch_px or size_px < 2 * patch_px:
            raise ConfigError([f"data.size_px: {size_px} is not two or more patches of {patch_px} px"])
        self.images, self.settings, self.size_px = images, settings, size_px
        self.grid: Grid = (size_px // patch_px, size_px // patch_px)
        draw_masks(settings.mask, self.grid, images.seed, range(_TRIED))

    def __len__(self) -> int:
        """Images that take part."""
        return len(self.images)

    @property
    def samples_per_epoch(self) -> int:
        return self.images.samples_per_epoch

    def positions(self, step: int, rank: int = 0, world_size: int = 1) -> range:
        """The positions of a rank at a step."""
        return self.images.positions(step, rank, world_size)

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> Batch:
        """The rank's share of the batch of a step.

        Returns:
            image: uint8 (B, 3, H, W).
            context: int64 (B, N) numbers of the tokens shown, row by row, padded with 0 to the batch's longest.
            context_pad: bool (B, N), True marks padding.
            targets: int64 (B, K, Q) numbers of the tokens asked for; targets_pad: bool (B, K, Q).
            position: int64 (B,).

        Raises:
            ImageError: An image cannot be read. Nothing is put in its place.
        """
        positions = self.positions(step, rank, world_size)
        return self._collated([self.crop(position) for position in positions], positions)

    def held(self, images: int) -> list[Batch]:
        """The middle squares of the first images of the order, with masks: the same in every run.

        Args:
            images: How many, at most.
        """
        count, batches = min(images, len(self)), []
        for first in range(0, count, _VIEWS_AT_ONCE):
            positions = range(first, min(first + _VIEWS_AT_ONCE, count))
            whole = [fit(self.images.at(position), self.size_px) for position in positions]
            batches.append(self._collated(whole, positions))
        return batches

    def crop(self, position: int) -> np.ndarray:
        """(H, W, 3) uint8: the crop of a position, as the network sees it."""
        cropped = crop(self.images.at(position), self.crop_box(position), self.size_px)
        turn = Turn.drawn(self._rng(_TURN, position))
        if self.settings.turn:
            cropped = turn.image(cropped)
        elif self.settings.mirror and turn.mirror:
            cropped = Turn(True, 0).image(cropped)
        return recoloured(cropped, self.settings.colour, self._rng(_COLOUR, position))

    def crop_box(self, position: int) -> Box:
        """Where the crop of a position lies in its image, in pixels of the prepared image."""
        height, width = self.images.at(position).shape[:2]
        return crop_box(self._rng(_CROP, position), height, width, self.settings.scale, self.settings.aspect)

    def _collated(self, crops: Sequence[np.ndarray], positions: Sequence[int]) -> Batch:
        masks = draw_masks(self.settings.mask, self.grid, self.images.seed, positions)
        image = np.ascontiguousarray(np.stack(crops).transpose(0, 3, 1, 2))
        arrays = {"image": image, **masks.arrays(), "position": np.array(positions, np.int64)}
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    def _rng(self, use: int, position: int) -> np.random.Generator:
        return np.random.default_rng((use, position, 0, self.images.seed))
