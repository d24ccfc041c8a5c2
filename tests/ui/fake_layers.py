"""Layers whose colours are known everywhere, for tests of the page that shows them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lamella.errors import LamellaError
from lamella.geometry import Box, Frame
from lamella.view.server.layers.contract import LayerInfo, Legend, Look, ObjectsInView

RED, BLUE = (213, 94, 0), (0, 114, 178)


class Halves:
    """One colour over the left half of the slide, nothing over the right."""

    settled = True

    def __init__(self, name: str, colour: tuple[int, int, int], frame: Frame, damaged: bool = False) -> None:
        legend = Legend(classes=[("tumour", "#{:02x}{:02x}{:02x}".format(*colour))], bare="what is no tumour")
        self.info = LayerInfo(name, f"classes of {name}", "fake", legend, opacity=1.0, note="0.5 um per pixel")
        self.colour, self.frame, self.damaged = colour, frame, damaged

    def legend(self, look: Look) -> Legend:
        return self.info.legend

    def tile(self, box_px0: Box, width_px: int, height_px: int, look: Look) -> np.ndarray:
        if self.damaged:
            raise LamellaError("fake", "it is damaged", "Make it again.")
        pixels = np.zeros((height_px, width_px, 4), np.uint8)
        x = box_px0.x0 + (np.arange(width_px) + 0.5) * box_px0.width / width_px
        pixels[:, x < self.frame.width_px / 2] = (*self.colour, 255)
        return pixels

    def objects(self, box_px0: Box, limit: int) -> ObjectsInView:
        return ObjectsInView(0, ())

    def search(self, text: str, limit: int) -> Sequence[str]:
        return ()


class Genes(Halves):
    """10,000 genes; the nth is grey everywhere, as bright as n / 10,000 lies between low and high."""

    names = tuple(f"GENE{number:04d}" for number in range(10_000))

    def __init__(self, name: str, frame: Frame) -> None:
        super().__init__(name, RED, frame)
        legend = Legend(maps=["grey", "yerg"], low=0.0, high=1.0, unit="counts", stops=["#000000", "#ffffff"])
        self.info = LayerInfo(name, "genes", "fake", legend, self.names[:64], len(self.names), opacity=1.0)
        self.asked: list[Look] = []

    def legend(self, look: Look) -> Legend:
        high = 1.0 if look.channel in ("", "GENE0000") else 0.8
        stops = ["#000000", "#ffffff"] if look.colour_map in ("", "grey") else ["#ffffff", "#000000"]
        return Legend(maps=["grey", "yerg"], low=0.0, high=high, unit="counts", stops=stops)

    def tile(self, box_px0: Box, width_px: int, height_px: int, look: Look) -> np.ndarray:
        self.asked.append(look)
        value = self.names.index(look.channel or "GENE0000") / len(self.names)
        low, high = look.low or 0.0, self.legend(look).high if look.high is None else look.high
        share = min(1.0, max(0.0, (value - low) / (high - low)))
        grey = round(255 * (1 - share if look.colour_map == "yerg" else share))
        return np.full((height_px, width_px, 4), (grey, grey, grey, 255), np.uint8)

    def search(self, text: str, limit: int) -> Sequence[str]:
        return [name for name in self.names if text.lower() in name.lower()][:limit]


class Squares(Halves):
    """Squares of 40 level-0 pixels a side, 64 apart; tiles stand in for them where many are in view."""

    def __init__(self, name: str, frame: Frame, most: int = 100) -> None:
        super().__init__(name, BLUE, frame)
        self.most, self.reads = most, 0
        self.info = LayerInfo(name, "nuclei", "fake", Legend(), objects=True, opacity=1.0)

    def legend(self, look: Look) -> Legend:  # as of a file of which the classes are known once it was read
        return Legend([("nucleus", "#0072b2")] if self.reads > 1 else [], stops=["#000000", "#ffffff"], unit="per mm²")

    def objects(self, box_px0: Box, limit: int) -> ObjectsInView:
        self.reads += 1
        if self.reads == 1:
            return ObjectsInView(0, (), 0.25)  # the file is still being read
        corners = [
            (x, y)
            for x in range(0, self.frame.width_px, 64)
            for y in range(0, self.frame.height_px, 64)
            if x < box_px0.x1 and x + 40 > box_px0.x0 and y < box_px0.y1 and y + 40 > box_px0.y0
        ]
        if len(corners) > min(self.most, limit):
            return ObjectsInView(len(corners), ())
        return ObjectsInView(len(corners), [_square(x, y) for x, y in corners])


def _square(x: int, y: int) -> dict[str, object]:
    ring = [[x, y], [x + 40, y], [x + 40, y + 40], [x, y + 40], [x, y]]
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"classification": {"name": "nucleus", "color": "#{:02x}{:02x}{:02x}".format(*BLUE)}},
    }
