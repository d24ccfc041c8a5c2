"""A slide's objects: outlines near, their density far out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from lamella.errors import LamellaError
from lamella.formats.outline_arrays import LINES, POINTS
from lamella.geometry import Box, Frame
from lamella.view.marks import Colour, web
from lamella.view.server.layers.colours import Indexed, class_lookup, painted, stops, web_classes
from lamella.view.server.layers.contract import LayerInfo, Legend, Look, ObjectsInView
from lamella.view.server.layers.density import densest, density_under
from lamella.view.server.layers.layer import Making, PlainLayer, found_names
from lamella.view.server.layers.outline_reader import OutlineReader
from lamella.view.server.layers.outlines import Outlines

_DENSITY_MAP = "magma"
# Outlines are drawn where objects are so large on the display; below they are specks.
_SEEN_PX = 4.0
_MOST_DRAWN = 8000  # outlines in a tile: more take seconds, and leave nothing bare between them
_POINT_PX = 3
# Lines are three pixels wide, as Pillow draws two to one side; one where objects are so small on the display that three
# would fill them.
_WIDE_FROM_PX = 24.0
_SHORT_BYTES = 1 << 20  # such a file is read within the wait, before its classes are told
_WAIT_S = 0.5


def object_layers(path: Path, group: str, slide: Frame) -> Iterator[Making]:
    """The objects of a GeoJSON file; nothing is read of a long one until it is looked at.

    Args:
        path: Of one slide.
        group: The heading.
        slide: Level 0.
    """
    yield lambda: ObjectLayer(path, group, slide)


class ObjectLayer(PlainLayer):
    """Outlines of a file, read in the background once they are asked for; at once where `predict` wrote them as arrays.

    Args:
        path: `.geojson` or `.geojson.gz`.
        group: The heading.
        slide: Level 0, to which the file's coordinates refer.
        title: For people.
        colours: By class, as far as they are known before the file is read.

    Raises:
        LamellaError: A short file is damaged; a long one says so when it is looked at.
    """

    def __init__(
        self, path: Path, group: str, slide: Frame, title: str = "objects", colours: Mapping[str, Colour] | None = None
    ) -> None:
        if not path.is_file():
            raise LamellaError(path, "the file does not exist", "Correct the path.")
        self.path, self._slide = path, slide
        self._reader = OutlineReader(path)
        self._known: dict[str, tuple[int, _Facts]] = {}
        legend = Legend(web_classes(list(colours or {}), colours or {}), bare="where there are none")
        name = path.name.removesuffix(".gz").removesuffix(".geojson") if title == "objects" else title
        note = f"{path.name}; far out, the brighter the more objects per mm²"
        super().__init__(LayerInfo(name, title, group, legend, objects=True, opacity=0.9, note=note))
        if self._reader.mapped or path.stat().st_size <= _SHORT_BYTES:
            self._read()

    @property
    def settled(self) -> bool:
        return self._reader.ready == 1.0

    def legend(self, look: Look) -> Legend:
        found = self._found(look)
        chosen = [entry for entry in _classes(found) if look.channel in ("", entry[0])]
        most = self._facts(found, look.channel).densest
        return replace(
            self.info.legend, classes=chosen, low=0.0, high=most, unit="objects per mm²", stops=stops(_DENSITY_MAP)
        )

    def search(self, text: str, limit: int) -> Sequence[str]:
        return found_names(self._read().names, text, limit)

    def objects(self, box_px0: Box, limit: int) -> ObjectsInView:
        ready = self._reader.ready  # asked first: what is shown is at least that
        found = self._read()
        numbers, palette = found.within(box_px0), found.palette()
        features = [found.feature(number, palette) for number in numbers] if len(numbers) <= limit else []
        return ObjectsInView(len(numbers), features, ready)

    def paint(self, box_px0: Box, width_px: int, height_px: int, look: Look) -> Indexed | None:
        found = self._found(look)
        px0 = box_px0.width / width_px
        margin = px0 * (_POINT_PX + 1)  # what is drawn reaches over the edges of the tile
        reach = Box(box_px0.x0 - margin, box_px0.y0 - margin, box_px0.x1 + margin, box_px0.y1 + margin)
        near = found.within(reach, look.channel)
        if not len(near):
            return None
        facts = self._facts(found, look.channel)
        shown_px = facts.size_px0 / px0
        if len(near) <= _MOST_DRAWN and shown_px >= _SEEN_PX:
            return draw_outlines(found, near, box_px0, width_px, height_px, 3 if shown_px >= _WIDE_FROM_PX else 1)
        values = density_under(_centres(found.bounds[near]), facts.count, box_px0, width_px, height_px, self._slide)
        high = facts.densest if look.high is None else look.high
        return painted(values, look.low or 0.0, high, _DENSITY_MAP)

    def _found(self, look: Look) -> Outlines:
        """What was read so far.

        Raises:
            KeyError: The look names a class that there is none of.
            LamellaError: The file is damaged.
        """
        found = self._read()
        if look.channel and look.channel not in found.names and self.settled:
            raise KeyError(look.channel)
        return found

    def _read(self) -> Outlines:
        """What was read so far; once all was, the page is told its classes."""
        found = self._reader.outlines(_WAIT_S)
        if self.settled and not self.names:
            self.names = tuple(found.names)
            legend = replace(self.info.legend, classes=_classes(found))
            boxed = f", {self._reader.boxed:,} of them as boxes to save memory" if self._reader.boxed else ""
            how = " on disk" if self._reader.mapped else ""
            size = f"{found.bytes / 1e6:.1f} MB{how}"
            held = f"{len(found):,} objects ({size}){boxed}; far out, the brighter the more per mm²"
            self.info = replace(
                self.info, legend=legend, channels=self.names[:64], channel_count=len(self.names), note=held
            )
        return found

    def _facts(self, found: Outlines, only: str) -> _Facts:
        """Of all objects that were read, or of one class; worked out anew when more were read."""
        known = self._known.get(only)
        if known is None or known[0] != len(found):
            chosen = found.classes == found.number(only) if only else slice(None)
            known = len(found), _Facts.of(found.bounds[chosen], self._slide)
            self._known[only] = known
        return known[1]


@dataclass(frozen=True)
class _Facts:
    """What objects are like, the whole slide over: so that neighbouring tiles are drawn alike.

    Attributes:
        count: Of objects.
        size_px0: Longer side of the object that a place inside of objects lies in, on average: specks count for little.
            Without bound where all are points.
        densest: See `densest`.
    """

    count: int
    size_px0: float
    densest: float

    @classmethod
    def of(cls, bounds: np.ndarray, slide: Frame) -> _Facts:
        sides = (bounds[:, 2:] - bounds[:, :2]).max(axis=1, initial=0).astype(np.float64)
        size = (sides**3).sum() / (sides**2).sum() if sides.any() else np.inf
        return cls(len(bounds), float(size), densest(_centres(bounds), slide))


def _classes(found: Outlines) -> list[tuple[str, str]]:
    return [(name, web(colour)) for name, colour in zip(found.names, found.palette(), strict=True)]


def _centres(bounds: np.ndarray) -> np.ndarray:
    middles: np.ndarray = (bounds[:, :2] + bounds[:, 2:]) / 2
    return middles


def draw_outlines(
    found: Outlines, numbers: np.ndarray, box_px0: Box, width_px: int, height_px: int, line_px: int = 3
) -> Indexed:
    """A tile of lines in the classes' colours; points are dots."""
    palette = found.palette()
    colours: list[Colour] = sorted(set(palette))
    numbered = {colour: number + 1 for number, colour in enumerate(colours[:255])}
    ink = [numbered.get(colour, 255) for colour in palette]
    image = Image.new("L", (width_px, height_px), 0)
    draw = ImageDraw.Draw(image)
    scale = np.array([width_px / box_px0.width, height_px / box_px0.height])
    origin = np.array([box_px0.x0, box_px0.y0])
    for number in numbers.tolist():
        kind, fill = found.kinds[number], ink[found.classes[number]]
        for part in found.parts(number):
            # The pixel in which a corner lies: Pillow would round negative numbers the other way, and tiles not join.
            corners = np.floor((part - origin) * scale)
            if kind == POINTS:
                for x, y in corners.tolist():
                    draw.ellipse((x - _POINT_PX, y - _POINT_PX, x + _POINT_PX, y + _POINT_PX), fill=fill)
            else:
                line = corners if kind == LINES else np.concatenate([corners, corners[:1]])
                draw.line(line.ravel().tolist(), fill=fill, width=line_px)
    return Indexed(np.asarray(image), class_lookup({number: colour for colour, number in numbered.items()}))
