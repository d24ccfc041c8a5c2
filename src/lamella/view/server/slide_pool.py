"""Open slides, shared by all requests: at most so many files, one memory of decoded tiles."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from lamella.slides.readers.tile_cache import TileCache
from lamella.slides.slide import Slide, open_slide
from lamella.view.server.catalogue.items import SlideItem


class SlidePool:
    """Lends open slides; one that is lent out is never closed.

    Args:
        items: By id.
        max_slides: Open files beside those lent out.
        max_bytes: Of decoded tiles of all slides together.
    """

    def __init__(self, items: Mapping[str, SlideItem], max_slides: int = 8, max_bytes: int = 160 << 20) -> None:
        self.items, self.max_slides = items, max_slides
        self._tiles = TileCache(max_bytes)
        self._open: OrderedDict[str, Slide] = OrderedDict()
        self._lock = threading.Lock()

    @contextmanager
    def slide(self, slide_id: str) -> Iterator[Slide]:
        """The open slide.

        Raises:
            KeyError: There is no such slide.
            SlideError: It cannot be read.
        """
        item = self.items[slide_id]
        with self._lock:
            if slide_id not in self._open:
                self._open[slide_id] = open_slide(item.path, mpp=item.mpp, dct_scaling=True, cache=self._tiles)
            slide = self._open[slide_id]
        yield slide

    def close(self) -> None:
        while self._open:
            self._open.popitem()[1].close()
