"""Volumes with masks as the segmentation heads see them: overlapping windows.

They are stitched on the grid of the prepared volume and judged on the grid of the mask itself.

Shapes: W windows, C channels or classes, Z slices, Y rows, X columns, T tokens, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from lamella.data.volumes import PreparedVolumes, cut
from lamella.imaging.datasets.collection import Collection, Item
from lamella.metrics.detection import Found, candidates, match_mask
from lamella.metrics.segmented import Windows
from lamella.metrics.study import CannotAsk
from lamella.models.heads import upsampled
from lamella.models.volume_encoder import VolumeEncoder
from lamella.models.volume_vit import patchify3d
from lamella.verbs.evaluation.image_masks import class_numbers, nearest
from lamella.verbs.progress import progress

# Targets are four times finer than the tokens, as for images.
_FINER = 4
Corner = tuple[int, int, int]


@dataclass(frozen=True)
class VolumeWindows:
    """The windows of some volumes.

    Args:
        volumes: Prepared as the encoder was shown them in pretraining.
        items: With masks, in a fixed order.
        encoder: Says the size of a window and its patches.
        overlap: Share of a window that its neighbour covers, too.
    """

    volumes: PreparedVolumes
    items: tuple[Item, ...]
    encoder: VolumeEncoder
    overlap: float
    _corners: list[tuple[int, Corner]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for row, item in enumerate(self.items):
            prepared = self.volumes.prepared(item)
            if prepared.timed or prepared.channels != self.encoder.contract.channels:
                has = "points in time" if prepared.timed else f"{prepared.channels} channel(s)"
                takes = f"{self.encoder.contract.channels} channel(s)"
                raise CannotAsk(f"{item.item_id} has {has}, and the encoder takes volumes of {takes}")
            shape = prepared.values_CZYX.shape[1:]
            self._corners.extend((row, corner) for corner in corners(shape, self.encoder.contract.size, self.overlap))

    @property
    def collection(self) -> Collection:
        return self.volumes.collection

    def windows(self) -> Windows:
        """What the heads are trained and judged on."""
        contract = self.encoder.contract
        grid = tuple(side // patch for side, patch in zip(contract.size, contract.patch, strict=True))
        fine = tuple(min(side * _FINER, whole) for side, whole in zip(grid, contract.size, strict=True))
        targets = []
        for row, corner in self._corners:
            labels = class_numbers(self.volumes.mask(self.items[row]), self.collection)
            crop, _ = cut(labels[None], corner, contract.size, np.zeros(1, np.uint8))
            targets.append(nearest(crop[0], fine))
        owner = np.array([row for row, _ in self._corners])
        return Windows(owner, np.stack(targets), grid, self._assemble, self.truth, self._lesions)

    def truth(self, row: int) -> np.ndarray:
        """(Z, Y, X) uint8 classes of the row's mask on its own grid."""
        assert self.collection.read_mask is not None
        return class_numbers(self.collection.read_mask(self.items[row]), self.collection)

    def tokens(self, encoder: VolumeEncoder, device: torch.device) -> np.ndarray:
        """(W, T, D) float16 tokens of every window."""

        def encode(row: int, values: Tensor) -> Tensor:
            spacing = self.volumes.prepared(self.items[row]).spacing_mm
            return encoder.tokens(values.to(device), None if encoder.contract.spacing_mm else spacing)

        return self._each(encode)

    def raw_tokens(self) -> np.ndarray:
        """(W, T, P) the values of each patch."""
        return self._each(lambda _, values: patchify3d(values, self.encoder.contract.patch))

    def _each(self, encode: Callable[[int, Tensor], Tensor]) -> np.ndarray:
        found = []
        for row, corner in progress(self._corners, "windows"):
            prepared = self.volumes.prepared(self.items[row])
            crop, _ = cut(prepared.values_CZYX, corner, self.encoder.contract.size, prepared.background_C)
            with torch.inference_mode():
                found.append(encode(row, torch.from_numpy(crop)[None])[0].half().cpu().numpy())
        return np.stack(found)

    def _assemble(self, row: int, logits: Tensor) -> np.ndarray:
        """Mean probability of the windows over each voxel, then the nearest voxel of the mask's grid."""
        shape, size = self.volumes.values(self.items[row]).shape[1:], self.encoder.contract.size
        own = [corner for owner, corner in self._corners if owner == row]
        total = np.zeros((logits.shape[1], *shape), np.float32)
        seen = np.zeros(shape, np.float32)
        for corner, one in zip(own, logits, strict=True):
            chance = upsampled(one[None], size)[0].softmax(0).numpy()
            stops = [min(at + side, whole) for at, side, whole in zip(corner, size, shape, strict=True)]
            inside = tuple(slice(at, stop) for at, stop in zip(corner, stops, strict=True))
            part = tuple(slice(0, each.stop - each.start) for each in inside)
            total[:, *inside] += chance[:, *part]
            seen[inside] += 1
        total /= seen
        return np.stack([nearest(one, self.truth(row).shape) for one in total])

    def _lesions(self, row: int, chance: np.ndarray) -> Found:
        return match_mask(candidates(chance), self.truth(row))


def corners(shape: Sequence[int], size: Sequence[int], overlap: float) -> list[Corner]:
    """(z, y, x) of windows that cover a volume evenly, each neighbour overlapping by at least this share.

    A volume smaller than a window has one along that axis, at 0; what lies beyond is filled by whoever cuts it.
    """

    def along(whole: int, side: int) -> list[int]:
        if whole <= side:
            return [0]
        count = int(np.ceil((whole - side) / max(1.0, side * (1 - overlap)))) + 1
        return [round(at) for at in np.linspace(0, whole - side, count)]

    z, y, x = (along(whole, side) for whole, side in zip(shape, size, strict=True))
    return [(a, b, c) for a in z for b in y for c in x]
