"""Images with masks as the segmentation heads see them: tokens of whole images, targets, masks on their own grid.

Shapes: N items, S side of the image as encoded, G tokens along a side, T = G * G tokens, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lamella.errors import ImageError
from lamella.formats.label_values import NOT_LABELLED
from lamella.imaging.datasets.collection import Collection, Item
from lamella.imaging.spacing import resize_image
from lamella.metrics.detection import Found, candidates, match_boxes, match_mask
from lamella.metrics.segmented import SegmentationSettings, Windows
from lamella.models.encoders import Encoder
from lamella.models.heads import upsampled
from lamella.models.vit import patchify
from lamella.verbs.evaluation.image_features import ItemViews, read_arrays, write_arrays
from lamella.verbs.progress import progress

# Targets are four times finer than the tokens: the head learns boundaries between tokens at a sixteenth of the cost of
# the full image.
_FINER = 4
RAW = "raw pixels"  # of each patch, as tokens: what a head makes of them without any encoder


@dataclass(frozen=True)
class MaskedItems:
    """Items with masks, in a fixed order, and how their masks read.

    Args:
        collection: With `read_mask`.
        items: That have a mask.
        views: Of the images.
    """

    collection: Collection
    items: tuple[Item, ...]
    views: ItemViews

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.collection.mask_classes)

    def truth(self, row: int) -> np.ndarray:
        """(Y, X) uint8 classes 1..C of the row's mask; 0 is background, NOT_LABELLED is not asked about.

        Raises:
            ImageError: The mask cannot be read.
        """
        assert self.collection.read_mask is not None
        return class_numbers(self.collection.read_mask(self.items[row]), self.collection)

    def windows(self, side_px: int, patch_px: int) -> Windows:
        """One window an item."""
        grid = (side_px // patch_px,) * 2
        fine = tuple(min(side * _FINER, side_px) for side in grid)
        targets = np.stack([nearest(self.truth(row), fine) for row in range(len(self.items))])

        def assemble(row: int, logits: Tensor) -> np.ndarray:
            return upsampled(logits, self.truth(row).shape)[0].softmax(0).numpy()

        return Windows(np.arange(len(self.items)), targets, grid, assemble, self.truth, self._lesions)

    def _lesions(self, row: int, chance: np.ndarray) -> Found:
        boxes = [box[:4] for box in self.items[row].boxes]
        found = candidates(chance)
        return match_boxes(found, boxes) if boxes else match_mask(found, self.truth(row))

    def readable(self) -> tuple[MaskedItems, dict[str, str]]:
        """Without the items whose image or mask cannot be read, and the errors of those."""
        kept, failed = [], {}
        for row, item in enumerate(self.items):
            try:
                shape = self.views.pixels(item).shape
                if not self.truth(row).size or min(shape) < 1:
                    raise ImageError(item.item_id, "its mask is empty", "Correct the mask.")
            except ImageError as error:
                failed[item.item_id] = str(error)
                continue
            kept.append(item)
        return MaskedItems(self.collection, tuple(kept), self.views), failed

    def tokens(self, encoder: Encoder, side_px: int, device: torch.device) -> np.ndarray:
        """(N, T, D) float16 tokens of every image brought to side_px."""
        return self._each(side_px, lambda images: encoder.tokens(images.to(device)))

    def raw_tokens(self, side_px: int, patch_px: int) -> np.ndarray:
        """(N, T, P) the pixels of each patch."""
        return self._each(side_px, lambda images: patchify(images, patch_px).float() / 255)

    def _each(self, side_px: int, encode: Callable[[Tensor], Tensor]) -> np.ndarray:
        found = []
        for item in progress(self.items, "tokens"):
            pixels = resize_image(self.views.pixels(item), side_px, side_px)
            images = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None]
            with torch.inference_mode():
                found.append(encode(images)[0].half().cpu().numpy())
        return np.stack(found)


def side_of(encoder: Encoder, settings: SegmentationSettings) -> int:
    """Side to which images are brought, in whole patches."""
    patch, wanted = encoder.contract.patch_px, settings.side_px or 2 * encoder.contract.size_px
    return max(1, round(wanted / patch)) * patch


def class_numbers(mask: np.ndarray, collection: Collection) -> np.ndarray:
    """uint8 classes 1..C of a mask whose values are the data set's; 0 is background, NOT_LABELLED stays what it is."""
    numbers = np.where(mask == NOT_LABELLED, NOT_LABELLED, 0).astype(np.uint8)
    for number, value in enumerate(collection.mask_classes.values(), start=1):
        numbers[mask == value] = number
    return numbers


def nearest(labels: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Labels on another grid over the same field: the nearest old cell's."""
    at = [
        np.minimum(((np.arange(new) + 0.5) * old / new).astype(np.int64), old - 1)
        for old, new in zip(labels.shape, size, strict=True)
    ]
    return labels[np.ix_(*at)]


def cached_tokens(path: Path, key: str, make: Callable[[], np.ndarray]) -> np.ndarray:
    """Tokens from a file of this key, else made and stored."""
    stored = read_arrays(path, key)
    if stored is None:
        stored = {"tokens": make()}
        write_arrays(path, stored, key)
    return stored["tokens"]
