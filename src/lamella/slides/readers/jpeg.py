"""JPEG tiles of a TIFF: libjpeg-turbo into our own memory, without Python's lock, strict about damage.

A TIFF may keep the tables of all tiles in one place, and says itself whether the three channels are RGB or YCbCr. The
streams of a page get both put in front: the tables, and for RGB an Adobe marker, without which libjpeg would guess
YCbCr. What libjpeg only warns of (data that end early or lose step) is an error here; a byte changed without losing
step decodes to other pixels, and no decoder can tell.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import imagecodecs
import numpy as np
import simplejpeg

Colours = Literal["Gray", "RGB", "YCbCr"]

# APP14: "Adobe", version 100, no flags, transform 0 (the channels are what they are).
_ADOBE_RGB = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00"
_ADOBE_YCBCR = _ADOBE_RGB[:-1] + b"\x01"
_SOI, _EOI = b"\xff\xd8", b"\xff\xd9"
# Blocks of 8 x 8 become 4 x 4 or 2 x 2. An eighth is a plain average of each block: thumbnails only, not offered.
DCT_SHRINKS = (1, 2, 4)
_CHECK_SHRINK = 8  # all bits of the stream are looked at, hardly a pixel is made of them: half the time of decoding
# Second bytes of markers (ITU-T T.81, table B.1).
_START_OF_SCAN, _JFIF, _ADOBE = 0xDA, 0xE0, 0xEE
# What a browser shows as it is decoded here: baseline and progressive frames; Huffman and quantisation tables, restart
# interval; comments. Other segments may turn the picture (EXIF) or change its colours (ICC), which no reader here does.
_PLAIN = {0xC0, 0xC2, 0xC4, 0xDB, 0xDD, 0xFE, _JFIF, _ADOBE}


class JpegTiles:
    """Decodes the tiles of one page.

    Args:
        width: Of a tile.
        height: Of a tile.
        colours: What the page's tags say the channels are.
        tables: The page's JPEGTables, a stream of its own.

    Raises:
        ValueError: The tables are no JPEG stream.
    """

    def __init__(self, width: int, height: int, colours: Colours, tables: bytes | None) -> None:
        if tables is not None and not (tables.startswith(_SOI) and tables.endswith(_EOI)):
            raise ValueError("its JPEG tables are damaged")
        self.width, self.height, self.colours, self.tables = width, height, colours, tables
        self._front = (_ADOBE_RGB if colours == "RGB" else b"") + (tables[2:-2] if tables else b"")

    @property
    def channels(self) -> int:
        return 1 if self.colours == "Gray" else 3

    @property
    def shrinks(self) -> tuple[int, ...]:
        """Sides must be whole blocks, or neighbouring tiles would not meet."""
        return DCT_SHRINKS if self.width % 8 == self.height % 8 == 0 else (1,)

    def decode(self, data: bytes, shrink: int = 1, out: np.ndarray | None = None) -> np.ndarray:
        """(height / shrink, width / shrink, 1 or 3) uint8.

        Args:
            data: The tile as it stands in the file.
            shrink: 1, or 2 or 4 to decode at a smaller size in the DCT domain.
            out: Contiguous memory of that shape to decode into.

        Raises:
            ValueError: The stream is damaged, or of another size than the page says.
        """
        stream, colours = self._whole(data)
        if out is None:
            out = np.empty((self.height // shrink, self.width // shrink, self.channels), np.uint8)
        colourspace = "GRAY" if self.colours == "Gray" else "RGB"
        simplejpeg.decode_jpeg(
            stream, colourspace, min_height=out.shape[0], min_width=out.shape[1], min_factor=shrink, buffer=out
        )
        if colours != self.colours:  # the stream contradicts the page: the page is right, as for every TIFF reader
            out[...] = self._decode_as_stated(data, out.shape, shrink)
        return out

    def as_file(self, data: bytes) -> bytes | None:
        """The tile as a JPEG file that every browser shows in the colours that `decode` gives; None if it is no such.

        Args:
            data: The tile as it stands in the file.

        Raises:
            ValueError: The stream is damaged, or of another size than the page says.
        """
        stream, colours = self._whole(data)
        markers = set(_markers(stream))
        if colours != self.colours or not markers <= _PLAIN:
            return None
        simplejpeg.decode_jpeg(stream, "GRAY", min_height=1, min_width=1, min_factor=_CHECK_SHRINK)
        if self.colours == "YCbCr" and not markers & {_JFIF, _ADOBE}:  # else what the channels are would be a guess
            return _SOI + _ADOBE_YCBCR + stream[2:]
        return stream

    def _whole(self, data: bytes) -> tuple[bytes, str]:
        """The stream with its front, and the colours that libjpeg takes it for.

        Raises:
            ValueError: It is no JPEG of the page's size.
        """
        stream = _SOI + self._front + data[2:] if self._front and data.startswith(_SOI) else data
        height, width, colours, _ = simplejpeg.decode_jpeg_header(stream)
        if (width, height) != (self.width, self.height):  # checked before memory is taken for it
            raise ValueError(f"its JPEG has {width} x {height} pixels instead of {self.width} x {self.height}")
        return stream, colours

    def _decode_as_stated(self, data: bytes, shape: tuple[int, ...], shrink: int) -> np.ndarray:
        if shrink > 1:
            raise ValueError("its JPEG states other colours than the TIFF and cannot be shrunk while it is decoded")
        colourspace = "GRAYSCALE" if self.colours == "Gray" else self.colours.upper()
        outcolorspace = "GRAYSCALE" if self.colours == "Gray" else "RGB"
        pixels: np.ndarray = imagecodecs.jpeg8_decode(
            data, tables=self.tables, colorspace=colourspace, outcolorspace=outcolorspace
        )
        return pixels.reshape(shape)


def _markers(stream: bytes) -> Iterator[int]:
    """The second byte of each marker up to the first scan.

    Source: ITU-T T.81, B.1.1: a marker is 0xFF and a code, then, but for a few, a length of two bytes that it includes.

    Raises:
        ValueError: There is something else where a marker should be.
    """
    at = len(_SOI)
    while stream[at : at + 1] == b"\xff":
        code = stream[at + 1] if at + 1 < len(stream) else 0
        if code == 0xFF:  # filling
            at += 1
            continue
        if code == _START_OF_SCAN:
            return
        yield code
        at += 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
    raise ValueError("its JPEG has no scan")
