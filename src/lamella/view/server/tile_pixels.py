"""The pixels of a tile of the page, and of a thumbnail: exact boxes of the slide, read at a given number of pixels."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import simplejpeg

from lamella.geometry import Box
from lamella.slides.slide import Slide
from lamella.view.server.pyramid import Pyramid

# 85 with halved chroma is what slide viewers send; at a tenth of raw pixels the loss is not seen.
QUALITY = 85
SUBSAMPLING = "420"
THUMBNAIL_PX = 256  # a card of the gallery at two display pixels each
# Tiles that the file holds as JPEG are sent as they are, unless they are several times what coding anew would take
# (20 kB for 256 x 256 of tissue): a scanner's quality of 100 would make the page slow on a thin line.
_LARGEST_STORED_BYTES = 64 << 10


def tile_jpeg(slide: Slide, level: int, column: int, row: int, pyramid: Pyramid | None = None) -> bytes:
    """A tile of a slide as JPEG: the file's own where it holds just this tile.

    Args:
        slide: Open.
        level: Of the pyramid.
        column: From the left.
        row: From the top.
        pyramid: `Pyramid.of(slide)` unless given.

    Raises:
        IndexError: There is no such tile.
        SlideError: The slide cannot be read there.
    """
    pyramid = pyramid or Pyramid.of(slide)
    box, width_px, height_px = pyramid.tile(level, column, row)
    stored = slide.stored_jpeg(box, width_px, height_px, slide.mpp * pyramid.downsample(level))
    if stored is not None and len(stored) <= _LARGEST_STORED_BYTES:
        return stored
    return as_jpeg(tile_pixels(slide, pyramid, level, column, row))


def tile_pixels(slide: Slide, pyramid: Pyramid, level: int, column: int, row: int) -> np.ndarray:
    """(height, width, 3) uint8 of a tile.

    The last pixels of a level may reach over the slide's edge: each is the mean of what lies on the slide, so that no
    white line of padding is drawn around the tissue. The scale is the same along both axes in level-0 pixels, whatever
    their micrometres.
    """
    box, width_px, height_px = pyramid.tile(level, column, row)
    down = pyramid.downsample(level)
    mpp, edge = slide.mpp * down, slide.frame
    if box.x1 <= edge.width_px and box.y1 <= edge.height_px:
        return slide.read(box, mpp, size_px=(width_px, height_px)).pixels
    pixels = np.empty((height_px, width_px, 3), np.uint8)
    for y0, y1, rows in _parts(box.y0, height_px, down, edge.height_px):
        for x0, x1, columns in _parts(box.x0, width_px, down, edge.width_px):
            size_px = columns.stop - columns.start, rows.stop - rows.start
            pixels[rows, columns] = slide.read(Box(x0, y0, x1, y1), mpp, size_px=size_px).pixels
    return pixels


def thumbnail_jpeg(slide: Slide, max_px: int) -> bytes:
    """The whole slide, its longer side `max_px` pixels or less, in proportions of level-0 pixels as on its page.

    Raises:
        SlideError: The slide cannot be read.
    """
    frame = slide.frame
    down = max(1.0, max(frame.width_px, frame.height_px) / max_px)
    size_px = max(1, round(frame.width_px / down)), max(1, round(frame.height_px / down))
    return as_jpeg(slide.read(frame.bounds_px, slide.mpp * down, size_px=size_px).pixels)


def as_jpeg(pixels: np.ndarray) -> bytes:
    """(H, W, 3) uint8 as JPEG."""
    return bytes(simplejpeg.encode_jpeg(pixels, QUALITY, colorsubsampling=SUBSAMPLING))


def _parts(start: float, length_px: int, down: int, edge: int) -> Iterator[tuple[float, float, slice]]:
    """Along one axis (from, to, pixels): the pixels that lie on the slide, then the last as far as it does."""
    stop = start + length_px * down
    if stop <= edge:
        yield start, stop, slice(0, length_px)
        return
    if length_px > 1:
        yield start, stop - down, slice(0, length_px - 1)
    yield stop - down, edge, slice(length_px - 1, length_px)
