"""Own reader of tiled TIFF and Aperio SVS.

tifffile reads the structure once; after that a tile is one `os.pread` (no shared file position, so threads need no
lock) and one call of a decoder. A tile that cannot be decoded is an error that names it, never a white patch.

libjpeg paints over a damaged stream without a word, so JPEG tiles are checked for their end and for bytes that no
JPEG has in its middle. A stretch overwritten with zeros can still pass: no decoder here tells.
"""

from __future__ import annotations

import logging
import os
import re
import struct
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from lamella.errors import SlideError, first_line
from lamella.slides.readers.mpp import tiff_resolution

# 341 RGB tiles of 256 px: the overlap between neighbouring views of a sweep stays decoded, and the eight slides that a
# process keeps open (SlideCache) stay at half a gigabyte.
CACHE_BYTES = 64 * 2**20

# TIFF tag 259: none, LZW, JPEG, deflate (two numbers), Aperio JPEG 2000 (YCbCr, RGB), JPEG 2000, zstd, WebP.
_COMPRESSIONS = {1, 5, 7, 8, 32946, 33003, 33005, 34712, 50000, 50001}
_JPEG = 7
_APERIO_YCBCR = 33003
_ENDS_WITH_EOI = {_JPEG, _APERIO_YCBCR, 33005}  # JPEG and raw JPEG 2000 streams both end with the bytes FF D9
_GREY, _RGB, _YCBCR = 1, 2, 6  # TIFF tag 262
_REDUCED, _MACRO = 1, 8  # bits of TIFF tag 254: a smaller version of another page; Aperio's macro photo
# Levels are rounded to whole pixels, and each from the one before: a side may be a pixel or two off the exact ratio.
_ROUNDING_PX = 2
# Tiled TIFFs whose tiles do not simply lie side by side (overlap, serpentine order, sparse or padded levels).
_OTHER_LAYOUTS = {
    "is_ndpi": "Hamamatsu NDPI",
    "is_scn": "Leica SCN",
    "is_bif": "Ventana BIF",
    "is_philips": "Philips TIFF",
}
_DECODER_ERRORS = (RuntimeError, ValueError, TypeError, struct.error)  # imagecodecs' errors are RuntimeErrors
# tifffile trusts a file's structure; damaged offsets surface as whatever Python says about them.
_STRUCTURE_ERRORS = (*_DECODER_ERRORS, OSError, LookupError, ArithmeticError, AttributeError, MemoryError)


@dataclass(frozen=True, slots=True)
class _Level:
    """One page of the pyramid: where its tiles are and how they are decoded."""

    decode: Callable[..., Any]
    """tifffile's decoder of this page: (bytes, tile, jpegtables=) -> (pixels, place, shape)."""
    jpegtables: bytes | None
    compression: int
    width: int
    height: int
    tile_width: int
    tile_height: int
    columns: int
    offsets: np.ndarray
    """(tiles,) uint64 file positions, row-major."""
    byte_counts: np.ndarray
    """(tiles,) uint64."""

    @classmethod
    def of(cls, page: tifffile.TiffPage) -> _Level:
        columns, rows = -(-page.imagewidth // page.tilewidth), -(-page.imagelength // page.tilelength)
        if not columns * rows == len(page.dataoffsets) == len(page.databytecounts):
            raise ValueError(f"it lists {len(page.dataoffsets)} of {columns * rows} tiles")
        return cls(
            decode=page.decode,  # built by tifffile while its file is open
            jpegtables=page.jpegtables,
            compression=int(page.compression),
            width=page.imagewidth,
            height=page.imagelength,
            tile_width=page.tilewidth,
            tile_height=page.tilelength,
            columns=columns,
            offsets=np.asarray(page.dataoffsets, np.uint64),
            byte_counts=np.asarray(page.databytecounts, np.uint64),
        )


class TiffReader:
    """Tiled 8-bit RGB or grey TIFF, classic or BigTIFF, its levels in pages or in SubIFDs."""

    name = "tiff"

    def __init__(self, path: Path | str, *, cache_bytes: int = CACHE_BYTES) -> None:
        self.path = Path(path)
        try:
            with _quiet_tifffile(), tifffile.TiffFile(self.path) as tiff:
                self.properties: Mapping[str, str] = _properties(tiff)
                self._levels = [_Level.of(page) for page in self._level_pages(tiff)]
        except _STRUCTURE_ERRORS as error:
            raise self._refusal(f"it is not a readable TIFF ({first_line(error)})") from error
        self._file = os.open(self.path, os.O_RDONLY)
        self._tiles: OrderedDict[tuple[int, int], np.ndarray] = OrderedDict()
        self._cached_bytes = 0
        self._cache_bytes = cache_bytes
        self._lock = threading.Lock()
        if self._levels[0].compression == _APERIO_YCBCR:
            self._try_first_tile()

    @property
    def level_sizes(self) -> list[tuple[int, int]]:
        return [(level.width, level.height) for level in self._levels]

    @property
    def cached_bytes(self) -> int:
        """Bytes of decoded tiles held now; never more than the limit."""
        return self._cached_bytes

    def read_level(self, level: int, x: int, y: int, width: int, height: int) -> np.ndarray:
        """(height, width, 3) uint8 of a rectangle inside the level.

        Raises:
            SlideError: A tile is missing or corrupt.
        """
        page = self._levels[level]
        pixels = np.empty((height, width, 3), np.uint8)
        for row in range(y // page.tile_height, -(-(y + height) // page.tile_height)):
            for column in range(x // page.tile_width, -(-(x + width) // page.tile_width)):
                tile = self._tile(level, row * page.columns + column)
                left, top = column * page.tile_width, row * page.tile_height
                x0, x1 = max(x, left), min(x + width, left + page.tile_width)
                y0, y1 = max(y, top), min(y + height, top + page.tile_height)
                pixels[y0 - y : y1 - y, x0 - x : x1 - x] = tile[y0 - top : y1 - top, x0 - left : x1 - left]
        return pixels

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        with self._lock:
            self._tiles.clear()
            self._cached_bytes = 0

    # ---- tiles ------------------------------------------------------------------------------------------------------

    def _tile(self, level: int, index: int) -> np.ndarray:
        """(tile_height, tile_width, 1 or 3) uint8, from the cache or decoded now."""
        with self._lock:
            if (level, index) in self._tiles:
                self._tiles.move_to_end((level, index))
                return self._tiles[level, index]
        tile = self._decode(level, index)
        with self._lock:
            if (level, index) not in self._tiles:  # another thread may have been faster
                self._tiles[level, index] = tile
                self._cached_bytes += tile.nbytes
            while self._cached_bytes > self._cache_bytes:
                self._cached_bytes -= self._tiles.popitem(last=False)[1].nbytes
        return tile

    def _decode(self, level: int, index: int) -> np.ndarray:
        page = self._levels[level]
        offset, count = int(page.offsets[index]), int(page.byte_counts[index])
        if not count:
            raise self._bad_tile(level, index, "the file holds no bytes for it")
        try:
            data = os.pread(self._file, count, offset)
        except OSError as error:
            raise self._bad_tile(level, index, f"the disk did not give it ({error.strerror})") from error
        if len(data) < count:
            raise self._bad_tile(level, index, "the file ends before it does")
        if page.compression in _ENDS_WITH_EOI and not _ends_with_eoi(data):
            raise self._bad_tile(level, index, "its data are cut short")
        if page.compression == _JPEG and _has_stray_marker(data):
            raise self._bad_tile(level, index, "its data are damaged")
        try:
            decoded, _, _ = page.decode(data, index, jpegtables=page.jpegtables)
        except _DECODER_ERRORS as error:
            raise self._bad_tile(level, index, f"it cannot be decoded ({first_line(error)})") from error
        tile = decoded[0]
        return _rgb_of_ycbcr(tile) if page.compression == _APERIO_YCBCR else tile

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
            self._decode(0, 0)
        except SlideError:
            self.close()
            raise

    # ---- structure --------------------------------------------------------------------------------------------------

    def _level_pages(self, tiff: tifffile.TiffFile) -> Iterator[tifffile.TiffPage]:
        """The base page, then every smaller page that shows the same picture, largest first."""
        base = tiff.pages.first
        self._check_base(tiff, base)
        aperio = _is_aperio(base)
        candidates: list[Any] = list(base.pages or []) if base.subifds else []
        others: list[Any] = tiff.pages[1:]
        candidates += [page for page in others if aperio or page.subfiletype & _REDUCED]
        yield base
        last = base
        for page in sorted(candidates, key=lambda page: -page.imagewidth):
            if not page.subfiletype & _MACRO and self._why_not(page) is None and _shrinks(base, last, page):
                yield page
                last = page

    def _check_base(self, tiff: tifffile.TiffFile, base: tifffile.TiffPage) -> None:
        for flag, vendor in _OTHER_LAYOUTS.items():
            if getattr(base, flag):
                raise self._refusal(f"{vendor} is left to OpenSlide")
        if str(base.software).startswith("MedScan"):  # Trestle: its tiles overlap
            raise self._refusal("Trestle TIFF is left to OpenSlide")
        cause = self._why_not(base)
        if cause is not None:
            raise self._refusal(cause)

    @staticmethod
    def _why_not(page: tifffile.TiffPage) -> str | None:
        """What keeps a page from being read here, in words; None if nothing does."""
        if not page.is_tiled:
            return "it is a TIFF in strips, not in tiles"
        if page.bitspersample != 8 or page.dtype != np.uint8 or page.imagedepth != 1:
            return f"its pixels are {page.dtype}, not 8-bit"
        colours = (page.photometric, page.samplesperpixel)
        if colours not in ((_GREY, 1), (_RGB, 3), (_YCBCR, 3)) or (page.planarconfig != 1 and colours[1] == 3):
            return "its pixels are neither interleaved RGB nor grey"
        if page.compression not in _COMPRESSIONS:
            return f"its compression {page.compression} is not read here"
        if page.photometric == _YCBCR and page.compression not in (_JPEG, _APERIO_YCBCR):
            return "its pixels are YCbCr without JPEG"
        return None

    def _refusal(self, cause: str) -> SlideError:
        return SlideError(self.path, cause, "Give a tiled 8-bit RGB TIFF, or let another reader take it.")


def _shrinks(base: tifffile.TiffPage, last: tifffile.TiffPage, page: tifffile.TiffPage) -> bool:
    """Whether `page` is smaller than the level before and has the base's aspect."""
    if page.imagewidth >= last.imagewidth or page.imagelength >= last.imagelength:
        return False
    expected = page.imagewidth * base.imagelength / base.imagewidth
    slack = _ROUNDING_PX * max(1.0, base.imagelength / base.imagewidth)
    return bool(abs(page.imagelength - expected) <= slack)


def _is_aperio(page: tifffile.TiffPage) -> bool:
    return str(page.description).startswith("Aperio")


def _properties(tiff: tifffile.TiffFile) -> dict[str, str]:
    """What the base page states, under OpenSlide's key names (`ome.PhysicalSizeX` is micrometres)."""
    page = tiff.pages.first
    description = str(page.description)
    found: dict[str, str] = {"tiff.ImageDescription": description} if description else {}
    if page.software:
        found["tiff.Software"] = str(page.software)
    if 282 in page.tags and 283 in page.tags:
        x, y = (_ratio(page.tags[code].value) for code in (282, 283))
        found |= tiff_resolution(x, y, page.tags.valueof(296, 2))  # 2: without the tag TIFF means inches
    if _is_aperio(page):
        for part in description.split("|")[1:]:
            key, sign, value = part.partition("=")
            if sign:
                found[f"aperio.{key.strip()}"] = value.strip()
    return found | _ome_spacing(description)


def _ratio(value: tuple[int, int]) -> float:
    return value[0] / value[1] if value[1] else 0.0


# Micrometres per unit of OME's PhysicalSizeXUnit; the default unit is the micrometre.
_OME_UNITS_UM = {"": 1.0, "µm": 1.0, "um": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4}


def _ome_spacing(description: str) -> dict[str, str]:
    pixels = re.search(r"<(?:\w+:)?Pixels\b[^>]*>", description)
    if pixels is None:
        return {}
    attributes = dict(re.findall(r'(PhysicalSize[XY](?:Unit)?)="([^"]*)"', pixels[0]))
    found = {}
    for axis in "XY":
        unit_um = _OME_UNITS_UM.get(attributes.get(f"PhysicalSize{axis}Unit", ""))
        size = attributes.get(f"PhysicalSize{axis}")
        if size and unit_um is not None:
            found[f"ome.PhysicalSize{axis}"] = size if unit_um == 1 else repr(float(size) * unit_um)
    return found


def _ends_with_eoi(data: bytes) -> bool:
    return data[-2:] == b"\xff\xd9" or data.rstrip(b"\0").endswith(b"\xff\xd9")  # some writers pad tiles with zeros


# In the compressed part of a JPEG, FF is followed by 00 or by a restart mark (D0-D7); else it begins the end (D9) or
# the next scan with its tables (C4, DA, DB, DC, DD, FE). FF FF is filling.
_STRAY_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xd9-\xdd\xc4\xfe\xff]")
_START_OF_SCAN = b"\xff\xda"


def _has_stray_marker(data: bytes) -> bool:
    return _STRAY_MARKER.search(data, max(0, data.find(_START_OF_SCAN))) is not None


def _rgb_of_ycbcr(tile: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 RGB of full-range BT.601 YCbCr (JFIF), which Aperio stores in JPEG 2000 without saying so."""
    y, cb, cr = (tile[..., channel].astype(np.float32) for channel in range(3))
    cb, cr = cb - 128, cr - 128
    rgb = np.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], axis=-1)
    return (rgb + 0.5).clip(0, 255).astype(np.uint8)


class _quiet_tifffile:
    """tifffile logs what it also raises; the raised error is enough."""

    def __enter__(self) -> None:
        self._logger = logging.getLogger("tifffile")
        self._level = self._logger.level
        self._logger.setLevel(logging.CRITICAL)

    def __exit__(self, *_: object) -> None:
        self._logger.setLevel(self._level)
