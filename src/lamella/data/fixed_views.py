"""A fixed number of varied tiles of each image, for networks whose answers are kept: each tile comes again and again.

A view depends on the image, its number and the seed alone: whatever else is trained on, the same image gives the same
views. So what a frozen network made of them serves every fold.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch

from lamella.data.labelled_tiles import LabelledTiles, TilePlace, stacked
from lamella.data.order import Order
from lamella.data.sample import Batch
from lamella.data.segmentation_augment import Labelled, augmented

_VIEW = 18  # of the random stream; `labelled_tiles` has 16 and 17


class FixedViews:
    """Batches of views, as a pure function of the step.

    Args:
        tiles: The images and how tiles of them are varied; its own sampler is not used.
        views: Of each image.
    """

    def __init__(self, tiles: LabelledTiles, views: int) -> None:
        self.tiles, self.views = tiles, views
        self.order = Order(len(tiles) * views, tiles.seed)

    def __len__(self) -> int:
        """Views of all images."""
        return len(self.tiles) * self.views

    @property
    def samples_per_epoch(self) -> int:
        return self.tiles.samples_per_epoch

    def positions(self, step: int, rank: int = 0, world_size: int = 1) -> range:
        """Positions of a rank's share of a step."""
        return self.tiles.positions(step, rank, world_size)

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> Batch:
        """As `LabelledTiles.batch`; every view comes once before any comes again."""
        positions = self.positions(step, rank, world_size)
        numbers = [self.order.at(position)[1] for position in positions]
        views = [self.view(*divmod(number, self.views)) for number in numbers]
        return {**stacked(views), "position": torch.tensor(list(positions), dtype=torch.int64)}

    def view(self, number: int, view: int) -> Labelled:
        """View `view` of image `number`: a tile anywhere in it, varied."""
        collection, item = self.tiles.items[number]
        name = hashlib.blake2b(f"{collection.name}/{item.item_id}".encode(), digest_size=8).digest()
        rng = np.random.default_rng((_VIEW, int.from_bytes(name), view, self.tiles.seed))
        side = self.tiles.settings.tile_px
        y0, x0 = (_start(length, side, rng) for length in self.tiles.image(number).channels_YX.shape)
        tile = self.tiles.tile(TilePlace(number, y0, x0, side))
        return augmented(tile, self.tiles.settings.augment, rng)


def _start(length: int, side: int, rng: np.random.Generator) -> int:
    """Evenly where there is room; a shorter image lies in the tile's middle."""
    return int(rng.integers(length - side + 1)) if length >= side else -((side - length) // 2)
