"""Tiles read in the order of their table, by threads that each keep their own slide handles.

Shapes: B tiles of a batch, H = W = tile_px.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import torch

from lamella.geometry import Box, Frame
from lamella.slides.grid import one_tile_px, tile_corners_px0
from lamella.slides.slide import Slide, SlideCache

# Batches read ahead of the one in use: one being filled and one ready keep an encoder fed.
_AHEAD = 2
# Handles a thread keeps: a table is usually sorted by slide, and two bridge the change.
_SLIDES_PER_THREAD = 2


class Readable(Protocol):
    """What reading needs of a slide; an IndexedSlide is one."""

    @property
    def slide_id(self) -> str: ...

    @property
    def wsi_path(self) -> Path: ...

    @property
    def frame(self) -> Frame: ...

    @property
    def mpp_stated(self) -> tuple[float, float]: ...


class TileBatches:
    """Batches of a tile table's tiles: uint8 tensors (B, 3, H, W), always in the table's order.

    Memory is bounded by three batches. A tile that cannot be read raises SlideError at its place; nothing is
    put in its stead.

    Args:
        slides: slide_id -> slide, for every slide of the table.
        table: A tile table; all tiles have one size in pixels.
        batch_size: Tiles of a batch; the last may be smaller.
        threads: Tiles read at once.
        tolerance: Relative difference up to which a pyramid level counts as being at a tile's mpp.

    Raises:
        LamellaError: The tiles have different sizes in pixels.
        KeyError: The table names a slide that `slides` does not have.
    """

    def __init__(
        self,
        slides: Mapping[str, Readable],
        table: pa.Table,
        *,
        batch_size: int,
        threads: int = 2,
        tolerance: float = 0.05,
    ) -> None:
        self.tile_px = one_tile_px(table)
        self._batch_size, self._threads, self._tolerance = batch_size, threads, tolerance
        self._slides = [slides[slide_id] for slide_id in table.column("slide_id").to_pylist()]
        self._mpp = table.column("mpp").to_numpy()
        self._boxes_px0 = _boxes_px0(table, self._slides)

    def __len__(self) -> int:
        return -(-len(self._slides) // self._batch_size)

    def __iter__(self) -> Iterator[torch.Tensor]:
        handles = _Handles()
        starts = range(0, len(self._slides), self._batch_size)
        pending: deque[list[Future[np.ndarray]]] = deque()
        with ThreadPoolExecutor(self._threads) as pool:
            try:
                for start in starts:
                    rows = range(start, min(start + self._batch_size, len(self._slides)))
                    pending.append([pool.submit(self._read, handles, row) for row in rows])
                    if len(pending) > _AHEAD:
                        yield _stacked(pending.popleft())
                while pending:
                    yield _stacked(pending.popleft())
            finally:
                pool.shutdown(cancel_futures=True)
                handles.close()

    def _read(self, handles: _Handles, row: int) -> np.ndarray:
        slide = handles.of_this_thread(self._slides[row])
        return slide.read(self._boxes_px0[row], float(self._mpp[row]), tolerance=self._tolerance).pixels


class _Handles:
    """Open slides of each thread: a handle is never used by two threads."""

    def __init__(self) -> None:
        self._own = threading.local()
        self._all: list[SlideCache] = []

    def of_this_thread(self, slide: Readable) -> Slide:
        if not hasattr(self._own, "cache"):
            self._own.cache = SlideCache(_SLIDES_PER_THREAD)
            self._all.append(self._own.cache)  # list.append is atomic
        return self._own.cache.get(slide.wsi_path, slide.mpp_stated)

    def close(self) -> None:
        for cache in self._all:
            cache.close()


def _boxes_px0(table: pa.Table, slides: list[Readable]) -> list[Box]:
    corners, fov_um = tile_corners_px0(table), table.column("fov_um").to_numpy()
    sides = fov_um[:, None] / np.array([(slide.frame.mpp_x, slide.frame.mpp_y) for slide in slides]).reshape(-1, 2)
    return [Box(x, y, x + width, y + height) for (x, y), (width, height) in zip(corners, sides, strict=True)]


def _stacked(tiles: list[Future[np.ndarray]]) -> torch.Tensor:
    """(B, 3, H, W) uint8."""
    pixels = np.stack([tile.result() for tile in tiles])
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))
