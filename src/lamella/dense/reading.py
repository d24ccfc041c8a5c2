"""The tiles of a slide, read ahead in batches so that a model never waits for a decoder.

Shapes: B tiles of a batch, H = W side of a tile in image pixels.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from lamella.dense.runtime import Runtime
from lamella.dense.tiling import Tiling
from lamella.geometry import Box, Frame
from lamella.slides.slide import Slide

# Batches read ahead of the one in use: one being filled and one ready keep a model fed.
_AHEAD = 2
# Buffers: those ahead, the one in use, and one whose copy to the device may still be under way.
_BUFFERS = _AHEAD + 2


class SlideTiles:
    """Batches of a tiling's tiles: uint8 (B, 3, H, H), views of (B, H, H, 3) memory that is used again.

    Args:
        slide: Open.
        tiling: Of the maps' raster.
        frame: The maps' raster laid over the slide from its top left corner.
        stride: Image pixels per pixel of the raster.
        runtime: B (the last batch may be smaller), how many decode at once, and the device: a GPU copies from
            page-locked memory while it computes.
    """

    def __init__(self, slide: Slide, tiling: Tiling, frame: Frame, stride: int, runtime: Runtime) -> None:
        self._slide, self._tiling, self._frame, self._stride = slide, tiling, frame, stride
        self._batch_size, self._threads = runtime.batch_size, runtime.threads
        self._pinned = runtime.device.type == "cuda"

    def batches(self, first_tile: int = 0) -> Iterator[Tensor]:
        """From a tile on, in the tiling's order.

        Raises:
            SlideError: A tile cannot be decoded.
        """
        side = self._tiling.side * self._stride
        starts = range(first_tile, len(self._tiling), self._batch_size)
        buffers = [
            torch.empty((self._batch_size, side, side, 3), dtype=torch.uint8, pin_memory=self._pinned)
            for _ in range(min(_BUFFERS, len(starts)))
        ]
        pending: deque[Future[Tensor]] = deque()
        with ThreadPoolExecutor(1, "tiles") as reading:  # one thread plans; `read_many` has its own for decoding
            try:
                for number, start in enumerate(starts):
                    pending.append(reading.submit(self._read, start, buffers[number % _BUFFERS]))
                    if len(pending) > _AHEAD:
                        yield pending.popleft().result()
                while pending:
                    yield pending.popleft().result()
            finally:
                reading.shutdown(cancel_futures=True)

    def _read(self, start: int, buffer: Tensor) -> Tensor:
        boxes_px0 = [
            self._frame.box_in(
                self._slide.frame, Box(tile.x, tile.y, tile.x + self._tiling.side, tile.y + self._tiling.side)
            )
            for tile in self._tiling.tiles(start, start + self._batch_size)
        ]
        filled = buffer[: len(boxes_px0)]
        mpp = self._frame.mpp / self._stride
        self._slide.read_many(boxes_px0, mpp, threads=self._threads, out=filled.numpy())
        return filled.permute(0, 3, 1, 2)
