"""Maps of numbers with a colour map and a range: probabilities of classes, genes, any model's values."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from lamella.geometry import Box
from lamella.view.server.layers.colours import MAPS, OWN, SEQUENTIAL, SIGNED, Indexed, painted, stops
from lamella.view.server.layers.contract import LayerInfo, Legend, Look
from lamella.view.server.layers.layer import PlainLayer
from lamella.view.server.layers.rasters import Raster

_LISTED = 64  # channels that the page is told of at once; more are found by searching
# A channel's own range leaves out this share of the values at each end, in per cent: a few odd pixels grey out none.
_ODD = 1.0


class ValueLayer(PlainLayer):
    """Channels of numbers. Nothing is read until a tile or a legend is asked for.

    Args:
        info: Its legend may state the range of all channels, where they share one.
        names: Of the channels.
        shared: Whether `info.legend` states the range; else each channel has its own, from its values.
        default: The channel that is shown first.
    """

    def __init__(self, info: LayerInfo, names: Sequence[str], *, shared: bool, default: int = 0) -> None:
        legend = replace(info.legend, maps=(OWN, *MAPS), stops=stops(MAPS[0]))
        channels = tuple(names[default : default + 1]) + tuple(name for name in names if name != names[default])
        info = replace(info, legend=legend, channels=channels[:_LISTED], channel_count=len(names))
        super().__init__(info, names)
        self._shared, self._default = shared, default
        self._ranges: dict[int, tuple[float, float]] = {}
        self._lock = threading.Lock()

    def values(self, channel: int) -> np.ndarray:
        """Enough of a channel's values to take its range from; NaN where nobody looked."""
        raise NotImplementedError

    def under(self, box_px0: Box, width_px: int, height_px: int, channel: int) -> np.ndarray | None:
        """(height_px, width_px) of a channel, NaN where it has no value; None where it does not touch the tile."""
        raise NotImplementedError

    def chosen(self, look: Look) -> int:
        found = self.channel(look)
        return self._default if found is None else found

    def legend(self, look: Look) -> Legend:
        low, high, name = self._look(look)
        return replace(self.info.legend, low=low, high=high, stops=stops(name))

    def paint(self, box_px0: Box, width_px: int, height_px: int, look: Look) -> Indexed | np.ndarray | None:
        values = self.under(box_px0, width_px, height_px, self.chosen(look))
        if values is None or np.isnan(values).all():  # most tiles of a slide: no range is needed
            return None
        return painted(values, *self._look(look))

    def _look(self, look: Look) -> tuple[float, float, str]:
        """Range and colour map of a look."""
        low, high = self._range(self.chosen(look))
        name = look.colour_map
        if name in ("", OWN):
            name = SIGNED if low < 0 < high else SEQUENTIAL[0]
        if name == SIGNED and look.low is None and look.high is None:
            low, high = -max(abs(low), abs(high)), max(abs(low), abs(high))  # white stays zero
        stops(name)  # an unknown one is refused before anything is painted
        return (low if look.low is None else look.low), (high if look.high is None else look.high), name

    def _range(self, channel: int) -> tuple[float, float]:
        if self._shared:
            return self.info.legend.low, self.info.legend.high
        with self._lock:
            if channel not in self._ranges:
                self._ranges[channel] = robust_range(self.values(channel))
            return self._ranges[channel]


def robust_range(values: np.ndarray) -> tuple[float, float]:
    """From the 1st to the 99th percentile of the finite values; from zero, where none lies below it.

    Counts begin at zero, which is where a reader takes a colour map to begin.
    """
    known = values[np.isfinite(values)].astype(np.float64)
    if not len(known):
        return 0.0, 1.0
    low, high = np.percentile(known, (_ODD, 100 - _ODD))
    if known.min() >= 0:
        low = 0.0
    if high <= low:
        high = float(known.max()) if known.max() > low else low + 1.0
    return float(low), float(high)


class RasterValues(ValueLayer):
    """Maps of numbers in a raster; NaN where nobody looked."""

    def __init__(self, info: LayerInfo, raster: Raster) -> None:
        self.raster = raster
        super().__init__(info, raster.names, shared=False)

    def values(self, channel: int) -> np.ndarray:
        return self.raster.overview(channel)

    def under(self, box_px0: Box, width_px: int, height_px: int, channel: int) -> np.ndarray | None:
        return self.raster.under(box_px0, width_px, height_px, channel, np.nan)


class ProbabilityLayer(ValueLayer):
    """Probabilities of classes, p = value / 255; where all are 0 nobody looked.

    Args:
        info: Its legend need not state the range.
        raster: Of kind probabilities.
        background: Not the class that is shown first.
    """

    def __init__(self, info: LayerInfo, raster: Raster, background: str | None) -> None:
        self.raster = raster
        legend = replace(info.legend, low=0.0, high=1.0, unit="probability", bare="where nobody looked")
        first = next((number for number, name in enumerate(raster.names) if name != background), 0)
        super().__init__(replace(info, legend=legend), raster.names, shared=True, default=first)

    def under(self, box_px0: Box, width_px: int, height_px: int, channel: int) -> np.ndarray | None:
        every = self.raster.under(box_px0, width_px, height_px, slice(None), 0)
        if every is None:
            return None
        return np.where(every.any(axis=0), every[channel] / np.float32(255), np.float32(np.nan))
