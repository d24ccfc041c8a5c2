"""Tiles of labelled images at one spacing: random ones to train on, all of an image to judge by.

An image is brought to the asked spacing as a whole, its mask with it, and tiles are cut from it without any resizing:
no region is ever squashed to a square. Where an image is smaller than a tile it lies in the tile's middle, with white
glass around it that the mask marks as not labelled. Batches are a pure function of seed and step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field, field_validator

from lamella.data.kept import Kept
from lamella.data.label_counts import LabelCounts
from lamella.data.labelled_image import LabelledImage, prepared
from lamella.data.labelled_items import owned_items, same_classes
from lamella.data.sample import Batch
from lamella.data.segmentation_augment import Labelled, SegmentationAugmentSettings, augmented
from lamella.data.training_items import Count, DrawSettings
from lamella.errors import DatasetError
from lamella.formats.label_values import NOT_LABELLED
from lamella.imaging.datasets.collection import Collection, Item

# What a random number is for: each use has its own stream at every position. Other first numbers than the views of
# images have (`data.multi_crop`, `data.masked_images`), so that two methods of one seed share no draws by accident.
_PLACE, _AUGMENT = range(16, 18)
# A class may vanish from a small image when it is made coarser; then another image is drawn, this many times at most.
_REDRAWS = 16
_GLASS = 255  # white, what lies around tissue on a slide

Mpp = Annotated[float, Field(gt=0)]


class LabelledTileSettings(DrawSettings):
    """Which labelled images are learned from, at which spacing, and how tiles are drawn."""

    mpp: Mpp | None = 0.5
    """Micrometres per pixel of the tiles; null takes every image as it is, whatever its spacing."""
    tile_px: Count = 512
    """Side of a tile."""
    tile_px_stages: dict[int, int] = Field(default_factory=dict)
    """Another side from an epoch on, such as `data.tile_px_stages={12: 1024}`; epochs count from 1, as in
    optim.stages. Empty keeps one size."""
    sampler: Literal["balanced", "uniform"] = "balanced"
    """balanced: a class, then a group (patient) that has it, then an image, then a place; rare classes come as often as
    common ones. uniform: every labelled pixel is equally likely."""
    class_weights: dict[str, float] = Field(default_factory=dict)
    """How often each class is drawn (balanced), relative to 1 of those that are not named; 0 never."""
    samples_per_epoch: Count | None = None
    """Tiles of an epoch; null is as many tiles of `tile_px` as cover all images once."""
    augment: SegmentationAugmentSettings = SegmentationAugmentSettings()
    """How tiles are varied."""

    @field_validator("tile_px_stages")
    @classmethod
    def _stages(cls, stages: dict[int, int]) -> dict[int, int]:
        if any(epoch < 1 or side < 1 for epoch, side in stages.items()):
            raise ValueError("epochs count from 1, and sides are 1 or more")
        return stages

    @field_validator("class_weights")
    @classmethod
    def _weights(cls, weights: dict[str, float]) -> dict[str, float]:
        if any(not 0 <= weight < float("inf") for weight in weights.values()):
            raise ValueError("weights are 0 or more")
        return weights

    def tile_px_at(self, epoch: int) -> int:
        """The side of tiles in an epoch; epochs count from 1."""
        begun = [start for start in self.tile_px_stages if start <= epoch]
        return self.tile_px_stages[max(begun)] if begun else self.tile_px


@dataclass(frozen=True)
class TilePlace:
    """Where a tile lies: image `number`, its top left pixel (below 0 where the image is smaller), its side."""

    number: int
    y0: int
    x0: int
    side_px: int


class LabelledTiles:
    """Tiles of the masked images of one or several collections. Every mask is read once at the start, to count classes.

    Args:
        collections: Of images, with the same classes in the same order.
        items: Which of their items; None: all with a mask that `settings` does not exclude.
        settings: Which tiles.
        seed: Of every draw.

    Raises:
        DatasetError: There is nothing to learn from, the classes differ, a weight names no class, or masks are without
            any labelled pixel (all are named).
        ImageError: A mask cannot be read.
    """

    def __init__(
        self,
        collections: Sequence[Collection],
        items: Sequence[Item] | None,
        settings: LabelledTileSettings,
        seed: int,
    ) -> None:
        self.settings, self.seed = settings, seed
        self.items = owned_items(collections, items, settings)
        self.classes = same_classes(collections)
        unknown = sorted(set(settings.class_weights) - set(self.classes))
        if unknown:
            raise DatasetError(
                "data.class_weights", f"{', '.join(unknown)} is no class", f"Classes: {', '.join(self.classes)}."
            )
        self.counts = LabelCounts.of(self.items, len(self.classes))
        self._kept: Kept[LabelledImage] = Kept(settings.cache_mb)
        self._number = {item: number for number, (_, item) in enumerate(self.items)}

    def __len__(self) -> int:
        """Images."""
        return len(self.items)

    @cached_property
    def samples_per_epoch(self) -> int:
        """As set, else as many tiles as cover all images once."""
        if self.settings.samples_per_epoch is not None:
            return self.settings.samples_per_epoch
        side = self.settings.tile_px
        return sum(max(1, round(self._area(number) / side**2)) for number in range(len(self)))

    def _area(self, number: int) -> float:
        """Pixels of an image at the asked spacing; decoded only where its file alone states its spacing."""
        (height, width), (_, item), mpp = self.counts.shapes_px[number], self.items[number], self.settings.mpp
        if mpp is None:
            return height * width
        return height * width * (item.mpp / mpp) ** 2 if item.mpp else self.image(number).channels_YX.size

    def class_shares(self) -> dict[str, float]:
        """Class to its share of all labelled pixels, in the order of `classes`."""
        return dict(zip(self.classes, self.counts.shares.tolist(), strict=True))

    def positions(self, step: int, rank: int = 0, world_size: int = 1) -> range:
        """Positions of a rank's share of a step; the ranks' shares follow each other."""
        batch = self.settings.batch_size
        return range(step * batch + rank * batch // world_size, step * batch + (rank + 1) * batch // world_size)

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> Batch:
        """The rank's share of the batch of a step.

        Returns:
            image: uint8 (B, 3, H, W); H = W is the side of the epoch in which the step begins.
            mask: uint8 (B, H, W), indices into `classes`, or NOT_LABELLED.
            position: int64 (B,).

        Raises:
            ImageError: An image or mask cannot be read, or lacks the spacing. Nothing is put in its place.
        """
        side = self.settings.tile_px_at(1 + step * self.settings.batch_size // self.samples_per_epoch)
        positions = self.positions(step, rank, world_size)
        tiles = [self.varied(position, side) for position in positions]
        return {**stacked(tiles), "position": torch.tensor(list(positions), dtype=torch.int64)}

    def varied(self, position: int, side_px: int) -> Labelled:
        """The tile of a position, augmented; its first mask holds channels."""
        return augmented(self.tile(self.place(position, side_px)), self.settings.augment, self._rng(_AUGMENT, position))

    def place(self, position: int, side_px: int) -> TilePlace:
        """Where the tile of a position lies.

        The drawn pixel lies anywhere in the tile's middle half, not always at its centre: a model with places of its
        own would learn that rare classes live there.
        """
        rng = self._rng(_PLACE, position)
        number, (y, x) = self._drawn(rng)
        height, width = self.image(number).channels_YX.shape
        shift_y, shift_x = rng.uniform(-0.25, 0.25, 2) * side_px
        return TilePlace(
            number,
            _start(round(y + shift_y - side_px / 2), height, side_px),
            _start(round(x + shift_x - side_px / 2), width, side_px),
            side_px,
        )

    def _drawn(self, rng: np.random.Generator) -> tuple[int, tuple[int, int]]:
        """An image and a labelled pixel in it."""
        for _ in range(_REDRAWS):
            if self.settings.sampler == "balanced":
                channel = self.counts.drawn_channel(self._weights, rng)
                number = self.counts.drawn_image_of(channel, rng)
            else:
                channel, number = None, self.counts.drawn_image(rng)
            place = self.image(number).drawn_pixel(channel, rng)
            if place is not None:
                return number, place
        raise DatasetError(
            ", ".join(sorted({collection.name for collection, _ in self.items})),
            f"{_REDRAWS} drawn images lost the wanted class when brought to {self.settings.mpp} um/px",
            "Set a finer data.mpp, or data.sampler=uniform.",
        )

    @cached_property
    def _weights(self) -> np.ndarray:
        weights = np.array([self.settings.class_weights.get(name, 1.0) for name in self.classes])
        if not (weights * (self.counts.pixels_NC.sum(0) > 0)).any():
            raise DatasetError(
                "data.class_weights", "no class that occurs has a weight above 0", "Correct the weights."
            )
        return weights

    # ---- images and tiles as they are -------------------------------------------------------------------------------

    def image(self, number: int) -> LabelledImage:
        """Image `number` at the asked spacing."""
        return self._kept.get(number, lambda: prepared(*self.items[number], self.settings.mpp, self.settings.intensity))

    def whole(self, item: Item) -> tuple[np.ndarray, np.ndarray]:
        """A whole image at the settings' mpp: (Y, X, 3) uint8 and (Y, X) uint8 channels.

        Raises:
            KeyError: It is none of `items`.
        """
        found = self.image(self._number[item])
        return found.pixels_YXC, found.channels_YX

    def tile(self, place: TilePlace) -> Labelled:
        """The pixels and channels of a place, as they are."""
        image, side = self.image(place.number), place.side_px
        height, width = image.channels_YX.shape
        y0, x0 = max(0, place.y0), max(0, place.x0)
        rows, columns = slice(y0, min(height, place.y0 + side)), slice(x0, min(width, place.x0 + side))
        pixels, channels = image.pixels_YXC[rows, columns], image.channels_YX[rows, columns]
        if channels.shape != (side, side):
            top, left = y0 - place.y0, x0 - place.x0
            before_after = ((top, side - top - channels.shape[0]), (left, side - left - channels.shape[1]))
            pixels = np.pad(pixels, (*before_after, (0, 0)), constant_values=_GLASS)
            channels = np.pad(channels, before_after, constant_values=NOT_LABELLED)
        return Labelled(pixels, (channels,))

    def listed(self, overlap: float = 0.25) -> list[TilePlace]:
        """Tiles that cover every image, each overlapping the next by this share of its side at least."""
        side = self.settings.tile_px
        return [
            TilePlace(number, y0, x0, side)
            for number in range(len(self))
            for y0 in starts(self.image(number).channels_YX.shape[0], side, overlap)
            for x0 in starts(self.image(number).channels_YX.shape[1], side, overlap)
        ]

    def held(self, places: Sequence[TilePlace]) -> Batch:
        """Listed tiles as a batch without augmentation: `image` and `mask` as `batch` gives them."""
        return stacked([self.tile(place) for place in places])

    def _rng(self, use: int, position: int) -> np.random.Generator:
        return np.random.default_rng((use, position, 0, self.seed))


def starts(length: int, side: int, overlap: float) -> list[int]:
    """Where tiles begin along one axis so that they cover it, evenly spread; one, centred, where it is shorter."""
    if length <= side:
        return [_start(0, length, side)]
    steps = int(np.ceil((length - side) / max(1, int(side * (1 - overlap)))))
    return [round(number * (length - side) / steps) for number in range(steps + 1)]


def stacked(tiles: Sequence[Labelled]) -> Batch:
    """`image` uint8 (B, 3, H, W) and `mask` uint8 (B, H, W) of tiles of one size, in one copy."""
    side_y, side_x = tiles[0].masks[0].shape
    images, masks = (
        np.empty((len(tiles), 3, side_y, side_x), np.uint8),
        np.empty((len(tiles), side_y, side_x), np.uint8),
    )
    for image, mask, tile in zip(images, masks, tiles, strict=True):
        image[...], mask[...] = np.moveaxis(tile.pixels_YXC, -1, 0), tile.masks[0]
    return {"image": torch.from_numpy(images), "mask": torch.from_numpy(masks)}


def _start(wanted: int, length: int, side: int) -> int:
    """Where a tile begins so that it stays inside; a shorter image lies in its middle."""
    return min(max(0, wanted), length - side) if length >= side else -((side - length) // 2)
