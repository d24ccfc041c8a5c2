"""Tiles of slides and layers on disk, named as Deep Zoom names them; what is there already is not made again."""

from __future__ import annotations

import io
import logging
import math
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from lamella.errors import LamellaError, SlideError, storage_faults
from lamella.slides.slide import Slide
from lamella.view.server.error_tile import error_tile
from lamella.view.server.layers.contract import Layer, Look
from lamella.view.server.pyramid import Pyramid
from lamella.view.server.tile_pixels import THUMBNAIL_PX, as_jpeg, thumbnail_jpeg, tile_jpeg

_LOG = logging.getLogger("lamella.view")
# Layers are written at half the slide's pixels a side, a quarter of the tiles: rasters of models are coarser than that.
_LAYER_SHRINK = 2
# Tiles whose mean stands for their level, and levels that are sampled; the three finest are 98% of all pixels.
_SAMPLED, _SAMPLED_LEVELS = 24, 3
_GOLDEN = 0.6180339887
_MOST_THREADS = 8
_SETTLE_S = 0.1  # between looks whether a layer's file is read


@dataclass
class Tiles:
    """A pyramid to write.

    Attributes:
        pyramid: Its grid.
        make: (level, column, row) -> the file's bytes; several threads call it.
        suffix: Of the files.
    """

    pyramid: Pyramid
    make: Callable[[int, int, int], bytes]
    suffix: str

    def estimated_bytes(self) -> float:
        """About how much disk all of them take: the finest levels are sampled, the others taken for like these."""
        total, per_px = 0.0, 0.0
        for level in range(self.pyramid.max_level, -1, -1):
            if level > self.pyramid.max_level - _SAMPLED_LEVELS:
                per_px = self._bytes_per_px(level)
            total += per_px * self.pyramid.width_px0 * self.pyramid.height_px0 / self.pyramid.downsample(level) ** 2
        return total

    def _bytes_per_px(self, level: int) -> float:
        columns, rows = self.pyramid.tiles(level)
        # By steps of the golden ratio: spread evenly, and never along a row or a column.
        picks = {int(number * _GOLDEN % 1 * columns * rows) for number in range(_SAMPLED)}
        places = [(level, pick % columns, pick // columns) for pick in picks]
        sampled_px = sum(math.prod(self.pyramid.tile(*place)[1:]) for place in places)
        return sum(len(self.make(*place)) for place in places) / sampled_px

    def write(self, folder: Path) -> None:
        """Write all tiles that are not there, row by row, so that memory does not grow with the slide.

        Raises:
            StorageError: The disk refused the write.
        """
        with ThreadPoolExecutor(min(os.cpu_count() or 1, _MOST_THREADS)) as threads:
            for level in range(self.pyramid.max_level + 1):
                columns, rows = self.pyramid.tiles(level)
                place = folder / str(level)
                with storage_faults(place):
                    place.mkdir(parents=True, exist_ok=True)
                    there = {path.name for path in place.iterdir()}
                for row in range(rows):
                    names = {f"{column}_{row}.{self.suffix}": column for column in range(columns)}
                    missing = [
                        (place / name, level, column, row) for name, column in names.items() if name not in there
                    ]
                    list(threads.map(self._write_one, missing))

    def _write_one(self, work: tuple[Path, int, int, int]) -> None:
        path, *at = work
        part = path.with_suffix(".part")
        tile = self.make(*at)
        with storage_faults(path):
            part.write_bytes(tile)
            part.replace(path)  # a tile that has its name is whole


@dataclass
class SlideTiles:
    """What a slide's tiles are made of. A tile that cannot be read becomes an error tile, and is counted.

    Attributes:
        slide: Open.
        faults: What could not be read.
    """

    slide: Slide
    faults: list[str] = field(default_factory=list)

    def tiles(self) -> Tiles:
        return Tiles(Pyramid.over(self.slide.frame), self._tile, "jpg")

    def thumbnail(self) -> bytes:
        """A small picture of the slide."""
        try:
            return thumbnail_jpeg(self.slide, THUMBNAIL_PX)
        except SlideError as error:
            return self._fault((THUMBNAIL_PX, THUMBNAIL_PX), error)

    def _tile(self, level: int, column: int, row: int) -> bytes:
        pyramid = Pyramid.over(self.slide.frame)
        try:
            return tile_jpeg(self.slide, level, column, row, pyramid)
        except SlideError as error:
            _, *size_px = pyramid.tile(level, column, row)
            return self._fault((size_px[0], size_px[1]), error)

    def _fault(self, size_px: tuple[int, int], error: SlideError) -> bytes:
        _LOG.error("%s", error)
        if str(error) not in self.faults:  # coarse tiles meet it again and again
            self.faults.append(str(error))
        return as_jpeg(np.asarray(Image.open(io.BytesIO(error_tile(size_px, error.cause)))))


def layer_tiles(layer: Layer, look: Look) -> Tiles:
    """The tiles of a layer, at half of the slide's size."""
    frame = layer.frame
    pyramid = Pyramid(-(-frame.width_px // _LAYER_SHRINK), -(-frame.height_px // _LAYER_SHRINK))
    whole = Pyramid.over(frame)
    # A pixel that nobody sees, for each tile where the layer has nothing: a browser that finds no file would show a
    # coarser tile in its place, and complain.
    bare = _png(np.zeros((1, 1, 4), np.uint8))

    def make(level: int, column: int, row: int) -> bytes:
        box, width_px, height_px = whole.tile(level, column, row)
        try:
            pixels = layer.tile(box, width_px, height_px, look)
        except LamellaError as error:
            _LOG.error("%s", error)
            return error_tile((width_px, height_px), error.cause)
        return _png(pixels) if pixels[..., 3].any() else bare

    return Tiles(pyramid, make, "png")


def _png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def settle(layers: Sequence[tuple[Layer, Look]]) -> None:
    """Wait until the files of layers are read: before, their tiles hold a part of it.

    Raises:
        LamellaError: A file is damaged.
    """
    for layer, look in layers:
        box, width_px, height_px = Pyramid.over(layer.frame).tile(0, 0, 0)
        layer.tile(box, width_px, height_px, look)
        while not layer.settled:
            time.sleep(_SETTLE_S)
            layer.tile(box, width_px, height_px, look)
