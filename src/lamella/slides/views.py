"""From boxes to pixels: which whole pixels of a level a view needs, how they are read together, resampled and padded.

A view is planned before any pixel is read. Views that copy pixels are read straight into the batch; the others get
their source pixels first, in windows of bounded size, and are resampled from them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lamella.geometry import Box, Frame
from lamella.slides.readers.protocol import ALONE, Crop, Reader, Threads, read_crops
from lamella.slides.resample import is_copy, reach_px, resample

# Outside the slide there is glass.
PADDING_VALUE = 255

# Level pixels of one view held at once: 50 MB of pixels, 200 MB where they are averaged as floats. A thumbnail of a
# 100,000 px slide without a pyramid is read in bands of this size.
MAX_SOURCE_PX = 2**24
# Level pixels of views that are resampled together: 6 MB stay in a processor's cache until they are used.
_WINDOW_PX = 2**21


@dataclass(frozen=True, slots=True)
class Source:
    """What views are read from: a level of the slide, perhaps shrunk while its tiles are decoded."""

    level: int
    frame: Frame
    """Size and spacing of the pixels as they come out."""
    shrink: int = 1


@dataclass(frozen=True, slots=True)
class View:
    """One box of a source, and the whole source pixels around it that its resampling looks at."""

    source: Source
    x0: int
    y0: int
    x1: int
    y1: int
    """In the source's pixels; they may lie outside of it."""
    inner: Box
    """The box, from (x0, y0)."""
    width_px: int
    height_px: int
    """Of the output."""
    copies: bool
    """Whether the output is the source's pixels as they are."""

    @classmethod
    def of(cls, source: Source, box_px: Box, width_px: int, height_px: int) -> View:
        """Plan a view of a fractional box, in the source's pixels."""
        frame, copies = source.frame, is_copy(box_px, width_px, height_px)
        reach = 0 if copies else reach_px(box_px, width_px, height_px)
        # 1e-6 px: a box that ends on a pixel edge up to rounding does not need the next pixel.
        x0, y0 = math.floor(box_px.x0 + 1e-6), math.floor(box_px.y0 + 1e-6)
        x1, y1 = max(x0 + 1, math.ceil(box_px.x1 - 1e-6)), max(y0 + 1, math.ceil(box_px.y1 - 1e-6))
        x0, y0 = min(x0, max(0, x0 - reach)), min(y0, max(0, y0 - reach))
        x1, y1 = max(x1, min(frame.width_px, x1 + reach)), max(y1, min(frame.height_px, y1 + reach))
        return cls(source, x0, y0, x1, y1, box_px.shifted(-x0, -y0), width_px, height_px, copies)

    @property
    def source_px(self) -> int:
        """How many source pixels it needs."""
        return (self.x1 - self.x0) * (self.y1 - self.y0)

    def crop(self, pixels: np.ndarray) -> Crop | None:
        """What is to be read into `pixels`, which holds all of (x0, y0, x1, y1); the rest of it becomes white."""
        frame = self.source.frame
        x0, y0 = max(0, self.x0), max(0, self.y0)
        x1, y1 = min(frame.width_px, self.x1), min(frame.height_px, self.y1)
        if (x0, y0, x1, y1) != (self.x0, self.y0, self.x1, self.y1):
            pixels[...] = PADDING_VALUE
        if x1 <= x0 or y1 <= y0:
            return None
        return Crop(x0, y0, pixels[y0 - self.y0 : y1 - self.y0, x0 - self.x0 : x1 - self.x0])


def read_views(reader: Reader, views: Sequence[View], out: np.ndarray, threads: Threads = ALONE) -> None:
    """Fill out[i] with the pixels of views[i].

    Args:
        reader: Of the slide.
        views: All of the output's size.
        out: (N, height_px, width_px, 3) uint8.
        threads: Who decodes and resamples.

    Raises:
        SlideError: Pixels cannot be decoded.
    """
    copied = [i for i, view in enumerate(views) if view.copies]
    _read(reader, [(views[i], out[i]) for i in copied], threads)
    resampled = sorted({*range(len(views))} - {*copied})
    held = np.empty((0, 3), np.uint8)
    for window in _windows([views[i] for i in resampled]):
        held_px = sum(view.source_px for view in window)
        held = held if len(held) >= held_px else np.empty((held_px, 3), np.uint8)
        sources = _divided(held, window)
        _read(reader, list(zip(window, sources, strict=True)), threads)
        outs = [out[i] for i in resampled[: len(window)]]
        del resampled[: len(window)]
        threads.each(_resample, list(zip(window, sources, outs, strict=True)))


def read_in_bands(reader: Reader, source: Source, box_px: Box, width_px: int, height_px: int) -> np.ndarray:
    """(height_px, width_px, 3) uint8 of one box of any size, holding MAX_SOURCE_PX of it at a time."""
    row_px = box_px.height / height_px
    rows = max(1, int(MAX_SOURCE_PX / (box_px.width * row_px)))
    pixels = np.empty((height_px, width_px, 3), np.uint8)
    for top in range(0, height_px, rows):
        stop = min(top + rows, height_px)
        band = Box(box_px.x0, box_px.y0 + top * row_px, box_px.x1, box_px.y0 + stop * row_px)
        read_views(reader, [View.of(source, band, width_px, stop - top)], pixels[None, top:stop])
    return pixels


def _read(reader: Reader, wanted: Sequence[tuple[View, np.ndarray]], threads: Threads) -> None:
    """Read the whole source pixels of each view into its array, the views of one source together."""
    for source in dict.fromkeys(view.source for view, _ in wanted):
        crops = [view.crop(pixels) for view, pixels in wanted if view.source == source]
        inside = [crop for crop in crops if crop is not None]
        read_crops(reader, source.level, inside, threads=threads, shrink=source.shrink)


def _windows(views: Sequence[View]) -> Iterator[list[View]]:
    """Runs of views, in order, that need at most _WINDOW_PX together; a larger view stands alone."""
    window: list[View] = []
    held_px = 0
    for view in views:
        if window and held_px + view.source_px > _WINDOW_PX:
            yield window
            window, held_px = [], 0
        window.append(view)
        held_px += view.source_px
    if window:
        yield window


def _divided(held: np.ndarray, window: Sequence[View]) -> list[np.ndarray]:
    """The memory of a window, (pixels, 3), divided among its views."""
    ends = np.cumsum([view.source_px for view in window]).tolist()
    return [
        held[end - view.source_px : end].reshape(view.y1 - view.y0, view.x1 - view.x0, 3)
        for view, end in zip(window, ends, strict=True)
    ]


def _resample(work: tuple[View, np.ndarray, np.ndarray]) -> None:
    view, pixels, out = work
    resample(pixels, view.inner, view.width_px, view.height_px, out)
