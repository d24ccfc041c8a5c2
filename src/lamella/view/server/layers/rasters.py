"""Rasters over a slide, read where a tile needs them and no finer: Lamella's OME-Zarr, and label maps in OME-TIFF."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tifffile

from lamella.errors import LamellaError, first_line
from lamella.formats.ome_zarr import open_raster
from lamella.geometry import Box, Frame
from lamella.view.server.layers.places import coarse_enough, places_under

# What zarr, its codecs and tifffile raise on damaged files.
DAMAGE = (OSError, RuntimeError, ValueError, KeyError, TypeError, IndexError)
_AGAIN = "Remove it and run the same command again."
# Values of a channel from which its range is taken, at most: reading them takes some milliseconds.
_RANGE_VALUES = 2**18

Channels = int | slice
Window = Callable[[int, Channels, slice, slice], np.ndarray]


@dataclass(frozen=True)
class Raster:
    """A pyramid over a slide.

    Attributes:
        path: For messages.
        slide: Level 0 as the raster was made for it.
        frames: Of the levels, finest first.
        names: Of classes by value, or of channels.
        kind: What its values are.
        window: (level, channels, rows, columns) -> values; label maps have no channels.
    """

    path: Path
    slide: Frame
    frames: Sequence[Frame]
    names: tuple[str, ...]
    kind: Literal["labels", "probabilities", "values"]
    window: Window

    def under(
        self, box_px0: Box, width_px: int, height_px: int, channels: Channels, outside: float
    ) -> np.ndarray | None:
        """The raster at the centres of a tile's pixels, nearest.

        Args:
            box_px0: The tile.
            width_px: Of the tile.
            height_px: Of the tile.
            channels: Which; not used for labels.
            outside: Value where the raster does not reach.

        Returns:
            (..., height_px, width_px); None where the tile does not touch the raster.

        Raises:
            LamellaError: The file is damaged there.
        """
        level = coarse_enough(self.frames, box_px0, width_px, height_px, self.slide)
        places = places_under(box_px0, width_px, height_px, self.slide, self.frames[level])
        if places.empty:
            return None
        return places.spread(self.read(level, channels, *places.window), outside)

    def read(self, level: int, channels: Channels, rows: slice, columns: slice) -> np.ndarray:
        """A window of a level.

        Raises:
            LamellaError: The file is damaged there.
        """
        try:
            return self.window(level, channels, rows, columns)
        except DAMAGE as error:
            raise LamellaError(self.path, f"it is damaged ({first_line(error)})", _AGAIN) from error

    def overview(self, channel: int) -> np.ndarray:
        """(h, w): a whole channel, of the finest level that is small enough to be read at once.

        Raises:
            LamellaError: The file is damaged.
        """
        small = [at for at, frame in enumerate(self.frames) if frame.width_px * frame.height_px <= _RANGE_VALUES]
        return self.read(small[0] if small else len(self.frames) - 1, channel, slice(None), slice(None))


def zarr_raster(folder: Path, slide: Frame) -> Raster:
    """A raster of Lamella's.

    Raises:
        LamellaError: It is missing, unfinished or damaged.
    """
    stored = open_raster(folder)
    frames = [stored.level_frame(level) for level in range(len(stored.levels))]
    if not frames:
        raise LamellaError(folder, "it has no level", _AGAIN)

    def window(level: int, channels: Channels, rows: slice, columns: slice) -> np.ndarray:
        array = stored.levels[level]
        return np.asarray(array[rows, columns] if stored.kind == "labels" else array[channels, rows, columns])

    return Raster(folder, slide, frames, stored.names, stored.kind, window)


def tiff_labels(path: Path, slide: Frame, mpp: float, names: Sequence[str]) -> Raster:
    """A label map in a tiled OME-TIFF of Lamella's.

    Args:
        path: The file.
        slide: As for `zarr_raster`.
        mpp: Of the finest level; each further one is half as fine.
        names: Of classes by value.

    Raises:
        LamellaError: It cannot be read, or is no such file.
    """
    try:
        with tifffile.TiffFile(path) as tiff:
            pages: list[Any] = [level.keyframe for level in tiff.series[0].levels]
            if any(not page.is_tiled or page.dtype != np.uint8 or page.samplesperpixel != 1 for page in pages):
                raise ValueError("it is no tiled label map of bytes")
            for page in pages:  # read now, while the file is open
                _ = page.decode
                ends = [offset + count for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True)]
                if max(ends) > path.stat().st_size:
                    raise ValueError("it is cut short")
    except DAMAGE as error:
        raise LamellaError(path, f"it cannot be read ({first_line(error)})", _AGAIN) from error
    frames = [
        Frame(page.imagewidth, page.imagelength, mpp * 2**level, mpp * 2**level) for level, page in enumerate(pages)
    ]

    def window(level: int, channels: Channels, rows: slice, columns: slice) -> np.ndarray:
        return _tiff_window(path, pages[level], rows, columns)

    return Raster(path, slide, frames, tuple(names), "labels", window)


def _tiff_window(path: Path, page: Any, rows: slice, columns: slice) -> np.ndarray:
    """A window of a page, from its tiles; the file is opened anew, so that threads share no place in it."""
    side_y, side_x = page.tilelength, page.tilewidth
    across = -(-page.imagewidth // side_x)
    out = np.empty((rows.stop - rows.start, columns.stop - columns.start), page.dtype)
    with open(path, "rb") as file:
        for row in range(rows.start // side_y, -(-rows.stop // side_y)):
            for column in range(columns.start // side_x, -(-columns.stop // side_x)):
                number = row * across + column
                file.seek(page.dataoffsets[number])
                packed = file.read(page.databytecounts[number])
                if len(packed) < page.databytecounts[number]:
                    raise ValueError("it is cut short")
                tile = page.decode(packed, number)[0].reshape(side_y, side_x)
                _paste(out, tile, row * side_y - rows.start, column * side_x - columns.start)
    return out


def _paste(out: np.ndarray, tile: np.ndarray, top: int, left: int) -> None:
    """Put what lies inside of a tile at (top, left)."""
    bottom, right = min(top + tile.shape[0], out.shape[0]), min(left + tile.shape[1], out.shape[1])
    y, x = max(top, 0), max(left, 0)
    out[y:bottom, x:right] = tile[y - top : bottom - top, x - left : right - left]
