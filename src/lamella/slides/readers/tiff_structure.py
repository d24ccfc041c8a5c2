"""What a tiled TIFF holds: which pages are the pyramid, where their tiles lie, what the file says of itself.

tifffile parses the structure, once, when the slide is opened.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from lamella.slides.readers.jpeg import Colours, JpegTiles
from lamella.slides.readers.mpp import tiff_resolution

NONE, JPEG, APERIO_YCBCR, APERIO_RGB, JPEG_2000, WEBP = 1, 7, 33003, 33005, 34712, 50001  # TIFF tag 259
LZW, ADOBE_DEFLATE, DEFLATE, ZSTD = 5, 8, 32946, 50000
_COMPRESSIONS = {NONE, LZW, JPEG, ADOBE_DEFLATE, DEFLATE, APERIO_YCBCR, APERIO_RGB, JPEG_2000, ZSTD, WEBP}
_GREY, _RGB, _YCBCR = 1, 2, 6  # TIFF tag 262
_JPEG_COLOURS: dict[int, Colours] = {_GREY: "Gray", _RGB: "RGB", _YCBCR: "YCbCr"}
_REDUCED, _MACRO = 1, 8  # bits of TIFF tag 254: a smaller version of another page; Aperio's macro photo
_TILE_OFFSETS, _TILE_BYTE_COUNTS = 324, 325
_WHOLE_NUMBERS = {3, 4, 13, 16, 18}  # TIFF types SHORT, LONG, IFD, LONG8, IFD8
# Levels are rounded to whole pixels, and each from the one before: a side may be a pixel or two off the exact ratio.
_ROUNDING_PX = 2
# Scanners write tiles of 240 to 4,096 px. One of 64 M pixels would take 200 MB at once: such a file is damaged.
_MAX_TILE_PX = 2**24
# Tiled TIFFs whose tiles do not simply lie side by side (overlap, serpentine order, sparse or padded levels).
_OTHER_LAYOUTS = {
    "is_ndpi": "Hamamatsu NDPI",
    "is_scn": "Leica SCN",
    "is_bif": "Ventana BIF",
    "is_philips": "Philips TIFF",
}


class NotThisKind(ValueError):
    """A TIFF that is left to other readers; the text is the cause."""


class Contradiction(ValueError):
    """A tiled TIFF whose tags cannot all be true; the text is the cause."""


@dataclass(frozen=True, slots=True)
class TiffLevel:
    """One page of the pyramid: where its tiles are and how they are decoded."""

    decode: Callable[..., Any]
    """tifffile's decoder of this page: (bytes, tile) -> (pixels, place, shape)."""
    jpeg: JpegTiles | None
    """Decodes the tiles if they are JPEG."""
    compression: int
    channels: int
    """1 (grey) or 3."""
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
    def of(cls, page: tifffile.TiffPage) -> TiffLevel:
        """Copy what reading needs, so that the file can be closed.

        Raises:
            Contradiction: What the page says cannot be true.
            ValueError: Its JPEG tables are damaged.
        """
        width, height, tile_width, tile_height = page.imagewidth, page.imagelength, page.tilewidth, page.tilelength
        if min(width, height, tile_width, tile_height) < 1 or tile_width * tile_height > _MAX_TILE_PX:
            raise Contradiction(f"it states {width} x {height} pixels in tiles of {tile_width} x {tile_height}")
        columns, rows = -(-width // tile_width), -(-height // tile_height)
        stored = {int(tag.dtype) for code in (_TILE_OFFSETS, _TILE_BYTE_COUNTS) if (tag := page.tags.get(code))}
        if not stored <= _WHOLE_NUMBERS:
            raise Contradiction("its tile places are not stored as whole numbers")
        if not columns * rows == len(page.dataoffsets) == len(page.databytecounts):
            raise Contradiction(f"it lists {len(page.dataoffsets)} of {columns * rows} tiles")
        is_jpeg = int(page.compression) == JPEG
        return cls(
            decode=page.decode,  # built by tifffile while its file is open
            jpeg=JpegTiles(tile_width, tile_height, _JPEG_COLOURS[int(page.photometric)], page.jpegtables)
            if is_jpeg
            else None,
            compression=int(page.compression),
            channels=int(page.samplesperpixel),
            width=width,
            height=height,
            tile_width=tile_width,
            tile_height=tile_height,
            columns=columns,
            offsets=np.asarray(page.dataoffsets, np.uint64),
            byte_counts=np.asarray(page.databytecounts, np.uint64),
        )


def read_structure(path: Path) -> tuple[dict[str, str], list[TiffLevel]]:
    """What the file states (under OpenSlide's key names), and its levels, finest first.

    Raises:
        NotThisKind: It is a TIFF, but not a plainly tiled 8-bit one.
        Contradiction: It is one, and damaged.
        Exception: Whatever tifffile and Python say of a damaged structure.
    """
    with _QuietTifffile(), tifffile.TiffFile(path) as tiff:
        return _properties(tiff), [TiffLevel.of(page) for page in _level_pages(tiff)]


def _level_pages(tiff: tifffile.TiffFile) -> Iterator[tifffile.TiffPage]:
    """The base page, then every smaller page that shows the same picture, largest first."""
    base = tiff.pages.first
    _check_base(base)
    aperio = _is_aperio(base)
    candidates: list[Any] = list(base.pages or []) if base.subifds else []
    others: list[Any] = tiff.pages[1:]
    candidates += [page for page in others if aperio or page.subfiletype & _REDUCED]
    yield base
    last = base
    for page in sorted(candidates, key=lambda page: -page.imagewidth):
        if not page.subfiletype & _MACRO and _why_not(page) is None and _shrinks(base, last, page):
            yield page
            last = page


def _check_base(base: tifffile.TiffPage) -> None:
    for flag, vendor in _OTHER_LAYOUTS.items():
        if getattr(base, flag):
            raise NotThisKind(f"{vendor} is left to OpenSlide")
    if str(base.software).startswith("MedScan"):  # Trestle: its tiles overlap
        raise NotThisKind("Trestle TIFF is left to OpenSlide")
    cause = _why_not(base)
    if cause is not None:
        raise NotThisKind(cause)


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
    if page.photometric == _YCBCR and page.compression not in (JPEG, APERIO_YCBCR):
        return "its pixels are YCbCr without JPEG"
    return None


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


class _QuietTifffile:
    """tifffile logs what it also raises; the raised error is enough."""

    def __enter__(self) -> None:
        self._logger = logging.getLogger("tifffile")
        self._level = self._logger.level
        self._logger.setLevel(logging.CRITICAL)

    def __exit__(self, *_: object) -> None:
        self._logger.setLevel(self._level)
