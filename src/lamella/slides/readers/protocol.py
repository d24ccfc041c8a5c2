"""What a file format must offer to be read as a slide, and how rectangles of it are asked for."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np

T = TypeVar("T")


class Reader(Protocol):
    """What a file format must offer. Opening a file it cannot read raises SlideError with the cause.

    Several threads may read at once; `close` is called when none does any more.
    """

    name: str
    properties: Mapping[str, str]
    """Everything the file states, with OpenSlide's key names where they exist."""

    @property
    def level_sizes(self) -> list[tuple[int, int]]:
        """(width, height) in pixels of each level, level 0 first and finest."""
        ...

    def read_level(self, level: int, x: int, y: int, width: int, height: int) -> np.ndarray:
        """(height, width, 3) uint8 of a rectangle that lies wholly inside the level, in that level's pixels.

        Raises:
            SlideError: A tile is corrupt; the message names slide, level and tile.
        """
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Crop:
    """A rectangle of a level, given by its top-left corner, and the pixels that it is written to."""

    x: int
    y: int
    pixels: np.ndarray
    """(height, width, 3) uint8, usually a part of a larger array; its shape is the rectangle's."""


class Threads:
    """Threads that share a piece of work with the thread that asks, which does its part. Close it when done.

    Args:
        count: How many work, the one that asks included.
    """

    def __init__(self, count: int = 1) -> None:
        self.count = count
        self._pool = ThreadPoolExecutor(count - 1, "decode") if count > 1 else None

    def each(self, work: Callable[[T], object], items: Sequence[T]) -> None:
        """Do `work` on every item, begun in their order. An error is raised when no thread is at work any more."""
        turns, stopped = itertools.count(), threading.Event()

        def take_turns() -> None:
            try:
                while not stopped.is_set() and (turn := next(turns)) < len(items):
                    work(items[turn])
            except BaseException:
                stopped.set()
                raise

        helpers = min(self.count, len(items)) - 1
        futures = [self._pool.submit(take_turns) for _ in range(helpers)] if self._pool else []
        try:
            take_turns()
        finally:
            wait(futures)
        for future in futures:
            future.result()

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()


ALONE = Threads(1)


@runtime_checkable
class TiledReader(Protocol):
    """A reader that knows its tiles: it reads many rectangles together, each tile decoded once."""

    def read_crops(self, level: int, crops: Sequence[Crop], *, threads: Threads = ALONE, shrink: int = 1) -> None:
        """Write the pixels of each crop. With `shrink`, corners and shapes are in pixels of the shrunk level.

        Raises:
            SlideError: A tile is corrupt; the message names slide, level and tile.
        """
        ...

    def shrinks(self, level: int) -> tuple[int, ...]:
        """Factors by which the level's tiles can be shrunk while they are decoded; 1 is always among them."""
        ...


@runtime_checkable
class JpegReader(Protocol):
    """A reader of files that may hold a rectangle as a JPEG of its own."""

    def tile_size(self, level: int) -> tuple[int, int]:
        """(width, height) of the tiles that the file holds, in pixels of the level."""
        ...

    def stored_jpeg(self, level: int, x: int, y: int, width: int, height: int) -> bytes | None:
        """The JPEG of a rectangle of a level, as a file that any program shows; None unless it is just one tile.

        Raises:
            SlideError: The tile is corrupt; the message names slide, level and tile.
        """
        ...


def read_crops(reader: Reader, level: int, crops: Sequence[Crop], *, threads: Threads = ALONE, shrink: int = 1) -> None:
    """Write the pixels of each crop, all of which lie wholly inside the level.

    Args:
        reader: Plans its tiles if it is a TiledReader; else the crops are read one by one, in file order.
        level: Of the reader.
        crops: Where from and where to.
        threads: Who decodes.
        shrink: One of the reader's `shrinks(level)`.

    Raises:
        SlideError: Pixels cannot be decoded.
    """
    if isinstance(reader, TiledReader):
        reader.read_crops(level, crops, threads=threads, shrink=shrink)
        return

    def read(crop: Crop) -> None:
        height, width = crop.pixels.shape[:2]
        crop.pixels[...] = reader.read_level(level, crop.x, crop.y, width, height)

    threads.each(read, sorted(crops, key=lambda crop: (crop.y, crop.x)))
