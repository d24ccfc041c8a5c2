"""A dense model that is shown every tile at several micrometres per pixel; the maps are averaged.

The tile is read at the finest spacing and area-averaged to the coarser ones, so all of them show the same field of
view. Maps of coarser spacings are enlarged linearly onto the finest one's.

Shapes: B tiles, C channels, H side of a tile at the finest spacing, h of the maps.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from lamella.errors import LamellaError
from lamella.models.dense_contract import DenseModel

_ROUNDING = 1e-6  # of a ratio of two scales that is meant to be whole


class MultiScale:
    """A dense model whose maps are the mean over several spacings.

    Args:
        model: Shown the tiles; it states its mpp.
        scales: Factors of the model's own micrometres per pixel: 1 is what it was trained at, 2 is half as fine. Each
            must be a whole multiple of the smallest.

    Attributes:
        contract: The model's at the finest spacing; the tile is as large as the model's own at the coarsest.

    Raises:
        LamellaError: The scales are no such multiples, or the model states no mpp.
    """

    def __init__(self, model: DenseModel, scales: Sequence[float]) -> None:
        scales = sorted(scales)
        if not scales or scales[0] <= 0 or len(set(scales)) != len(scales):
            raise LamellaError(f"scales {_listed(scales)}", "they must be positive and different", "For example 1, 2.")
        ratios = [round(scale / scales[0]) for scale in scales]
        if any(abs(scale / scales[0] - ratio) > _ROUNDING for scale, ratio in zip(scales, ratios, strict=True)):
            raise LamellaError(
                f"scales {_listed(scales)}",
                f"each must be a whole multiple of the smallest, {scales[0]:g}",
                "For example 1, 2 or 0.5, 1, 2.",
            )
        if model.contract.mpp is None:
            raise LamellaError(model.name, "it does not state its micrometres per pixel", "Give no scales.")
        self._model, self._scales, self._ratios = model, tuple(scales), tuple(ratios)
        own = model.contract
        self.name = f"{model.name} at {_listed(scales)} x its mpp"
        self.contract = dataclasses.replace(
            own,
            mpp=model.contract.mpp * scales[0],
            tile_px=own.tile_px * ratios[-1],
            multiple_px=math.lcm(own.multiple_px, own.stride) * math.lcm(*ratios),  # at every spacing
        )

    @property
    def fingerprint(self) -> str:
        """16 hex digits; the same for the same model and scales."""
        text = f"scales {list(self._scales)} {self._model.fingerprint}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def maps(self, images: Tensor) -> Tensor:
        """uint8 (B, 3, H, H) at the finest spacing to float32 (B, C, h, h)."""
        total: Tensor | None = None
        for ratio in self._ratios:
            maps = self._model.maps(coarser(images, ratio)).float()
            if total is None:
                total = maps.clone()
            else:
                total += functional.interpolate(maps, total.shape[-2:], mode="bilinear", align_corners=False)
        assert total is not None
        return total.div_(len(self._ratios))

    def to(self, device: Any) -> MultiScale:
        self._model.to(device)
        return self


def coarser(images: Tensor, ratio: int) -> Tensor:
    """uint8 (B, 3, H, W) whose sides are multiples of the ratio: the mean of each ratio x ratio pixels, rounded."""
    if ratio == 1:
        return images
    return functional.avg_pool2d(images.float(), ratio).add_(0.5).to(torch.uint8)


def _listed(scales: Sequence[float]) -> str:
    return ", ".join(f"{scale:g}" for scale in scales)
