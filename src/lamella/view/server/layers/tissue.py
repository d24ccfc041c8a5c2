"""The tissue that an index found, as one colour."""

from __future__ import annotations

import threading

import numpy as np

from lamella.geometry import Box, Frame
from lamella.slides.index import IndexedSlide
from lamella.view.marks import PALETTE, web
from lamella.view.server.layers.colours import Indexed, class_lookup
from lamella.view.server.layers.contract import LayerInfo, Legend, Look
from lamella.view.server.layers.layer import PlainLayer, same_slide
from lamella.view.server.layers.places import places_under

_COLOUR = PALETTE[1]  # green, as in the overlays and in the index's GeoJSON


class TissueLayer(PlainLayer):
    """A tissue mask, read when it is first looked at.

    Args:
        indexed: The slide in its index.
        group: The heading.
        slide: Level 0 of the slide that is shown.

    Raises:
        MaskMismatchError: The index is of another slide.
    """

    def __init__(self, indexed: IndexedSlide, group: str, slide: Frame) -> None:
        self._indexed, self._slide = indexed, same_slide(indexed.mask_path, indexed.frame, slide)
        self._mask: np.ndarray | None = None
        self._lock = threading.Lock()
        how = "computed" if indexed.mask_computed else "given"
        note = f"{indexed.tissue_area_mm2:.3g} mm² ({indexed.tissue_fraction:.0%}), {how}"
        legend = Legend(classes=[("tissue", web(_COLOUR))], bare="where no tissue was found", drawable=False)
        super().__init__(LayerInfo("tissue", "tissue", group, legend, opacity=0.3, note=note))

    def paint(self, box_px0: Box, width_px: int, height_px: int, look: Look) -> Indexed | None:
        self.channel(look)
        places = places_under(box_px0, width_px, height_px, self._slide, self._indexed.mask_frame)
        if places.empty:
            return None
        mask = self._read()[places.window]
        return Indexed(places.spread(mask.astype(np.uint8), 0), class_lookup({1: _COLOUR}))

    def _read(self) -> np.ndarray:
        with self._lock:
            if self._mask is None:
                self._mask = self._indexed.tissue().mask
            return self._mask
