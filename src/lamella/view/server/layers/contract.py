"""What every layer offers, and what the page is told of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from lamella.geometry import Box, Frame


@dataclass(frozen=True)
class Look:
    """How the page asks for a layer's tiles; every part has a default.

    Attributes:
        channel: Name of the channel (class, gene, component); empty: the first, or all classes together.
        colour_map: One of `Legend.maps`; empty: the layer's own.
        low: Value at the lower end of the colour map; None: the layer's own.
        high: At the upper end.
    """

    channel: str = ""
    colour_map: str = ""
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Legend:
    """Colours of a layer: classes by name, or a colour map over a range.

    Attributes:
        classes: (name, "#rrggbb") in order; empty for values.
        maps: Colour maps to choose from, the default first; empty for classes.
        low: Least value, in `unit`.
        high: Largest value.
        unit: Of the values.
        stops: Even steps of the colour map from `low` to `high`, "#rrggbb", to draw the legend's bar with.
        bare: What the layer leaves bare, in words: such as where nobody looked.
        drawable: Whether its classes are such as people draw, and not the key to a picture.
    """

    classes: Sequence[tuple[str, str]] = ()
    maps: Sequence[str] = ()
    low: float = 0.0
    high: float = 1.0
    unit: str = ""
    stops: Sequence[str] = ()
    bare: str = ""
    drawable: bool = True


@dataclass(frozen=True)
class LayerInfo:
    """What the page is told of a layer.

    Its legend names what can be chosen; the range of a channel, whose values are not read yet, is known to
    `Layer.legend` alone.

    Attributes:
        id: Stands in URLs, unique for its slide.
        title: For people.
        group: Heading under which it is listed: the folder that it comes from.
        legend: Its colours.
        channels: Names to choose from, at most 64; more are found by searching.
        channel_count: Of all channels.
        tiles: Whether it has tiles.
        objects: Whether it has outlines of objects in view.
        opacity: At first.
        note: One line for people: spacing, model, what is missing.
    """

    id: str
    title: str
    group: str
    legend: Legend
    channels: Sequence[str] = ()
    channel_count: int = 0
    tiles: bool = True
    objects: bool = False
    opacity: float = 0.5
    note: str = ""


@dataclass(frozen=True)
class ObjectsInView:
    """Outlines that touch a box.

    Attributes:
        total: How many touch it.
        features: GeoJSON features in level-0 pixels, at most as many as were asked for; empty if there are more.
        ready: 0 to 1: the share of the file that was read so far; the page asks again below 1.
    """

    total: int
    features: Sequence[dict[str, Any]]
    ready: float = 1.0


class Layer(Protocol):
    """Something laid over one slide. Several threads ask it at once.

    Attributes:
        info: What the page is told.
        frame: Level 0 of its slide as it is shown.
    """

    info: LayerInfo
    frame: Frame

    @property
    def settled(self) -> bool:
        """Whether its tiles stay as they are and may be kept; False while its file is still being read."""
        ...

    def legend(self, look: Look) -> Legend:
        """The colours of a look: range, unit and stops of its channel.

        Raises:
            KeyError: There is no such channel or colour map.
            LamellaError: Its file is damaged.
        """
        ...

    def tile(self, box_px0: Box, width_px: int, height_px: int, look: Look) -> np.ndarray:
        """(height_px, width_px, 4) uint8: the layer's colours over a box of level-0 pixels; alpha 0 where it has none.

        Each pixel shows the raster at the pixel's centre (nearest): labels stay crisp, and nothing is invented.

        Raises:
            KeyError: There is no such channel or colour map.
            LamellaError: Its file is damaged: the page shows an error tile, never nothing.
        """
        ...

    def objects(self, box_px0: Box, limit: int) -> ObjectsInView:
        """The objects in a box; layers without objects return none."""
        ...

    def search(self, text: str, limit: int) -> Sequence[str]:
        """Names of channels that contain the text, those that begin with it first."""
        ...
