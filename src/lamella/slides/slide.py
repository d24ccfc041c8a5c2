"""A slide: pixels at a place in micrometres, whatever file they come from.

Readers know one file format each and hand out whole pixels of one pyramid level. `Slide` adds what all of them share:
the resolution, the choice of the level, exact resampling and stated padding.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import numpy as np

from lamella.errors import SlideError
from lamella.geometry import Box, Frame, LevelMethod, choose_level
from lamella.slides.readers.mpp import Resolution, resolve_mpp
from lamella.slides.readers.protocol import Reader
from lamella.slides.readers.registry import open_reader
from lamella.slides.resample import reach_px, resample

# Outside the slide there is glass.
PADDING_VALUE = 255

# Level pixels held at once while reading: 50 MB of pixels, 200 MB where they are averaged as floats. A thumbnail of a
# 100,000 px slide without a pyramid is read in bands of this size.
MAX_SOURCE_PX = 2**24


@dataclass(frozen=True, slots=True)
class Region:
    """Pixels read from a slide and how they came about."""

    pixels: np.ndarray
    """(H, W, 3) uint8."""
    source_mpp: float
    """Spacing of the pyramid level that was read."""
    output_mpp: float
    """Spacing of `pixels`."""
    method: LevelMethod
    level: int
    padding_fraction: float
    """Share of the area that lies outside the slide and is white."""


@dataclass(slots=True)
class Slide:
    """One slide with known micrometres per pixel. Use as a context manager, or call `close`."""

    path: Path
    reader: Reader
    resolution: Resolution
    levels: tuple[Frame, ...] = field(init=False)

    def __post_init__(self) -> None:
        (width, height), *_ = sizes = self.reader.level_sizes
        base = Frame(width, height, self.resolution.mpp_x, self.resolution.mpp_y)
        self.levels = tuple(base.resized(*size) for size in sizes)

    @property
    def frame(self) -> Frame:
        """The level-0 frame: size in level-0 pixels and their spacing."""
        return self.levels[0]

    @property
    def mpp(self) -> float:
        return self.frame.mpp

    def read(self, box_px0: Box, mpp: float, *, tolerance: float = 0.05) -> Region:
        """Read a box at a resolution.

        Args:
            box_px0: Half-open box in level-0 pixels; fractions are honoured, and it may reach over the edge.
            mpp: Asked spacing. The output has round(box in um / mpp) pixels a side, at least one.
            tolerance: Relative difference up to which a level counts as being at `mpp`.

        Raises:
            SlideError: The pixels cannot be decoded.
            ValueError: The box is empty.
        """
        if not (box_px0.width > 0 and box_px0.height > 0 and mpp > 0):
            raise ValueError(f"cannot read {box_px0} at {mpp} um per pixel: both must be positive")
        box_um = self.frame.box_um(box_px0)
        width_px, height_px = (max(1, round(side / mpp)) for side in (box_um.width, box_um.height))
        choice = choose_level([level.mpp for level in self.levels], mpp, tolerance)
        level = self.levels[choice.level]
        inside = box_px0.intersection(self.frame.bounds_px).area
        return Region(
            pixels=self._read_in_bands(choice.level, level.box_px(box_um), width_px, height_px),
            source_mpp=level.mpp,
            output_mpp=box_um.width / width_px,
            method=choice.method,
            level=choice.level,
            padding_fraction=max(0.0, 1 - inside / box_px0.area),
        )

    def thumbnail(self, max_px: int) -> Region:
        """The whole slide, its longer side at most `max_px` pixels."""
        width_um, height_um = self.frame.size_um
        return self.read(self.frame.bounds_px, max(self.mpp, max(width_um, height_um) / max_px))

    def _read_in_bands(self, level: int, box_px: Box, width_px: int, height_px: int) -> np.ndarray:
        """(height_px, width_px, 3) uint8 of a fractional box of a level, holding MAX_SOURCE_PX of it at a time."""
        reach = reach_px(box_px, width_px, height_px)
        row_px = box_px.height / height_px
        rows = max(1, int(MAX_SOURCE_PX / (box_px.width * row_px)))
        if rows >= height_px:
            return resample(*self._read_padded(level, box_px, reach), width_px, height_px)
        pixels = np.empty((height_px, width_px, 3), np.uint8)
        for top in range(0, height_px, rows):
            stop = min(top + rows, height_px)
            band = Box(box_px.x0, box_px.y0 + top * row_px, box_px.x1, box_px.y0 + stop * row_px)
            pixels[top:stop] = resample(*self._read_padded(level, band, reach), width_px, stop - top)
        return pixels

    def _read_padded(self, level: int, box_px: Box, reach: int) -> tuple[np.ndarray, Box]:
        """Whole pixels around a fractional box of a level, white outside it, and the box within them.

        `reach` more pixels are read on each side where the level has them.
        """
        frame = self.levels[level]
        # 1e-6 px: a box that ends on a pixel edge up to rounding does not need the next pixel.
        x0, y0 = int(np.floor(box_px.x0 + 1e-6)), int(np.floor(box_px.y0 + 1e-6))
        x1, y1 = max(x0 + 1, int(np.ceil(box_px.x1 - 1e-6))), max(y0 + 1, int(np.ceil(box_px.y1 - 1e-6)))
        x0, y0 = min(x0, max(0, x0 - reach)), min(y0, max(0, y0 - reach))
        x1, y1 = max(x1, min(frame.width_px, x1 + reach)), max(y1, min(frame.height_px, y1 + reach))
        in_x0, in_y0 = max(0, x0), max(0, y0)
        in_x1, in_y1 = min(frame.width_px, x1), min(frame.height_px, y1)
        inner = box_px.shifted(-x0, -y0)
        if (in_x0, in_y0, in_x1, in_y1) == (x0, y0, x1, y1):
            return self.reader.read_level(level, x0, y0, x1 - x0, y1 - y0), inner
        pixels = np.full((y1 - y0, x1 - x0, 3), PADDING_VALUE, np.uint8)
        if in_x1 > in_x0 and in_y1 > in_y0:
            inside = self.reader.read_level(level, in_x0, in_y0, in_x1 - in_x0, in_y1 - in_y0)
            pixels[in_y0 - y0 : in_y1 - y0, in_x0 - x0 : in_x1 - x0] = inside
        return pixels, inner

    def close(self) -> None:
        self.reader.close()

    def __enter__(self) -> Slide:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_slide(
    path: Path | str, *, mpp: float | tuple[float, float] | None = None, readers: tuple[str, ...] | None = None
) -> Slide:
    """Open a slide with the first reader that takes the file.

    Args:
        path: The slide's file (or a folder of one DICOM series).
        mpp: Stated micrometres per pixel at level 0; wins over what the file says.
        readers: Names of the readers to try, in order; all of `lamella.slides.readers.registry.READERS` by default.

    Raises:
        SlideError: The file is missing, or every reader refused it (each reader's word is listed).
        ResolutionError: The micrometres per pixel are missing or absurd.
    """
    path = Path(path)
    if not path.exists():
        raise SlideError(path, "the file does not exist", "Correct the path, or remove the row from the manifest.")
    reader = open_reader(path, readers)
    try:
        resolution = resolve_mpp(path, reader.properties, stated=mpp)
    except SlideError:
        reader.close()
        raise
    return Slide(path, reader, resolution)


class SlideCache:
    """Open slides of one process, at most `max_slides` of them; the least recently used one is closed first."""

    def __init__(self, max_slides: int = 8) -> None:  # 8: a decoder's buffers are tens of MB a slide
        self.max_slides = max_slides
        self._slides: OrderedDict[tuple[Path, float | tuple[float, float] | None], Slide] = OrderedDict()

    def __len__(self) -> int:
        return len(self._slides)

    def get(self, path: Path | str, mpp: float | tuple[float, float] | None = None) -> Slide:
        """The open slide, opened now if needed."""
        key = (Path(path), mpp)
        if key in self._slides:
            self._slides.move_to_end(key)
            return self._slides[key]
        slide = open_slide(path, mpp=mpp)
        self._slides[key] = slide
        while len(self._slides) > self.max_slides:
            self._slides.popitem(last=False)[1].close()
        return slide

    def close(self) -> None:
        while self._slides:
            self._slides.popitem()[1].close()
