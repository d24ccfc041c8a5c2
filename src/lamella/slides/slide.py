"""A slide: pixels at a place in micrometres, whatever file they come from.

Readers know one file format each and hand out whole pixels of one pyramid level. `Slide` adds what all of them share:
the resolution, the choice of the level, exact resampling and stated padding.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import numpy as np

from lamella.errors import SlideError
from lamella.geometry import Box, Frame, LevelChoice, LevelMethod, choose_level
from lamella.slides import views
from lamella.slides.readers.mpp import Resolution, resolve_mpp
from lamella.slides.readers.protocol import JpegReader, Reader, Threads, TiledReader
from lamella.slides.readers.registry import open_reader
from lamella.slides.readers.tile_cache import TileCache
from lamella.slides.resample import is_copy
from lamella.slides.views import Source, View, read_in_bands, read_views


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
    dct_shrink: int = 1
    """2 or 4 where the level's JPEG tiles were decoded at a half or a quarter of their size."""


@dataclass(slots=True)
class Slide:
    """One slide with known micrometres per pixel. Use as a context manager, or call `close`.

    Several threads may read from it at once.
    """

    path: Path
    reader: Reader
    resolution: Resolution
    dct_scaling: bool = False
    """Decode JPEG tiles at a half or a quarter of their size where a view is that much coarser than its level. Faster,
    and not the exact area average: about one grey level off on average."""
    levels: tuple[Frame, ...] = field(init=False)
    _threads: dict[int, Threads] = field(init=False, default_factory=dict)

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

    def read(
        self, box_px0: Box, mpp: float, *, tolerance: float = 0.05, size_px: tuple[int, int] | None = None
    ) -> Region:
        """Read a box at a resolution.

        Args:
            box_px0: Half-open box in level-0 pixels; fractions are honoured, and it may reach over the edge.
            mpp: Asked spacing. The output has round(box in um / mpp) pixels a side, at least one.
            tolerance: Relative difference up to which a level counts as being at `mpp`.
            size_px: (width, height) of the output where it is not what `mpp` says: its pixels need not be square in
                micrometres. `mpp` then chooses the level only.

        Raises:
            SlideError: The pixels cannot be decoded.
            ValueError: The box is empty.
        """
        as_asked = self._output_px(box_px0, mpp)
        width_px, height_px = size_px or as_asked
        choice = self.choose_level(mpp, tolerance)
        (view,) = self._views([box_px0], choice.level, mpp, tolerance, (width_px, height_px))
        if view.source_px > views.MAX_SOURCE_PX:
            pixels = read_in_bands(self.reader, view.source, view.inner.shifted(view.x0, view.y0), width_px, height_px)
        else:
            pixels = np.empty((height_px, width_px, 3), np.uint8)
            read_views(self.reader, [view], pixels[None])
        inside = box_px0.intersection(self.frame.bounds_px).area
        return Region(
            pixels=pixels,
            source_mpp=self.levels[choice.level].mpp,
            output_mpp=self.frame.box_um(box_px0).width / width_px,
            method=choice.method,
            level=choice.level,
            padding_fraction=max(0.0, 1 - inside / box_px0.area),
            dct_shrink=view.source.shrink,
        )

    def read_many(
        self,
        boxes_px0: Sequence[Box],
        mpp: float,
        *,
        threads: int = 1,
        tolerance: float = 0.05,
        out: np.ndarray | None = None,
    ) -> np.ndarray:
        """Read boxes of one size together: the same pixels as `read` gives, each tile of the file decoded once.

        Args:
            boxes_px0: N boxes, as for `read`.
            mpp: Asked spacing.
            threads: How many may decode at once.
            tolerance: As for `read`.
            out: Memory to read into, of the shape that is returned.

        Returns:
            (N, H, W, 3) uint8, in the order of the boxes.

        Raises:
            SlideError: The pixels of a box cannot be decoded.
            ValueError: A box is empty, the boxes come out in different sizes, or `out` has another shape.
        """
        sides = {(box.width, box.height) for box in boxes_px0}
        sizes = {self._output_px(Box(0, 0, *side), mpp) for side in sides}
        if len(sizes) != 1:
            raise ValueError(f"boxes that are read together need one size in pixels, not {sorted(sizes) or 'none'}")
        width_px, height_px = sizes.pop()
        shape = (len(boxes_px0), height_px, width_px, 3)
        out = np.empty(shape, np.uint8) if out is None else out
        if out.shape != shape or out.dtype != np.uint8:
            raise ValueError(f"out must be uint8 {shape}, not {out.dtype} {out.shape}")
        level = self.choose_level(mpp, tolerance).level
        planned = self._views(boxes_px0, level, mpp, tolerance, (width_px, height_px))
        read_views(self.reader, planned, out, self._threads_of(threads))
        return out

    @property
    def stored_tile_px(self) -> tuple[int, int] | None:
        """(width, height) of the tiles that the file holds at level 0; None where `stored_jpeg` knows of none."""
        return self.reader.tile_size(0) if isinstance(self.reader, JpegReader) else None

    def stored_jpeg(self, box_px0: Box, width_px: int, height_px: int, mpp: float) -> bytes | None:
        """The file's own JPEG of a box, if the box is just one of its tiles: not decoded and coded once more.

        It shows what `read` would give at that size, without `dct_scaling`.

        Args:
            box_px0: As for `read`.
            width_px: Asked width.
            height_px: Asked height.
            mpp: Chooses the level, as for `read`.

        Returns:
            A JPEG file that is sound, or None.

        Raises:
            SlideError: The tile is corrupt.
        """
        if not isinstance(self.reader, JpegReader):
            return None
        level = self.choose_level(mpp).level
        to_x, to_y = self.frame.mpp_x / self.levels[level].mpp_x, self.frame.mpp_y / self.levels[level].mpp_y
        box_px = box_px0.scaled(to_x, to_y)
        if not is_copy(box_px, width_px, height_px):
            return None
        return self.reader.stored_jpeg(level, round(box_px.x0), round(box_px.y0), width_px, height_px)

    def choose_level(self, mpp: float, tolerance: float = 0.05) -> LevelChoice:
        """The level that views at `mpp` are read from."""
        return choose_level([level.mpp for level in self.levels], mpp, tolerance)

    def thumbnail(self, max_px: int) -> Region:
        """The whole slide, its longer side at most `max_px` pixels."""
        width_um, height_um = self.frame.size_um
        return self.read(self.frame.bounds_px, max(self.mpp, max(width_um, height_um) / max_px))

    def _output_px(self, box_px0: Box, mpp: float) -> tuple[int, int]:
        if not (box_px0.width > 0 and box_px0.height > 0 and mpp > 0):
            raise ValueError(f"cannot read {box_px0} at {mpp} um per pixel: both must be positive")
        box_um = self.frame.box_um(box_px0)
        return max(1, round(box_um.width / mpp)), max(1, round(box_um.height / mpp))

    def _views(
        self, boxes_px0: Sequence[Box], level: int, mpp: float, tolerance: float, size_px: tuple[int, int]
    ) -> list[View]:
        exact = Source(level, self.levels[level])
        shrunk = self._shrunk(exact, mpp, tolerance) if self.dct_scaling else exact
        return [self._view(box, exact, shrunk, size_px) for box in boxes_px0]

    def _view(self, box_px0: Box, exact: Source, shrunk: Source, size_px: tuple[int, int]) -> View:
        frame = self.frame
        if shrunk is not exact:
            to_x, to_y = frame.mpp_x / shrunk.frame.mpp_x, frame.mpp_y / shrunk.frame.mpp_y
            view = View.of(shrunk, box_px0.scaled(to_x, to_y), *size_px)
            # A shrunk level ends before its last odd pixel; views that reach it are read from the level itself.
            if view.x1 <= shrunk.frame.width_px and view.y1 <= shrunk.frame.height_px:
                return view
        to_x, to_y = frame.mpp_x / exact.frame.mpp_x, frame.mpp_y / exact.frame.mpp_y
        return View.of(exact, box_px0.scaled(to_x, to_y), *size_px)

    def _shrunk(self, exact: Source, mpp: float, tolerance: float) -> Source:
        """The level at the largest shrinking that is still as fine as `mpp`."""
        frame = exact.frame
        shrinks = self.reader.shrinks(exact.level) if isinstance(self.reader, TiledReader) else ()
        factor = max((one for one in shrinks if frame.mpp * one <= mpp * (1 + tolerance)), default=1)
        size_px = frame.width_px // factor, frame.height_px // factor
        return Source(exact.level, Frame(*size_px, frame.mpp_x * factor, frame.mpp_y * factor), factor)

    def _threads_of(self, count: int) -> Threads:
        """Threads that stay for the next batch: starting them anew each time would take as long as some tiles."""
        if count not in self._threads:
            self._threads[count] = Threads(count)
        return self._threads[count]

    def close(self) -> None:
        for threads in self._threads.values():
            threads.close()
        self.reader.close()

    def __enter__(self) -> Slide:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_slide(
    path: Path | str,
    *,
    mpp: float | tuple[float, float] | None = None,
    readers: tuple[str, ...] | None = None,
    dct_scaling: bool = False,
    cache: TileCache | None = None,
) -> Slide:
    """Open a slide with the first reader that takes the file.

    Args:
        path: The slide's file (or a folder of one DICOM series).
        mpp: Stated micrometres per pixel at level 0; wins over what the file says.
        readers: Names of the readers to try, in order; all of `readers.registry.READERS` by default.
        dct_scaling: Shrink JPEG tiles while they are decoded; see `Slide.dct_scaling`.
        cache: For decoded tiles, shared with other slides; the slide's own by default.

    Raises:
        SlideError: The file is missing, or every reader refused it (each reader's word is listed).
        ResolutionError: The micrometres per pixel are missing or absurd.
    """
    path = Path(path)
    if not path.exists():
        raise SlideError(path, "the file does not exist", "Correct the path, or remove the row from the manifest.")
    reader = open_reader(path, readers, cache)
    try:
        resolution = resolve_mpp(path, reader.properties, stated=mpp)
    except SlideError:
        reader.close()
        raise
    return Slide(path, reader, resolution, dct_scaling)


class SlideCache:
    """Open slides of one process, at most `max_slides` of them; the least recently used one is closed first.

    They share one cache of decoded tiles, so that memory does not grow with their number. Not for several threads.
    """

    def __init__(self, max_slides: int = 8, *, dct_scaling: bool = False) -> None:  # 8: few enough for file limits
        self.max_slides = max_slides
        self.dct_scaling = dct_scaling
        self._tiles = TileCache()
        self._slides: OrderedDict[tuple[Path, float | tuple[float, float] | None], Slide] = OrderedDict()

    def __len__(self) -> int:
        return len(self._slides)

    def get(self, path: Path | str, mpp: float | tuple[float, float] | None = None) -> Slide:
        """The open slide, opened now if needed."""
        key = (Path(path), mpp)
        if key in self._slides:
            self._slides.move_to_end(key)
            return self._slides[key]
        slide = open_slide(path, mpp=mpp, dct_scaling=self.dct_scaling, cache=self._tiles)
        self._slides[key] = slide
        while len(self._slides) > self.max_slides:
            self._slides.popitem(last=False)[1].close()
        return slide

    def close(self) -> None:
        while self._slides:
            self._slides.popitem()[1].close()
