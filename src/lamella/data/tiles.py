"""Tiles read ahead in the order of their table, so that an encoder never waits for a decoder.

Shapes: B tiles of a batch, H = W = tile_px.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import torch

from lamella.errors import SlideError
from lamella.geometry import Box, Frame
from lamella.slides.grid import one_tile_px, tile_corners_px0
from lamella.slides.slide import Slide, SlideCache

# Batches read ahead of the one in use: one being filled and one ready keep an encoder fed.
_AHEAD = 2
# Pinned buffers: those ahead, the one in use, and one whose copy to the device may still be under way.
_PINNED = _AHEAD + 2
# A table is usually sorted by slide, and two open ones bridge the change.
_OPEN_SLIDES = 2


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

    The tensors are views of (B, H, W, 3) memory, as the pixels come from the file: a device turns them around faster
    than this side could. Memory is bounded by four batches and the decoded tiles that a `SlideCache` keeps. A tile that
    cannot be read raises SlideError at its place; nothing is put in its stead.

    Args:
        slides: slide_id -> slide, for every slide of the table.
        table: A tile table; all tiles have one size in pixels.
        batch_size: Tiles of a batch; the last may be smaller.
        threads: How many decode at once, beside the caller.
        tolerance: Relative difference up to which a pyramid level counts as being at a tile's mpp.
        dct_scaling: Shrink JPEG tiles while they are decoded; see `lamella.slides.slide.Slide`.
        pinned: Read into page-locked memory, from which a GPU copies while it computes. A batch is then overwritten two
            batches later.
        skip_unreadable: Leave tiles out whose pixels cannot be decoded, instead of raising; batches are then smaller.

    Attributes:
        skipped: Row of the table -> error, of the tiles left out so far.

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
        dct_scaling: bool = False,
        pinned: bool = False,
        skip_unreadable: bool = False,
    ) -> None:
        self.tile_px = one_tile_px(table)
        self._batch_size, self._threads, self._tolerance = batch_size, threads, tolerance
        self._pinned = pinned
        self.dct_scaling, self.skip_unreadable = dct_scaling, skip_unreadable
        self.skipped: dict[int, SlideError] = {}
        self._slides = [slides[slide_id] for slide_id in table.column("slide_id").to_pylist()]
        self._mpp = table.column("mpp").to_numpy()
        self._boxes_px0 = _boxes_px0(table, self._slides)

    def __len__(self) -> int:
        return -(-len(self._slides) // self._batch_size)

    def __iter__(self) -> Iterator[torch.Tensor]:
        handles = SlideCache(_OPEN_SLIDES, dct_scaling=self.dct_scaling)
        buffers = [self._buffer() for _ in range(_PINNED)] if self._pinned else []
        pending: deque[Future[torch.Tensor]] = deque()
        with ThreadPoolExecutor(1, "tiles") as reading:  # one thread plans; `read_many` has its own for decoding
            try:
                for number in range(len(self)):
                    buffer = buffers[number % _PINNED] if buffers else None
                    pending.append(reading.submit(self._read, handles, number, buffer))
                    if len(pending) > _AHEAD:
                        yield from _any(pending.popleft().result())
                while pending:
                    yield from _any(pending.popleft().result())
            finally:
                reading.shutdown(cancel_futures=True)
                handles.close()

    def _read(self, handles: SlideCache, number: int, buffer: torch.Tensor | None) -> torch.Tensor:
        """(B, 3, H, W) uint8 of one batch."""
        rows = range(number * self._batch_size, min((number + 1) * self._batch_size, len(self._slides)))
        buffer = (self._buffer() if buffer is None else buffer)[: len(rows)]
        pixels = buffer.numpy()
        for run in self._runs(rows):
            slide = handles.get(self._slides[run.start].wsi_path, self._slides[run.start].mpp_stated)
            try:
                self._read_run(slide, run, pixels[run.start - rows.start : run.stop - rows.start])
            except SlideError:
                if not self.skip_unreadable:
                    raise
                for row in run:
                    self._try_row(slide, row, pixels[row - rows.start : row - rows.start + 1])
        kept = [row - rows.start for row in rows if row not in self.skipped]
        return (buffer if len(kept) == len(rows) else buffer[kept]).permute(0, 3, 1, 2)

    def _read_run(self, slide: Slide, run: range, out: np.ndarray) -> None:
        """Read neighbouring rows of one slide at one spacing."""
        boxes, mpp = self._boxes_px0[run.start : run.stop], float(self._mpp[run.start])
        slide.read_many(boxes, mpp, threads=self._threads, tolerance=self._tolerance, out=out)

    def _try_row(self, slide: Slide, row: int, out: np.ndarray) -> None:
        try:
            self._read_run(slide, range(row, row + 1), out)
        except SlideError as error:
            self.skipped[row] = error

    def _runs(self, rows: range) -> Iterator[range]:
        """Neighbouring rows of one slide at one spacing."""
        start = rows.start
        for row in rows:
            here, following = (self._slides[row], self._mpp[row]), row + 1
            if following == rows.stop or (self._slides[following], self._mpp[following]) != here:
                yield range(start, following)
                start = following

    def _buffer(self) -> torch.Tensor:
        side = self.tile_px
        return torch.empty((self._batch_size, side, side, 3), dtype=torch.uint8, pin_memory=self._pinned)


def _any(batch: torch.Tensor) -> Iterator[torch.Tensor]:
    """The batch, unless all of its tiles were left out."""
    if len(batch):
        yield batch


def _boxes_px0(table: pa.Table, slides: list[Readable]) -> list[Box]:
    corners, fov_um = tile_corners_px0(table), table.column("fov_um").to_numpy()
    sides = fov_um[:, None] / np.array([(slide.frame.mpp_x, slide.frame.mpp_y) for slide in slides]).reshape(-1, 2)
    return [Box(x, y, x + width, y + height) for (x, y), (width, height) in zip(corners, sides, strict=True)]
