"""Tiles of slides and layers on disk, named as Deep Zoom names them; what is there already is not made again."""

from __future__ import annotations

import io
import logging
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
from lamella.view.server.layers.routes import as_png
from lamella.view.server.pyramid import Pyramid
from lamella.view.server.tile_pixels import as_jpeg, tile_jpeg

_LOG = logging.getLogger("lamella.view")
# Layers are written at half the slide's pixels a side, a quarter of the tiles: rasters of models are coarser than that.
_LAYER_SHRINK = 2
_SAMPLED = 12  # tiles whose mean stands for all: the estimate is for a person who has a disk in mind
_MOST_THREADS = 8
_SETTLE_S = 0.1  # between looks whether a layer's file is read
# A pixel that nobody sees, for each tile where a layer has nothing: a browser that finds no file would show a coarser
# tile in its place, and complain.
_BARE = as_png(np.zeros((1, 1, 4), np.uint8))


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

    @property
    def places(self) -> int:
        """How many tiles there are."""
        levels = (self.pyramid.tiles(level) for level in range(self.pyramid.max_level + 1))
        return sum(columns * rows for columns, rows in levels)

    def estimated_bytes(self) -> float:
        """About how much disk all of them take."""
        top = self.pyramid.max_level
        columns, rows = self.pyramid.tiles(top)
        picks = np.random.default_rng(0).integers(0, columns * rows, _SAMPLED)
        sizes = [len(self.make(top, int(pick) % columns, int(pick) // columns)) for pick in picks]
        return self.places * sum(sizes) / _SAMPLED

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
                    there = set(os.listdir(place))
                for row in range(rows):
                    names = {f"{column}_{row}.{self.suffix}": column for column in range(columns)}
                    missing = [(place / name, level, column, row) for name, column in names.items() if name not in there]
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

    def _tile(self, level: int, column: int, row: int) -> bytes:
        try:
            return tile_jpeg(self.slide, level, column, row)
        except SlideError as error:
            _LOG.error("%s", error)
            self.faults.append(str(error))
            _, *size_px = Pyramid.over(self.slide.frame).tile(level, column, row)
            png = Image.open(io.BytesIO(error_tile((size_px[0], size_px[1]), error.cause)))
            return as_jpeg(np.asarray(png))


def layer_tiles(layer: Layer, look: Look) -> Tiles:
    """The tiles of a layer, at half of the slide's size."""
    frame = layer.frame
    pyramid = Pyramid(-(-frame.width_px // _LAYER_SHRINK), -(-frame.height_px // _LAYER_SHRINK))
    whole = Pyramid.over(frame)

    def make(level: int, column: int, row: int) -> bytes:
        box, width_px, height_px = whole.tile(level, column, row)
        try:
            pixels = layer.tile(box, width_px, height_px, look)
        except LamellaError as error:
            _LOG.error("%s", error)
            return error_tile((width_px, height_px), error.cause)
        return as_png(pixels) if pixels[..., 3].any() else _BARE

    return Tiles(pyramid, make, "png")


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
