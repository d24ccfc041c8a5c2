"""Dense models without weights, whose answers are known, and a slide that is an array in memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lamella.models.dense_contract import DenseContract
from lamella.slides.readers.mpp import Resolution
from lamella.slides.slide import Slide

CLASSES = ("background", "gland", "stroma")


class ColourModel:
    """Each pixel's probabilities follow from its colour alone, so that no tiling may show."""

    name = "colour"
    fingerprint = "c0c0c0c0c0c0c0c0"

    def __init__(self, tile_px: int = 64, mpp: float | None = 0.5, **contract: Any) -> None:
        self.contract = DenseContract(CLASSES, mpp, tile_px, **contract)
        self.batches: list[int] = []

    def maps(self, images: torch.Tensor) -> torch.Tensor:
        self.batches.append(len(images))
        return (images.float() / 25).softmax(1)

    def to(self, device: object) -> ColourModel:
        return self


class PlaceInTileModel(ColourModel):
    """Pixels look different from every tile: what is wrong with weights, order or places shows."""

    name = "place"
    fingerprint = "ababababababab00"

    def maps(self, images: torch.Tensor) -> torch.Tensor:
        self.batches.append(len(images))
        height, width = images.shape[-2:]
        y, x = torch.meshgrid(torch.linspace(0, 3, height), torch.linspace(0, 5, width), indexing="ij")
        return (images.float() / 50 + torch.stack([torch.sin(x), torch.cos(y), x - y])).softmax(1)


class ValueModel(ColourModel):
    """Mean colour of each `stride` x `stride` pixels, two maps of any numbers."""

    name = "values"
    fingerprint = "eeeeeeeeeeeeeeee"

    def __init__(self, tile_px: int = 64, stride: int = 4, mpp: float | None = 0.5) -> None:
        self.contract = DenseContract(("ACTB", "EPCAM"), mpp, tile_px, stride, stride, "values", None)
        self.batches = []

    def maps(self, images: torch.Tensor) -> torch.Tensor:
        self.batches.append(len(images))
        means = torch.nn.functional.avg_pool2d(images.float(), self.contract.stride)
        return torch.stack([means[:, 0] - 100, means[:, 1] * 3], dim=1)


class ArrayReader:
    """A reader whose only level is an array."""

    name = "array"
    properties: Mapping[str, str] = {}

    def __init__(self, pixels: np.ndarray) -> None:
        self._pixels = pixels

    @property
    def level_sizes(self) -> list[tuple[int, int]]:
        return [(self._pixels.shape[1], self._pixels.shape[0])]

    def read_level(self, level: int, x: int, y: int, width: int, height: int) -> np.ndarray:
        return self._pixels[y : y + height, x : x + width]

    def close(self) -> None:
        """Nothing is open."""


def array_slide(pixels: np.ndarray, mpp: float | tuple[float, float] = 0.5) -> Slide:
    mpp_x, mpp_y = mpp if isinstance(mpp, tuple) else (mpp, mpp)
    return Slide(Path("array.tif"), ArrayReader(pixels), Resolution(mpp_x, mpp_y, "stated"))


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    """(H, W, 3) uint8."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def patches(height: int, width: int, seed: int = 0) -> np.ndarray:
    """(H, W, 3) uint8 of one colour in each 16 x 16 pixels: outlines of classes are few."""
    return noise(-(-height // 16), -(-width // 16), seed).repeat(16, 0).repeat(16, 1)[:height, :width]
