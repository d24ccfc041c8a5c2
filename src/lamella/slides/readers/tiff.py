"""Own reader of tiled TIFF and SVS: thread-safe, exact at every level, and its errors name the tile.

The structure is parsed once; after that a tile is one `os.pread` (no shared file position, so threads need no lock) and
one call of a decoder. Views that are read together are planned first: each tile they share is read and decoded once, in
file order, and a tile that fills its place exactly is decoded right into it. A tile that cannot be decoded is an error
that names it, never a white patch.
"""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lamella.errors import DamagedSlideError, SlideError, first_line
from lamella.slides.readers import tiff_structure as structure
from lamella.slides.readers.coded_size import check_size
from lamella.slides.readers.protocol import ALONE, Crop, Threads
from lamella.slides.readers.tiff_structure import Contradiction, NotThisKind, TiffLevel, read_structure
from lamella.slides.readers.tile_cache import TileCache

# These streams state their own size, and their decoders take memory for it before anybody else sees it.
_STATES_ITS_SIZE = {structure.APERIO_YCBCR, structure.APERIO_RGB, structure.JPEG_2000, structure.WEBP}
_RAW_JPEG_2000 = {structure.APERIO_YCBCR, structure.APERIO_RGB}
_EOI = b"\xff\xd9"  # the end of raw JPEG 2000; its decoder would leave out what is missing
# imagecodecs' own are RuntimeErrors.
_DECODER_ERRORS = (RuntimeError, ValueError, TypeError, OSError, LookupError, MemoryError, struct.error)
# tifffile trusts a file's structure; damaged offsets surface as whatever Python says about them.
_STRUCTURE_ERRORS = (
    *_DECODER_ERRORS,
    ArithmeticError,
    AttributeError,
    AssertionError,
    RecursionError,
)


class _Piece(NamedTuple):  # made thousands of times a second: a frozen dataclass takes four times as long
    """What one crop wants of one tile."""

    pixels: np.ndarray
    """(h, w, 3): where to."""
    rows: slice
    columns: slice
    """Where in the tile."""


class TiffReader:
    """Tiled 8-bit RGB or grey TIFF, classic or BigTIFF, its levels in pages or in SubIFDs.

    Args:
        path: The file.
        cache: Keeps decoded tiles; one cache may serve several slides. The reader's own by default.
    """

    name = "tiff"

    def __init__(self, path: Path | str, cache: TileCache | None = None) -> None:
        self.path = Path(path)
        try:
            properties, self._levels = read_structure(self.path)
        except NotThisKind as error:
            raise self._refusal(str(error)) from error
        except Contradiction as error:
            raise DamagedSlideError(
                self.path, f"it is a damaged TIFF: {error}", "Fetch the slide again from its source."
            ) from error
        except _STRUCTURE_ERRORS as error:
            raise self._refusal(f"it is not a readable TIFF ({first_line(error)})") from error
        self.properties: Mapping[str, str] = properties
        self._cache = TileCache() if cache is None else cache
        self._file = os.open(self.path, os.O_RDONLY)
        self._size = os.fstat(self._file).st_size
        self._scratch = threading.local()
        if self._levels[0].compression == structure.APERIO_YCBCR:
            self._try_first_tile()

    @property
    def level_sizes(self) -> list[tuple[int, int]]:
        return [(level.width, level.height) for level in self._levels]

    @property
    def cached_bytes(self) -> int:
        """Bytes of decoded tiles held now; never more than the cache's limit."""
        return self._cache.bytes

    def shrinks(self, level: int) -> tuple[int, ...]:
        """Factors by which the level's tiles can be shrunk while they are decoded."""
        jpeg = self._levels[level].jpeg
        return jpeg.shrinks if jpeg else (1,)

    def read_level(self, level: int, x: int, y: int, width: int, height: int) -> np.ndarray:
        """(height, width, 3) uint8 of a rectangle inside the level.

        Raises:
            SlideError: A tile is missing or corrupt.
        """
        pixels = np.empty((height, width, 3), np.uint8)
        self.read_crops(level, [Crop(x, y, pixels)])
        return pixels

    def read_crops(self, level: int, crops: Sequence[Crop], *, threads: Threads = ALONE, shrink: int = 1) -> None:
        """Write the pixels of each crop; see `TiledReader`.

        Raises:
            SlideError: A tile is missing or corrupt.
        """
        page = self._levels[level]
        wanted: dict[int, list[_Piece]] = {}
        for crop in crops:
            for index, piece in _pieces(page, crop, shrink):
                wanted.setdefault(index, []).append(piece)
        tiles = np.fromiter(wanted, np.int64, len(wanted))
        in_file_order = tiles[np.argsort(page.offsets[tiles], kind="stable")].tolist()
        threads.each(lambda index: self._place(level, index, wanted[index], shrink), in_file_order)

    def tile_size(self, level: int) -> tuple[int, int]:
        """(width, height) of a level's tiles in pixels."""
        return self._levels[level].tile_width, self._levels[level].tile_height

    def stored_jpeg(self, level: int, x: int, y: int, width: int, height: int) -> bytes | None:
        """The JPEG of a rectangle if it is just one tile, inside the level; else None.

        Raises:
            SlideError: The tile is missing or corrupt.
        """
        page = self._levels[level]
        column, left = divmod(x, page.tile_width)
        row, top = divmod(y, page.tile_height)
        inside = 0 <= x <= page.width - width and 0 <= y <= page.height - height
        one_tile = (width, height, left, top) == (page.tile_width, page.tile_height, 0, 0)
        if page.jpeg is None or not (inside and one_tile):
            return None
        index = row * page.columns + column
        data = self._bytes(level, index)
        try:
            return page.jpeg.as_file(data)
        except _DECODER_ERRORS as error:
            raise self._bad_tile(level, index, f"it cannot be decoded ({first_line(error)})") from error

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        self._cache.drop(self)

    # ---- tiles ------------------------------------------------------------------------------------------------------

    def _place(self, level: int, index: int, pieces: list[_Piece], shrink: int) -> None:
        """Decode a tile, or take it from the cache, and write it to all its places."""
        page, key = self._levels[level], (level, shrink, index)
        shape = (page.tile_height // shrink, page.tile_width // shrink, page.channels)
        alone = len(pieces) == 1 and pieces[0].pixels.shape[:2] == shape[:2]
        if alone and (self, key) not in self._cache:  # nobody else wants a part of it: not kept
            self._decode_into(pieces[0].pixels, level, index, shrink)
            return
        with self._cache.tile(self, key, shape, lambda out: self._decode(level, index, shrink, out)) as tile:
            for piece in pieces:
                piece.pixels[...] = tile[piece.rows, piece.columns]

    def _decode_into(self, pixels: np.ndarray, level: int, index: int, shrink: int) -> None:
        page = self._levels[level]
        if page.channels == 3 and pixels.flags.c_contiguous:
            self._decode(level, index, shrink, pixels)
            return
        scratch = self._scratch_of((*pixels.shape[:2], page.channels))
        self._decode(level, index, shrink, scratch)
        pixels[...] = scratch

    def _scratch_of(self, shape: tuple[int, ...]) -> np.ndarray:
        """Memory of this thread, used again and again."""
        held: np.ndarray | None = getattr(self._scratch, "tile", None)
        if held is None or held.shape != shape:
            held = self._scratch.tile = np.empty(shape, np.uint8)
        return held

    def _decode(self, level: int, index: int, shrink: int, out: np.ndarray) -> None:
        """Fill (tile_height / shrink, tile_width / shrink, 1 or 3) uint8."""
        page = self._levels[level]
        data = self._bytes(level, index)
        try:
            if page.jpeg is not None:
                page.jpeg.decode(data, shrink, out)
                return
            if page.compression in _STATES_ITS_SIZE:
                check_size(data, page.tile_width, page.tile_height)
            decoded, _, _ = page.decode(data, index)
        except _DECODER_ERRORS as error:
            raise self._bad_tile(level, index, f"it cannot be decoded ({first_line(error)})") from error
        out[...] = _rgb_of_ycbcr(decoded[0]) if page.compression == structure.APERIO_YCBCR else decoded[0]

    def _bytes(self, level: int, index: int) -> bytes:
        page = self._levels[level]
        offset, count = int(page.offsets[index]), int(page.byte_counts[index])
        if not count:
            raise self._bad_tile(level, index, "the file holds no bytes for it")
        if offset + count > self._size:  # asked before memory is taken for it
            raise self._bad_tile(level, index, "the file ends before it does")
        try:
            data = os.pread(self._file, count, offset)
        except OSError as error:
            raise self._bad_tile(level, index, f"the disk did not give it ({error.strerror})") from error
        if len(data) < count:
            raise self._bad_tile(level, index, "the file ends before it does")
        if page.compression in _RAW_JPEG_2000 and not data.rstrip(b"\0").endswith(_EOI):  # some writers pad with zeros
            raise self._bad_tile(level, index, "its data are cut short")
        return data

    def _bad_tile(self, level: int, index: int, cause: str) -> SlideError:
        row, column = divmod(index, self._levels[level].columns)
        return SlideError(
            self.path,
            f"level {level}, tile {index} (row {row}, column {column}): {cause}",
            "Fetch the slide again from its source, or leave it out.",
        )

    def _try_first_tile(self) -> None:
        """Refuse at once a JPEG 2000 variant that the decoder lacks (subsampled chroma), so that OpenSlide gets it."""
        try:
            self._bytes(0, 0)
        except SlideError:
            return  # that tile alone is bad, and reading it will say so: OpenSlide would paint it white
        base = self._levels[0]
        try:
            self._decode(0, 0, 1, np.empty((base.tile_height, base.tile_width, base.channels), np.uint8))
        except SlideError:
            self.close()
            raise

    def _refusal(self, cause: str) -> SlideError:
        return SlideError(self.path, cause, "Give a tiled 8-bit RGB TIFF, or let another reader take it.")


def _pieces(page: TiffLevel, crop: Crop, shrink: int) -> Iterator[tuple[int, _Piece]]:
    """The tiles that a crop lies on, and what it wants of each."""
    tile_width, tile_height = page.tile_width // shrink, page.tile_height // shrink
    height, width = crop.pixels.shape[:2]
    for row in range(crop.y // tile_height, -(-(crop.y + height) // tile_height)):
        top = row * tile_height - crop.y  # of the tile, seen from the crop
        rows = slice(max(0, top), min(height, top + tile_height))
        for column in range(crop.x // tile_width, -(-(crop.x + width) // tile_width)):
            left = column * tile_width - crop.x
            columns = slice(max(0, left), min(width, left + tile_width))
            yield (
                row * page.columns + column,
                _Piece(
                    crop.pixels[rows, columns],
                    slice(rows.start - top, rows.stop - top),
                    slice(columns.start - left, columns.stop - left),
                ),
            )


def _rgb_of_ycbcr(tile: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 RGB of full-range BT.601 YCbCr (JFIF), which Aperio stores in JPEG 2000 without saying so."""
    y, cb, cr = (tile[..., channel].astype(np.float32) for channel in range(3))
    cb, cr = cb - 128, cr - 128
    rgb = np.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], axis=-1)
    return (rgb + 0.5).clip(0, 255).astype(np.uint8)
