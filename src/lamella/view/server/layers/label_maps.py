"""Class labels, each class in its colour; the background and where nobody looked stay bare."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from lamella.formats.label_values import NOT_LABELLED
from lamella.geometry import Box
from lamella.view.class_colours import class_colours
from lamella.view.marks import Colour
from lamella.view.server.layers.colours import Indexed, class_lookup, web_classes
from lamella.view.server.layers.contract import LayerInfo, Legend, Look
from lamella.view.server.layers.layer import PlainLayer
from lamella.view.server.layers.rasters import Raster

UNSEEN = "not looked at"
_UNSEEN_COLOUR: Colour = (90, 90, 90)  # darker than the background's grey


class LabelLayer(PlainLayer):
    """A label map. Each class can be shown alone, as can the background and what nobody looked at.

    Args:
        info: Without legend and channels.
        raster: Of kind labels.
        background: The class that stays bare when all are shown.
        colours: By class; the palette's if it lacks one.
    """

    def __init__(
        self, info: LayerInfo, raster: Raster, background: str | None, colours: Mapping[str, Colour] | None = None
    ) -> None:
        self.raster, classes = raster, raster.names
        known = {**class_colours(classes, background), **(colours or {})}
        shown = [name for name in classes if name != background]
        bare = UNSEEN if background not in classes else f"{background}, and where nobody looked"
        legend = Legend(classes=web_classes(shown, known), bare=bare)
        names = (*shown, *(name for name in classes if name == background), UNSEEN)
        super().__init__(replace(info, legend=legend, channels=names[:64], channel_count=len(names)), names)
        values = {name: value for value, name in enumerate(classes)} | {UNSEEN: NOT_LABELLED}
        known[UNSEEN] = _UNSEEN_COLOUR
        self._all = class_lookup({values[name]: known[name] for name in shown})
        self._each = {name: {values[name]: known[name]} for name in names}

    def paint(self, box_px0: Box, width_px: int, height_px: int, look: Look) -> Indexed | None:
        self.channel(look)
        lookup = class_lookup(self._each[look.channel]) if look.channel else self._all
        values = self.raster.under(box_px0, width_px, height_px, 0, NOT_LABELLED)
        return None if values is None else Indexed(values, lookup)
