"""What one viewer serves; every request reaches it as `request.app.state.served`."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field

from lamella.view.server.annotations.store import AnnotationStore
from lamella.view.server.catalogue.items import Catalogue, SlideItem
from lamella.view.server.layers.contract import Layer
from lamella.view.server.layers.find import find_layers
from lamella.view.server.prompts import Prompter
from lamella.view.server.scans.scan_pool import ScanPool
from lamella.view.server.slide_pool import SlidePool
from lamella.view.server.tile_memory import TileMemory

# Layers hold outlines and coarse rasters in memory; those of the slides that were looked at last are kept.
_LAYERED_SLIDES = 16


@dataclass
class _Found:
    """Layers of one slide; None until they are looked for."""

    layers: Mapping[str, Layer] | None = None
    refused: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass
class Served:
    """The state of a viewer.

    Attributes:
        catalogue: What there is to see.
        slides: Open slides.
        tiles: Encoded tiles, kept.
        annotations: Where annotations are saved; the only place that is ever written to.
        author: Under whose name the page saves at first.
        prompter: Answers prompts; None with the reason in `no_prompter`.
        no_prompter: Why there is none.
        scans: Open volumes and films.
    """

    catalogue: Catalogue
    slides: SlidePool
    tiles: TileMemory
    annotations: AnnotationStore
    author: str = "anonymous"
    prompter: Prompter | None = None
    no_prompter: str = ""
    scans: ScanPool = field(default_factory=ScanPool)
    _layers: OrderedDict[str, _Found] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def slide(self, slide_id: str) -> SlideItem:
        """The slide of that id.

        Raises:
            KeyError: There is none.
        """
        return self.catalogue.slides[slide_id]

    def layers(self, slide_id: str) -> tuple[Mapping[str, Layer], list[str]]:
        """Layers of a slide by id, and what could not be opened; kept for the slides that were looked at last.

        Raises:
            KeyError: There is no such slide.
            SlideError: It cannot be read.
        """
        item = self.slide(slide_id)
        with self._lock:
            found = self._layers.setdefault(slide_id, _Found())
            self._layers.move_to_end(slide_id)
            while len(self._layers) > _LAYERED_SLIDES:
                self._layers.popitem(last=False)
        with found.lock:  # of this slide alone: pages of others do not wait
            if found.layers is None:
                with self.slides.slide(slide_id) as slide:
                    found.layers, found.refused = find_layers(item, slide, self.catalogue.sources_of(item))
            return found.layers, found.refused

    def close(self) -> None:
        self.slides.close()
