"""Open slides, shared by all requests: at most so many files, one memory of decoded tiles, so many readings at once."""

from __future__ import annotations

import copy
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import anyio
from anyio import to_thread

from lamella.errors import SlideError
from lamella.slides.readers.tile_cache import TileCache
from lamella.slides.slide import Slide, open_slide
from lamella.view.server.catalogue.items import SlideItem

T = TypeVar("T")
# A page asks for dozens of tiles: a slide that cannot be opened is tried once for all of them, and again when somebody
# may have mended it.
_RETRY_S = 5.0
# Plain images are held decoded, all of them (`readers.image`); beside one at its limit of 270 MB, a smaller one fits.
_MAX_IMAGE_BYTES = 400 << 20
# Beyond the processors: while these decode, others wait for the disk. Each may hold some 50 MB of source pixels, so
# their number bounds the memory of many viewers.
_WAITING_FOR_DISK = 2


@dataclass(eq=False, slots=True)
class _Open:
    slide: Slide
    stamp: str
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
        open_item: Opens one; tests put their own.
    """

    def __init__(
        self,
        items: Mapping[str, SlideItem],
        max_slides: int = 8,  # few enough for file limits
        max_bytes: int = 160 << 20,
        open_item: Callable[[SlideItem, TileCache], Slide] | None = None,
    ) -> None:
        self.items, self.max_slides = items, max_slides
        self._open_item = open_item or _opened
        self._tiles = TileCache(max_bytes)
        self._open: OrderedDict[str, _Open] = OrderedDict()
        self._opening: dict[str, Future[None]] = {}
        self._refused: dict[str, tuple[float, SlideError]] = {}
        self._lock = threading.Lock()
        self._closed = False
        self._turns: anyio.CapacityLimiter | None = None

    @contextmanager
    def slide(self, slide_id: str) -> Iterator[Slide]:
        """The open slide; several threads may have it at once.

        Raises:
            KeyError: There is no such slide.
            SlideError: It cannot be read.
        """
        entry = self._borrowed(slide_id)
        try:
            yield entry.slide
        finally:
            with self._lock:
                entry.users -= 1
                replaced = entry is not self._open.get(slide_id) and not entry.users
                idle = self._idle() + [entry.slide] * replaced
            for slide in idle:
                slide.close()

    def stamp(self, slide_id: str) -> str:
        """Changes when the slide's file does; empty where it cannot be found.

        Raises:
            KeyError: There is no such slide.
        """
        return _stamp(self.items[slide_id].path)

    async def in_turn(self, work: Callable[[], T]) -> T:
        """Do work that reads slides in a thread, when it is its turn. For tiles of slides and of layers."""
        if self._turns is None:  # made by the server's own loop, which alone uses it
            self._turns = anyio.CapacityLimiter((os.cpu_count() or 1) + _WAITING_FOR_DISK)
        return await to_thread.run_sync(work, limiter=self._turns)

    def close(self) -> None:
        """Close every slide; one that is lent out is closed when it comes back."""
        with self._lock:
            self._closed = True
            idle = self._idle()
        for slide in idle:
            slide.close()

    def _borrowed(self, slide_id: str) -> _Open:
        item = self.items[slide_id]
        stamp = _stamp(item.path)
        while True:
            with self._lock:
                entry = self._open.get(slide_id)
                if entry is not None and stamp not in (entry.stamp, ""):
                    entry.users += 1  # another file stands there now; this one is closed by whom it is lent to last
                    del self._open[slide_id]
                    self._refused.pop(slide_id, None)
                    break_with = entry
                elif entry is not None:
                    self._open.move_to_end(slide_id)
                    entry.users += 1
                    return entry
                since, fault = self._refused.get(slide_id, (0.0, None))
                if fault is not None and time.monotonic() - since < _RETRY_S:
                    raise copy.copy(fault)  # an error that several threads raise would gather all their tracebacks
                others = self._opening.get(slide_id)
                if others is None:
                    mine = self._opening[slide_id] = Future()
                    break
            others.result()  # then look again: it is open, or refused
        try:
            return self._kept(item)
        finally:
            with self._lock:
                del self._opening[slide_id]
            mine.set_result(None)

    def _kept(self, item: SlideItem) -> _Open:
        """Open a slide, outside the lock: it may take seconds on a slow disk."""
        try:
            entry = _Open(self._open_item(item, self._tiles), users=1)
        except SlideError as error:
            with self._lock:
                self._refused[item.id] = time.monotonic(), error
            raise
        with self._lock:
            self._refused.pop(item.id, None)
            self._open[item.id] = entry
            idle = self._idle()
        for slide in idle:
            slide.close()
        return entry

    def _idle(self) -> list[Slide]:
        """Take out what is too much, the least recently used first, but nothing that is lent out."""
        idle = [slide_id for slide_id, entry in self._open.items() if not entry.users]
        image_bytes = sum(entry.bytes for entry in self._open.values())
        taken = []
        for place, slide_id in enumerate(idle):
            too_many = self._closed or len(idle) - place > self.max_slides
            if too_many or (self._open[slide_id].bytes and image_bytes > _MAX_IMAGE_BYTES):
                entry = self._open.pop(slide_id)
                image_bytes -= entry.bytes
                taken.append(entry.slide)
        return taken


def _opened(item: SlideItem, tiles: TileCache) -> Slide:
    return open_slide(item.path, mpp=item.mpp, dct_scaling=True, cache=tiles)
