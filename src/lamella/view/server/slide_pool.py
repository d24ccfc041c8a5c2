"""Open slides, shared by all requests: at most so many files, one memory of decoded tiles, so many readings at once."""

from __future__ import annotations

import asyncio
import copy
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from lamella.errors import SlideError
from lamella.slides.readers.tile_cache import TileCache
from lamella.slides.slide import Slide, open_slide
from lamella.view.server.catalogue.items import SlideItem

T = TypeVar("T")
# A page asks for dozens of tiles: a slide that cannot be opened is tried once for all of them, and again when what kept
# it closed (a permission, a lost disk) may be mended. A file that changed is tried at once.
_RETRY_S = 5.0
# Plain images are held decoded, all of them (`readers.image`); beside one at its limit of 270 MB, a smaller one fits.
_MAX_IMAGE_BYTES = 400 << 20
# Beyond the processors: while these decode, others wait for the disk. Each may hold some 50 MB of source pixels, so
# their number bounds the memory of many viewers.
_WAITING_FOR_DISK = 2
_Key = tuple[str, str]
"""Of an open slide: its id and its file's stamp, so that a file that was replaced is opened anew."""


@dataclass(eq=False, slots=True)
class _Open:
    slide: Slide
    users: int = 0

    @property
    def bytes(self) -> int:
        """Held beside the shared memory of tiles."""
        return 3 * self.slide.frame.width_px * self.slide.frame.height_px if self.slide.reader.name == "image" else 0


class SlidePool:
    """Lends open slides; one that is lent out is never closed.

    Args:
        items: By id.
        max_slides: Open files beside those lent out.
        max_bytes: Of decoded tiles of all slides together.
    """

    def __init__(
        self,
        items: Mapping[str, SlideItem],
        max_slides: int = 8,  # few enough for file limits
        max_bytes: int = 160 << 20,
    ) -> None:
        self.items, self.max_slides = items, max_slides
        self._tiles = TileCache(max_bytes)
        self._open: OrderedDict[_Key, _Open] = OrderedDict()
        self._opening: dict[_Key, Future[None]] = {}
        self._refused: dict[_Key, tuple[float, SlideError]] = {}
        self._lock = threading.Lock()
        self._closed = False
        # Not anyio's threads: handing a tile to one of them takes longer than reading it.
        self._threads = ThreadPoolExecutor((os.cpu_count() or 1) + _WAITING_FOR_DISK, "tiles")

    @contextmanager
    def slide(self, slide_id: str) -> Iterator[Slide]:
        """The open slide; several threads may have it at once.

        Raises:
            KeyError: There is no such slide.
            SlideError: It cannot be read.
        """
        key = (slide_id, self.stamp(slide_id))
        entry = self._borrowed(key)
        try:
            yield entry.slide
        finally:
            with self._lock:
                entry.users -= 1
                self._open.move_to_end(key)
                idle = self._idle()
            for slide in idle:
                slide.close()

    def stamp(self, slide_id: str) -> str:
        """Another one when another file stands in the slide's place; empty where there is none.

        Raises:
            KeyError: There is no such slide.
        """
        return _stamp(self.items[slide_id].path)

    async def in_turn(self, work: Callable[[], T]) -> T:
        """Do work that reads slides in a thread, when it is its turn: for tiles of slides and of layers."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def close(self) -> None:
        """Close every slide; one that is lent out is closed when it comes back."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            self._closed = True
            idle = self._idle()
        for slide in idle:
            slide.close()

    def _borrowed(self, key: _Key) -> _Open:
        while True:
            with self._lock:
                entry = self._open.get(key)
                if entry is not None:
                    entry.users += 1
                    return entry
                since, fault = self._refused.get(key, (0.0, None))
                if fault is not None and time.monotonic() - since < _RETRY_S:
                    raise copy.copy(fault)  # one error raised by several threads would gather all their tracebacks
                others = self._opening.get(key)
                if others is None:
                    mine = self._opening[key] = Future()
                    break
            others.result()  # then look again: it is open, or refused
        try:
            return self._opened(key)
        finally:
            with self._lock:
                del self._opening[key]
            mine.set_result(None)

    def _opened(self, key: _Key) -> _Open:
        """Open a slide, outside the lock: it may take seconds on a slow disk."""
        item = self.items[key[0]]
        try:
            slide = open_slide(item.path, mpp=item.mpp, dct_scaling=True, cache=self._tiles)
        except SlideError as error:
            with self._lock:
                self._refused[key] = time.monotonic(), error
            raise
        with self._lock:
            self._refused = {other: why for other, why in self._refused.items() if other[0] != item.id}
            entry = self._open[key] = _Open(slide, users=1)
            idle = self._idle()
        for other in idle:
            other.close()
        return entry

    def _idle(self) -> list[Slide]:
        """Take out what is too much, the least recently used first, but nothing that is lent out."""
        idle = [key for key, entry in self._open.items() if not entry.users]
        image_bytes = sum(entry.bytes for entry in self._open.values())
        taken = []
        for place, key in enumerate(idle):
            too_many = self._closed or len(idle) - place > self.max_slides
            if too_many or (self._open[key].bytes and image_bytes > _MAX_IMAGE_BYTES):
                entry = self._open.pop(key)
                image_bytes -= entry.bytes
                taken.append(entry.slide)
        return taken


def _stamp(path: Path) -> str:
    try:
        facts = path.stat()
    except OSError:
        return ""
    return f"{facts.st_mtime_ns:x}-{facts.st_size:x}-{facts.st_ino:x}"
