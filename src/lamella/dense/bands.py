"""Finished pixels become bands of a raster, as wide as the slide, and go to disk from the top down.

While one thread blends, another compresses and writes the band before. What is held are as many bands as one row of
tiles touches (two, as a rule), in the bytes that are written.

Shapes: C channels, Y x X pixels of a finished block, h rows of a band, W width of the raster.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from lamella.dense.tiling import Tiling
from lamella.errors import LamellaError
from lamella.formats.label_values import NOT_LABELLED

_SLACK = 1e-3  # softmax in float32 or bf16 adds up to 1 only about so; 1.001 still rounds to 255


class Store(Protocol):
    """Where bands go."""

    def write(self, y0: int, band: np.ndarray) -> None:
        """The rows from `y0` on, (..., h, W)."""


class Encoding(Protocol):
    """What of the blended maps is stored, and how."""

    def memory(self, rows: int, width: int) -> tuple[Tensor, ...]:
        """Room for one band, a tensor per store, each (..., rows, W)."""

    def clear(self, memory: Sequence[Tensor]) -> None:
        """Make all of it "not looked at"."""

    def encode(self, block_CYX: Tensor, seen_YX: Tensor | None) -> tuple[Tensor, ...]:
        """A block as it is stored, a tensor (..., Y, X) per store, of any dtype that rounds down to the stored one.

        Raises:
            LamellaError: The model's maps cannot be what its contract says.
        """


class ClassEncoding:
    """Classes: the most probable channel, the first of equal ones, and probabilities as round(255 p).

    Pixels that were not looked at have the label 255 and no probability.
    """

    def __init__(self, model: str, channels: int) -> None:
        if channels >= NOT_LABELLED:
            raise LamellaError(model, f"it has {channels} classes", f"Label maps hold {NOT_LABELLED - 1} at most.")
        self._model, self._channels = model, channels

    def memory(self, rows: int, width: int) -> tuple[Tensor, ...]:
        return (
            torch.empty((rows, width), dtype=torch.uint8),
            torch.empty((self._channels, rows, width), dtype=torch.uint8),
        )

    def clear(self, memory: Sequence[Tensor]) -> None:
        memory[0].fill_(NOT_LABELLED)
        memory[1].zero_()

    def encode(self, block_CYX: Tensor, seen_YX: Tensor | None) -> tuple[Tensor, ...]:
        least, most = (float(value) for value in torch.aminmax(block_CYX))
        if not (least >= 0 and most <= 1 + _SLACK):  # NaN is neither
            raise LamellaError(
                self._model,
                f"its maps reach from {least:.4g} to {most:.4g}, which are no probabilities",
                "Its `maps` must return the softmax of its logits.",
            )
        labels = first_largest(block_CYX)
        if seen_YX is not None:
            labels.masked_fill_(~seen_YX, NOT_LABELLED)
        shares = block_CYX.mul_(255).add_(0.5)
        # A GPU sends a quarter of the bytes; on a CPU, numpy rounds down seven times as fast while it copies.
        return labels, shares if shares.device.type == "cpu" else shares.to(torch.uint8)


class ValueEncoding:
    """Any numbers, each map by itself; NaN where nobody looked.

    Args:
        model: Named in errors.
        channels: C.
        dtype: Half precision (three digits, up to 65,504), or float32.
    """

    def __init__(self, model: str, channels: int, dtype: torch.dtype = torch.float16) -> None:
        self._model, self._channels, self._dtype = model, channels, dtype

    @property
    def _kind(self) -> str:
        return "half precision" if self._dtype == torch.float16 else "float32"

    def memory(self, rows: int, width: int) -> tuple[Tensor, ...]:
        return (torch.empty((self._channels, rows, width), dtype=self._dtype),)

    def clear(self, memory: Sequence[Tensor]) -> None:
        memory[0].fill_(torch.nan)

    def encode(self, block_CYX: Tensor, seen_YX: Tensor | None) -> tuple[Tensor, ...]:
        least, most = (float(value) for value in torch.aminmax(block_CYX))
        largest = torch.finfo(self._dtype).max
        if not (-largest <= least and most <= largest):  # NaN is neither
            raise LamellaError(
                self._model,
                f"its maps reach from {least:.4g} to {most:.4g}, and {self._kind} holds {largest:g} at most",
                "Mend the model, or let it return its values on another scale.",
            )
        return (block_CYX if seen_YX is None else block_CYX.masked_fill_(~seen_YX, torch.nan),)


def first_largest(block_CYX: Tensor) -> Tensor:
    """uint8 (Y, X): the channel of the largest value, the lowest one among equals. C is less than 256, none is NaN."""
    if block_CYX.device.type != "cpu":
        return block_CYX.argmax(0).to(torch.uint8)  # torch documents that it takes the first
    block = block_CYX.numpy()
    best, labels = block[0].copy(), np.zeros(block.shape[1:], np.uint8)
    larger, channels = np.empty(labels.shape, bool), np.empty_like(labels)
    # One channel after the other: an argmax across planes takes twenty times as long (numpy) or a hundred (torch).
    for channel in range(1, len(block)):
        np.greater(block[channel], best, out=larger)
        np.multiply(larger.view(np.uint8), np.uint8(channel), out=channels)
        np.maximum(labels, channels, out=labels)  # channels rise
        np.maximum(best, block[channel], out=best)
    return torch.from_numpy(labels)


class Bands:
    """Takes a mosaic's blocks and writes bands. Use as a context manager.

    Args:
        stores: One per tensor of the encoding.
        encoding: What is stored.
        tiling: Of the mosaic.
        band_px: Rows of a band.
        first: Number of the first band to write; rows above it are dropped.
        noted: Called with the number of rows on disk after each band, in the thread that writes.
    """

    def __init__(
        self,
        stores: Sequence[Store],
        encoding: Encoding,
        tiling: Tiling,
        band_px: int,
        *,
        first: int = 0,
        noted: Callable[[int], None] = lambda rows: None,
    ) -> None:
        self._stores, self._encoding, self._tiling, self._band_px = stores, encoding, tiling, band_px
        self._noted, self._first_y, self._next = noted, first * band_px, first
        rows = min(band_px, tiling.height)
        self._slots = [encoding.memory(rows, tiling.width) for _ in range(_bands_at_once(tiling, band_px))]
        self._opened = first  # bands before this one were begun
        self._writing: dict[int, Future[None]] = {}
        self._thread = ThreadPoolExecutor(1, "bands")

    def take(self, y: int, x: int, block_CYX: Tensor, seen_YX: Tensor | None) -> None:
        skip = max(0, self._first_y - y)
        rows, columns = (
            min(block_CYX.shape[1], self._tiling.height - y),
            min(block_CYX.shape[2], self._tiling.width - x),
        )
        if rows <= skip or columns <= 0:
            return
        seen = None if seen_YX is None else seen_YX[skip:rows, :columns]
        encoded = [part.cpu().numpy() for part in self._encoding.encode(block_CYX[:, skip:rows, :columns], seen)]
        top, bottom = y + skip, y + rows
        while top < bottom:
            band = top // self._band_px
            stop = min(bottom, (band + 1) * self._band_px)
            inside = slice(top - band * self._band_px, stop - band * self._band_px)
            for memory, part in zip(self._slot(band), encoded, strict=True):
                place = memory.numpy()[..., inside, x : x + columns]
                np.copyto(place, part[..., top - y - skip : stop - y - skip, :], casting="unsafe")  # rounds down
            top = stop

    def rows_finished(self, y: int) -> None:
        """Write the bands that end at or above `y`."""
        while self._next * self._band_px < self._tiling.height and self._end(self._next) <= y:
            memory = self._slot(self._next)
            self._writing[self._next] = self._thread.submit(self._write, self._next, memory)
            self._next += 1

    def finish(self) -> None:
        """Wait until all is written.

        Raises:
            StorageError: The disk refused a write.
        """
        for band in list(self._writing):
            self._writing.pop(band).result()

    def _slot(self, band: int) -> tuple[Tensor, ...]:
        while self._opened <= band:
            before = self._opened - len(self._slots)
            if before in self._writing:
                self._writing.pop(before).result()
            self._encoding.clear(self._slots[self._opened % len(self._slots)])
            self._opened += 1
        return self._slots[band % len(self._slots)]

    def _end(self, band: int) -> int:
        return min((band + 1) * self._band_px, self._tiling.height)

    def _write(self, band: int, memory: Sequence[Tensor]) -> None:
        y = band * self._band_px
        for store, part in zip(self._stores, memory, strict=True):
            store.write(y, part.numpy()[..., : self._end(band) - y, :])
        self._noted(self._end(band))

    def __enter__(self) -> Bands:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(cancel_futures=True)  # waits for the band that is being written


def _bands_at_once(tiling: Tiling, band_px: int) -> int:
    """The most bands that one row of tiles finishes pixels of."""
    counts = [
        (max(tiling.finished_at(row), 1) - 1) // band_px - int(y) // band_px + 1 for row, y in enumerate(tiling.y0)
    ]
    return max(counts)
