"""One zarr array of format 2: its chunks are written here, a row of them at a time, and read by the zarr package.

zarr-python writes 0.22 GB/s of probabilities on two cores, this 1.3: it copies less and asks no event loop. Only the
coarser levels of a pyramid are made from chunks that are read back here, which halves the time that they take.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numcodecs import Blosc  # type: ignore[import-untyped]

from lamella.formats.atomic import write_json

# LZ4 at its fastest: 1.3 GB/s of probabilities on two cores, where zstd gave 0.26 for files a fifth smaller.
_CODEC = Blosc("lz4", clevel=1, shuffle=Blosc.NOSHUFFLE)
# All channels of a place lie in one chunk up to this many bytes, so that a slide has thousands of files, not a million.
_CHUNK_BYTES = 2**23
_THREADS = min(8, os.cpu_count() or 1)


class Chunks:
    """(..., H, W) in square chunks; see `make`."""

    def __init__(self, folder: Path, shape: tuple[int, ...], dtype: np.dtype[Any], chunk: tuple[int, ...]) -> None:
        self.folder, self.shape, self.dtype, self._chunk = folder, shape, dtype, chunk
        self._fill: float = 0

    @classmethod
    def make(cls, folder: Path, shape: tuple[int, ...], dtype: np.dtype[Any], chunk_px: int, fill: float) -> Chunks:
        """Write the array's metadata; chunks that are there already stay."""
        channels = shape[:-2]
        most = max(1, _CHUNK_BYTES // (chunk_px**2 * dtype.itemsize))
        made = cls(folder, shape, dtype, (*(min(count, most) for count in channels), chunk_px, chunk_px))
        made._fill = fill
        write_json(
            folder / ".zarray",
            {
                "zarr_format": 2,
                "shape": list(shape),
                "chunks": list(made._chunk),
                "dtype": dtype.str,
                "compressor": _CODEC.get_config(),
                "fill_value": "NaN" if math.isnan(fill) else fill,
                "order": "C",
                "filters": None,
                "dimension_separator": "/",
            },
        )
        return made

    def write_rows(self, y0: int, band: np.ndarray) -> None:
        side = self._chunk[-1]
        places = [(y, x) for y in range(0, band.shape[-2], side) for x in range(0, band.shape[-1], side)]
        _each(lambda place: self._put(y0 + place[0], place[1], _window(band, *place, side)), places)

    def fill_from(self, fine: Chunks, halve: Callable[[np.ndarray], np.ndarray]) -> None:
        """Every chunk from the four finer ones it covers."""
        side = self._chunk[-1]

        def one(place: tuple[int, int]) -> None:
            self._put(*place, halve(fine._four(*place)))

        height, width = self.shape[-2:]
        _each(one, [(y, x) for y in range(0, height, side) for x in range(0, width, side)])

    def _four(self, y: int, x: int) -> np.ndarray:
        """The up to four neighbouring chunks under the chunk at (y, x) of a level half as fine, of all channels."""
        side, (height, width) = self._chunk[-1], self.shape[-2:]
        top, left = 2 * y, 2 * x
        size = min(2 * side, height - top), min(2 * side, width - left)
        window = np.full((*self.shape[:-2], *size), self._fill, self.dtype)
        for row in range(0, size[0], side):
            for column in range(0, size[1], side):
                self._get((top + row) // side, (left + column) // side, _window(window, row, column, side))
        return window

    def _get(self, row: int, column: int, out: np.ndarray) -> None:
        """Read one place into `out`; a chunk that is not there is the fill value, which `out` holds."""
        if self._chunk[:-2]:
            step = self._chunk[0]
            for number, first in enumerate(range(0, len(out), step)):
                self._get_one((number, row, column), out[first : first + step])
        else:
            self._get_one((row, column), out)

    def _get_one(self, key: tuple[int, ...], out: np.ndarray) -> None:
        path = self.folder.joinpath(*map(str, key))
        if path.exists():
            whole = np.frombuffer(_CODEC.decode(path.read_bytes()), self.dtype).reshape(self._chunk)
            out[...] = whole[tuple(slice(size) for size in out.shape)]

    def _put(self, y: int, x: int, window: np.ndarray) -> None:
        """Write the pixels of one place, (h, w) or (C, h, w), as the chunks of all its channels."""
        side = self._chunk[-1]
        if self._chunk[:-2]:
            step = self._chunk[0]
            for number, first in enumerate(range(0, len(window), step)):
                self._put_one((number, y // side, x // side), window[first : first + step])
        else:
            self._put_one((y // side, x // side), window)

    def _put_one(self, key: tuple[int, ...], window: np.ndarray) -> None:
        path = self.folder.joinpath(*map(str, key))
        if _all_equal(window, self._fill):
            path.unlink(missing_ok=True)  # as zarr has it: what is not there is the fill value
            return
        if window.shape != self._chunk:  # at the lower and right edge a chunk reaches over
            whole = np.full(self._chunk, self._fill, self.dtype)
            whole[tuple(slice(size) for size in window.shape)] = window
            window = whole
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_CODEC.encode(np.ascontiguousarray(window)))


def _window(band: np.ndarray, y: int, x: int, side: int) -> np.ndarray:
    return band[..., y : y + side, x : x + side]


def _all_equal(window: np.ndarray, fill: float) -> bool:
    if math.isnan(fill):
        return bool(np.isnan(window).all())
    return bool(window.flat[0] == fill and (window == fill).all())


def _each(work: Callable[[tuple[int, int]], None], places: Sequence[tuple[int, int]]) -> None:
    """Compression and files let go of the interpreter's lock, so threads share the work."""
    with ThreadPoolExecutor(_THREADS) as pool:
        for _ in pool.map(work, places):
            pass
