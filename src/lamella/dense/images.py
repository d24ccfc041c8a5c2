"""Dense prediction on one image in memory: the tiles, the blending and the code of whole slides."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from lamella.dense.blending import BlendSettings
from lamella.dense.runtime import Runtime, blend, device_of, tile_side
from lamella.dense.tiling import Tiling
from lamella.models.dense_contract import DenseModel
from lamella.slides.views import PADDING_VALUE


def predict_image(
    model: DenseModel,
    pixels_YXC: np.ndarray,
    settings: BlendSettings | None = None,
    *,
    batch_size: int = 8,
    tile_px: int | None = None,
    device: torch.device | None = None,
    bf16: bool = False,
) -> np.ndarray:
    """The maps of an image of any size; it is never squashed.

    Tiles reach over the image only where it is smaller than a tile; there it is white, as slides are outside.

    Args:
        model: Any dense model. Its mode (train or eval) is left as it is.
        pixels_YXC: uint8 (Y, X, 3) at the model's mpp.
        settings: Window, overlap, turned copies; the defaults if not given.
        batch_size: Tiles shown at once.
        tile_px: Side of a tile; the model's own by default.
        device: Where the model's weights are; found out by default.
        bf16: Compute in bf16 where autocast does.

    Returns:
        float32 (C, Y, X); with a stride s (C, ceil(Y / s), ceil(X / s)).

    Raises:
        LamellaError: The model does not keep to its contract, or cannot take tiles of this size.
        ValueError: The image is none.
    """
    if pixels_YXC.dtype != np.uint8 or pixels_YXC.ndim != 3 or pixels_YXC.shape[2] != 3 or not pixels_YXC.size:
        raise ValueError(f"an image is uint8 (Y, X, 3), not {pixels_YXC.dtype} {pixels_YXC.shape}")
    settings = settings or BlendSettings()
    stride, side = model.contract.stride, tile_side(model, tile_px)
    height, width = (-(-length // stride) for length in pixels_YXC.shape[:2])
    tiling = Tiling.over(height, width, side // stride, settings.overlap)
    taker = _Canvas(np.empty((len(model.contract.channels), height, width), np.float32))
    runtime = Runtime(device or device_of(model), batch_size, bf16=bf16)
    blend(model, _tiles(pixels_YXC, tiling, side, stride, batch_size), tiling, settings, taker, runtime)
    return taker.canvas


class _Canvas:
    """Takes all of a raster."""

    def __init__(self, canvas_CYX: np.ndarray) -> None:
        self.canvas = canvas_CYX

    def take(self, y: int, x: int, block_CYX: Tensor, seen_YX: Tensor | None) -> None:
        part = self.canvas[:, y : y + block_CYX.shape[1], x : x + block_CYX.shape[2]]
        part[...] = block_CYX[:, : part.shape[1], : part.shape[2]].cpu().numpy()

    def rows_finished(self, y: int) -> None:
        """Nothing to do: the canvas is whole."""


def _tiles(pixels_YXC: np.ndarray, tiling: Tiling, side: int, stride: int, batch_size: int) -> Iterator[Tensor]:
    for start in range(0, len(tiling), batch_size):
        tiles = list(tiling.tiles(start, start + batch_size))
        batch = np.full((len(tiles), side, side, 3), PADDING_VALUE, np.uint8)
        for image, tile in zip(batch, tiles, strict=True):
            part = pixels_YXC[tile.y * stride : tile.y * stride + side, tile.x * stride : tile.x * stride + side]
            image[: part.shape[0], : part.shape[1]] = part
        yield torch.from_numpy(batch).permute(0, 3, 1, 2)
