"""What one viewer serves; every request reaches it as `request.app.state.served`."""

from __future__ import annotations

import threading
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
    _layers: dict[str, tuple[Mapping[str, Layer], list[str]]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def slide(self, slide_id: str) -> SlideItem:
        """The slide of that id.

        Raises:
            KeyError: There is none.
        """
        return self.catalogue.slides[slide_id]

    def layers(self, slide_id: str) -> tuple[Mapping[str, Layer], list[str]]:
        """Layers of a slide by id, and what could not be opened; found once.

        Raises:
            KeyError: There is no such slide.
            SlideError: It cannot be read.
        """
        with self._lock:
            if slide_id not in self._layers:
                item = self.slide(slide_id)
                with self.slides.slide(slide_id) as slide:
                    self._layers[slide_id] = find_layers(item, slide, self.catalogue.sources_of(item))
            return self._layers[slide_id]

    def close(self) -> None:
        self.slides.close()
