"""Training samples of a promptable model: a tile, some of its objects, and the first prompt of each.

The tile is cut and augmented first, image and mask together; only then objects are chosen and prompts made, from the
mask as it is after all that. So a prompt cannot point to where its object was before the image was turned. A pure
function of seed and step, as every sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
import torch
from pydantic import Field

from lamella.data.fixed_views import FixedViews
from lamella.data.labelled_tiles import LabelledTiles, LabelledTileSettings
from lamella.data.sample import Batch
from lamella.data.segmentation_augment import Labelled
from lamella.data.training_items import Count
from lamella.errors import DatasetError
from lamella.formats.label_values import NOT_LABELLED
from lamella.imaging.datasets.collection import Collection, Item
from lamella.models.simulated_user import TrueObject, as_prompts, first_prompt, true_objects

# Streams of random numbers; `labelled_tiles` has 16 and 17, `fixed_views` 18.
_OBJECTS = 19
# A tile may hold no object (a view of nothing but background): then the next is taken, this many times at most.
_REDRAWS = 64
_FAR = 1 << 40  # positions of redrawn tiles: farther than any run trains


class PromptedDataSettings(LabelledTileSettings):
    """Which labelled images are learned from, how tiles are drawn, and which of their objects are asked about."""

    tile_px: Count = 1024
    """Side of a tile; SAM 2 sees every tile enlarged or reduced to 1024 px."""
    batch_size: Count = 4
    """Tiles of one optimiser step, over all ranks together."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Processes that read ahead; 0 reads in the training process. The samples are the same either way."""
    views: Count | None = None
    """Train on so many fixed, augmented tiles of each image, whose embeddings a frozen encoder makes once; null draws a
    new tile each time."""
    objects: Count = 4
    """Objects asked about in a tile; where there are fewer, some are asked about twice."""
    min_area_px: Count = 100
    """Objects of fewer pixels are not asked about, unless a tile has no larger one."""
    box: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the tiles whose first prompts are boxes; in the others they are clicks."""


class PromptedObjects:
    """Batches of tiles with objects and first prompts.

    Args:
        collections: Of images with masks, with the same classes.
        items: Which of their items.
        settings: How they are drawn.
        seed: Of every draw.

    Raises:
        DatasetError, ImageError: As for `LabelledTiles`.
    """

    def __init__(
        self, collections: Sequence[Collection], items: Sequence[Item] | None, settings: PromptedDataSettings, seed: int
    ) -> None:
        background = collections[0].mask_background
        # Nobody prompts for the background, so no tile is drawn for its sake.
        weights = settings.class_weights | ({} if background is None else {background: 0.0})
        self.settings, self.seed = settings, seed
        self.tiles = LabelledTiles(collections, items, settings.model_copy(update={"class_weights": weights}), seed)
        self.background = None if background is None else self.tiles.classes.index(background)
        self.fixed = None if settings.views is None else FixedViews(self.tiles, settings.views)

    def __len__(self) -> int:
        """Images."""
        return len(self.tiles)

    @property
    def samples_per_epoch(self) -> int:
        return self.tiles.samples_per_epoch

    def positions(self, step: int, rank: int = 0, world_size: int = 1) -> range:
        """Positions of a rank's share of a step."""
        return self.tiles.positions(step, rank, world_size)

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> Batch:
        """The rank's share of the batch of a step.

        Returns:
            image: uint8 (B, 3, H, W).
            objects: bool (B, M, H, W), each a connected part of one class.
            known: bool (B, H, W), where the truth is known.
            channel: int64 (B, M), the objects' classes.
            points: float32 (B, M, 1, 2) and labels: int64 (B, M, 1); PADDING where the first prompt is a box.
            boxes: float32 (B, M, 4); NaN where it is a click.
            view: int64 (B,), the number of the fixed view; -1 of a tile that is drawn anew.
            position: int64 (B,).
        """
        epoch = 1 + step * self.settings.batch_size // self.samples_per_epoch
        samples = [self.sample(position, epoch) for position in self.positions(step, rank, world_size)]
        return {key: torch.stack([sample[key] for sample in samples]) for key in samples[0]}

    def sample(self, position: int, epoch: int = 1) -> dict[str, torch.Tensor]:
        """The sample of a position, without the batch's axis; see `batch`."""
        rng = np.random.default_rng((_OBJECTS, position, 0, self.seed))
        view, tile, objects = self._tile(position, epoch)
        chosen = self._chosen(objects, rng)
        height, width = tile.masks[0].shape
        masks = np.stack([each.mask(height, width) for each in chosen])
        boxed = bool(rng.random() < self.settings.box)
        prompts = as_prompts([[first_prompt(mask, rng, box=boxed) for mask in masks]])
        M = len(chosen)
        no_click = (torch.zeros(1, M, 1, 2), torch.full((1, M, 1), -1))
        points, labels = no_click if prompts.points_BMP2 is None else (prompts.points_BMP2, prompts.labels_BMP)
        assert labels is not None
        boxes = torch.full((1, M, 4), torch.nan) if prompts.boxes_BM4 is None else prompts.boxes_BM4
        return {
            "image": torch.from_numpy(np.ascontiguousarray(np.moveaxis(tile.pixels_YXC, -1, 0))),
            "objects": torch.from_numpy(masks),
            "known": torch.from_numpy(tile.masks[0] != NOT_LABELLED),
            "channel": torch.tensor([each.channel for each in chosen]),
            "points": points[0],
            "labels": labels[0],
            "boxes": boxes[0],
            "view": torch.tensor(view),
            "position": torch.tensor(position),
        }

    def _tile(self, position: int, epoch: int) -> tuple[int, Labelled, list[TrueObject]]:
        """A tile that holds an object: the position's own, or the first after it that does."""
        for redraw in range(_REDRAWS):
            if self.fixed is not None:
                view = self.fixed.order.at(position + redraw)[1]
                tile = self.fixed.view(*divmod(view, self.fixed.views))
            else:
                view, tile = -1, self.tiles.varied(position + redraw * _FAR, self.settings.tile_px_at(epoch))
            objects = true_objects(tile.masks[0], background=self.background)
            if objects:
                return view, tile, objects
        raise DatasetError(
            ", ".join(sorted({collection.name for collection, _ in self.tiles.items})),
            f"{_REDRAWS} tiles in a row hold no object",
            "Set a larger data.tile_px, or leave out images without objects.",
        )

    def _chosen(self, objects: Sequence[TrueObject], rng: np.random.Generator) -> list[TrueObject]:
        """Objects to ask about: a class, then one of its objects; none twice while there are others."""
        large = [each for each in objects if each.area_px >= self.settings.min_area_px]
        left = large or [max(objects, key=lambda each: each.area_px)]
        chosen: list[TrueObject] = []
        while len(chosen) < self.settings.objects:
            if not left:
                left = list(chosen)  # asked about again, from another first click
            channels = sorted({each.channel for each in left})
            channel = channels[int(rng.integers(len(channels)))]
            of_class = [number for number, each in enumerate(left) if each.channel == channel]
            chosen.append(left.pop(of_class[int(rng.integers(len(of_class)))]))
        return chosen
