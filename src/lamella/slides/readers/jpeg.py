"""JPEG tiles of a TIFF: libjpeg-turbo into our own memory, without Python's lock, strict about damage.

A TIFF may keep the tables of all tiles in one place, and says itself whether the three channels are RGB or YCbCr. The
streams of a page get both put in front: the tables, and for RGB an Adobe marker, without which libjpeg would guess
YCbCr. What libjpeg only warns of (data that end early or lose step) is an error here; a byte changed without losing
step decodes to other pixels, and no decoder can tell.
"""

from __future__ import annotations

from typing import Literal

import imagecodecs
import numpy as np
import simplejpeg

Colours = Literal["Gray", "RGB", "YCbCr"]

# APP14: "Adobe", version 100, no flags, transform 0 (the channels are what they are).
_ADOBE_RGB = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00"
_SOI, _EOI = b"\xff\xd8", b"\xff\xd9"
# Blocks of 8 x 8 become 4 x 4 or 2 x 2. An eighth is a plain average of each block: thumbnails only, not offered.
DCT_SHRINKS = (1, 2, 4)


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
        stream = _SOI + self._front + data[2:] if self._front and data.startswith(_SOI) else data
        height, width, colours, _ = simplejpeg.decode_jpeg_header(stream)
        if (width, height) != (self.width, self.height):  # checked before memory is taken for it
            raise ValueError(f"its JPEG has {width} x {height} pixels instead of {self.width} x {self.height}")
        if out is None:
            out = np.empty((height // shrink, width // shrink, self.channels), np.uint8)
        colourspace = "GRAY" if self.colours == "Gray" else "RGB"
        simplejpeg.decode_jpeg(
            stream, colourspace, min_height=out.shape[0], min_width=out.shape[1], min_factor=shrink, buffer=out
        )
        if colours != self.colours:  # the stream contradicts the page: the page is right, as for every TIFF reader
            out[...] = self._decode_as_stated(data, out.shape, shrink)
        return out

    def _decode_as_stated(self, data: bytes, shape: tuple[int, ...], shrink: int) -> np.ndarray:
        if shrink > 1:
            raise ValueError("its JPEG states other colours than the TIFF and cannot be shrunk while it is decoded")
        colourspace = "GRAYSCALE" if self.colours == "Gray" else self.colours.upper()
        outcolorspace = "GRAYSCALE" if self.colours == "Gray" else "RGB"
        pixels: np.ndarray = imagecodecs.jpeg8_decode(
            data, tables=self.tables, colorspace=colourspace, outcolorspace=outcolorspace
        )
        return pixels.reshape(shape)
