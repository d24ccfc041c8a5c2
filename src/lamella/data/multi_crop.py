"""Several crops of each image, global and local: the views of LeJEPA, as a pure function of a position.

Every draw is seeded by (seed, what it is for, position, view), never by rank, worker or history.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import numpy as np
import torch
from PIL import Image
from pydantic import Field, model_validator

from lamella.config import Settings
from lamella.data.augment import Turn
from lamella.data.image_augment import ColourSettings, NoColour, PhotometricColour, recoloured
from lamella.data.images import TrainingImages
from lamella.data.sample import Batch
from lamella.errors import ConfigError
from lamella.geometry import Box
from lamella.imaging.spacing import fit

# What a random number is for: each use has its own stream at every position and view.
_CROP, _TURN, _COLOUR = range(3)
_ATTEMPTS = 10  # draws of a crop's shape before the largest that fits is taken, as torchvision does
_VIEWS_AT_ONCE = 16  # images of a held batch: as many as a network without gradients takes beside a training step

Count = Annotated[int, Field(ge=1)]
Scale = tuple[Annotated[float, Field(gt=0, le=1)], Annotated[float, Field(gt=0, le=1)]]
Aspect = tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]


class MultiCropSettings(Settings):
    """Which views are cut from each image."""

    global_views: Count = 2
    """Large views; their mean is what all views should agree with."""
    global_scale: Scale = (0.3, 1.0)
    """Least and greatest share of the image's area in a global view."""
    local_views: Annotated[int, Field(ge=0)] = 6
    """Small views; 0 for none."""
    local_scale: Scale = (0.05, 0.3)
    """Least and greatest share of the image's area in a local view."""
    local_px: Count = 96
    """Side of a local view; whole patches of the encoder."""
    aspect: Aspect = (3 / 4, 4 / 3)
    """Least and greatest width over height of a crop before it is made square."""
    mirror: bool = True
    """Mirror half of the views left to right."""
    turn: bool = False
    """Show views in any of the eight orientations; for images without an up, such as tissue, cells and skin."""
    colour: ColourSettings = PhotometricColour()
    """Changes of appearance."""

    @model_validator(mode="after")
    def _ranges_rise(self) -> MultiCropSettings:
        for name in ("global_scale", "local_scale", "aspect"):
            least, greatest = getattr(self, name)
            if least > greatest:
                raise ValueError(f"{name}: the least value ({least:g}) comes first")
        return self


class MultiCrops:
    """The views of training images.

    Args:
        images: Where they are cut from, in which order.
        settings: How.
        size_px: Side of a global view.
        patch_px: Side of the encoder's patch; both views must be whole patches.

    Raises:
        ConfigError: A view is not whole patches.
    """

    def __init__(
        self, images: TrainingImages, settings: MultiCropSettings, size_px: int, patch_px: int | None = None
    ) -> None:
        self.images, self.settings, self.size_px = images, settings, size_px
        sides = {"data.size_px": size_px, "views.local_px": settings.local_px if settings.local_views else 0}
        wrong = [
            f"{name}: {side} is not a multiple of the encoder's patch of {patch_px} px"
            for name, side in sides.items()
            if patch_px is not None and side % patch_px
        ]
        if wrong:
            raise ConfigError(wrong)

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
        """The rank's share of the batch of a step; see `collated`."""
        return self.collated(self.positions(step, rank, world_size), self.settings)

    def held(self, images: int) -> list[Batch]:
        """The first images of the order, alike in every run: their middle square as `image`, and views not recoloured.

        Args:
            images: How many, at most.
        """
        plain = self.settings.model_copy(update={"colour": NoColour()})
        count, batches = min(images, len(self)), []
        for first in range(0, count, _VIEWS_AT_ONCE):
            positions = range(first, min(first + _VIEWS_AT_ONCE, count))
            whole = [fit(self.images.at(position), self.size_px) for position in positions]
            batches.append({**self.collated(positions, plain), "image": _stacked([[view] for view in whole])[:, 0]})
        return batches

    def collated(self, positions: Sequence[int], settings: MultiCropSettings) -> Batch:
        """The views of some positions.

        Returns:
            globals: uint8 (B, Vg, 3, H, W).
            locals: uint8 (B, Vl, 3, h, w); absent where there are no local views.
            position: int64 (B,).

        Raises:
            ImageError: An image cannot be read. Nothing is put in its place.
        """
        samples = [self._views(position, settings) for position in positions]
        batch = {"globals": _stacked([views[: settings.global_views] for views in samples])}
        if settings.local_views:
            batch["locals"] = _stacked([views[settings.global_views :] for views in samples])
        return {**batch, "position": torch.tensor(list(positions), dtype=torch.int64)}

    def view_box(self, position: int, view: int) -> Box:
        """Where a view lies in its image, in pixels of the prepared image; views are numbered global ones first."""
        return self._box(position, view, *self.images.at(position).shape[:2])

    def _box(self, position: int, view: int, height: int, width: int) -> Box:
        is_global = view < self.settings.global_views
        scale = self.settings.global_scale if is_global else self.settings.local_scale
        return crop_box(self._rng(_CROP, position, view), height, width, scale, self.settings.aspect)

    def _views(self, position: int, settings: MultiCropSettings) -> list[np.ndarray]:
        pixels = self.images.at(position)
        return [
            self._view(pixels, position, view, settings) for view in range(settings.global_views + settings.local_views)
        ]

    def _view(self, pixels: np.ndarray, position: int, view: int, settings: MultiCropSettings) -> np.ndarray:
        side = self.size_px if view < settings.global_views else settings.local_px
        cropped = crop(pixels, self._box(position, view, *pixels.shape[:2]), side)
        turn = Turn.drawn(self._rng(_TURN, position, view))
        if settings.turn:
            cropped = turn.image(cropped)
        elif settings.mirror and turn.mirror:
            cropped = Turn(True, 0).image(cropped)
        return recoloured(cropped, settings.colour, self._rng(_COLOUR, position, view))

    def _rng(self, use: int, position: int, view: int) -> np.random.Generator:
        return np.random.default_rng((use, position, view, self.images.seed))


def crop_box(rng: np.random.Generator, height: int, width: int, scale: Scale, aspect: Aspect) -> Box:
    """A box inside an image, with an even share of its area and an even logarithm of its aspect; fractional pixels.

    A shape that does not fit is drawn again; after some draws the largest box of the nearest allowed aspect is taken.
    """
    for _ in range(_ATTEMPTS):
        area = height * width * rng.uniform(*scale)
        ratio = math.exp(rng.uniform(math.log(aspect[0]), math.log(aspect[1])))
        box_width, box_height = math.sqrt(area * ratio), math.sqrt(area / ratio)
        if box_width <= width and box_height <= height:
            break
    else:
        ratio = min(max(width / height, aspect[0]), aspect[1])
        box_width, box_height = min(width, height * ratio), min(height, width / ratio)
        shrink = math.sqrt(min(1.0, scale[1] * height * width / (box_width * box_height)))
        box_width, box_height = shrink * box_width, shrink * box_height
    x0, y0 = rng.uniform(0, 1, 2) * (width - box_width, height - box_height)
    return Box(float(x0), float(y0), float(x0 + box_width), float(y0 + box_height))


def crop(pixels: np.ndarray, box: Box, side: int) -> np.ndarray:
    """(side, side, 3) uint8 of a fractional box of (H, W, 3) uint8, bilinear, with the filter widened going down."""
    height, width = pixels.shape[:2]
    # Pillow refuses a box that leaves the image by as little as a rounding error.
    inside = (max(0.0, box.x0), max(0.0, box.y0), min(float(width), box.x1), min(float(height), box.y1))
    return np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.BILINEAR, box=inside))


def _stacked(samples: Sequence[Sequence[np.ndarray]]) -> torch.Tensor:
    """(B, V, 3, H, W) uint8 of B samples of V views (H, W, 3), in one copy."""
    height, width, channels = samples[0][0].shape
    stacked = np.empty((len(samples), len(samples[0]), channels, height, width), np.uint8)
    for places, views in zip(stacked, samples, strict=True):
        for place, view in zip(places, views, strict=True):
            place[...] = np.moveaxis(view, -1, 0)
    return torch.from_numpy(stacked)
