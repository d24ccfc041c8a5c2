"""The grid of tiles that a browser asks for: Deep Zoom's, over level-0 pixels.

Level `max_level` has one pixel for each level-0 pixel, each lower one half as many a side, down to a single pixel.
Tiles do not overlap; those at the right and lower edge are smaller. Slides and layers share the levels.
Source: Deep Zoom file format overview, Microsoft Silverlight documentation (cc645077).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from lamella.geometry import Box, Frame
from lamella.slides.slide import Slide

TILE_PX = 256
# Smaller tiles are too many for a page, larger ones too slow one by one.
_FILE_TILES_PX = range(192, 1025)


@dataclass(frozen=True)
class Pyramid:
    """Levels and tiles over a slide.

    Attributes:
        width_px0: Of the slide.
        height_px0: Of the slide.
        tile_px: Side of a tile.
    """

    width_px0: int
    height_px0: int
    tile_px: int = TILE_PX

    @classmethod
    def over(cls, frame: Frame) -> Pyramid:
        """For what is made for the page, such as layers."""
        return cls(frame.width_px, frame.height_px)

    @classmethod
    def of(cls, slide: Slide) -> Pyramid:
        """For a slide's own pixels: in the tiles that its file holds, so that one of the page is one of the file."""
        width_px, height_px = slide.stored_tile_px or (TILE_PX, TILE_PX)
        side_px = width_px if width_px == height_px and width_px in _FILE_TILES_PX else TILE_PX
        return cls(slide.frame.width_px, slide.frame.height_px, side_px)

    @property
    def max_level(self) -> int:
        return (max(self.width_px0, self.height_px0) - 1).bit_length()

    def downsample(self, level: int) -> int:
        """Level-0 pixels a side of a pixel."""
        return 2 ** (self.max_level - level)

    def tiles(self, level: int) -> tuple[int, int]:
        """(columns, rows) of a level."""
        side_px0 = self.tile_px * self.downsample(level)
        return math.ceil(self.width_px0 / side_px0), math.ceil(self.height_px0 / side_px0)

    def tile(self, level: int, column: int, row: int) -> tuple[Box, int, int]:
        """(box in level-0 pixels, width in pixels, height in pixels) of a tile.

        At the right and lower edge the last pixel of a level may reach over the slide's edge by a fraction.

        Raises:
            IndexError: There is no such tile.
        """
        if not 0 <= level <= self.max_level:
            raise IndexError(f"level {level} of {self.max_level + 1}")
        columns, rows = self.tiles(level)
        if not (0 <= column < columns and 0 <= row < rows):
            raise IndexError(f"tile {column}, {row} of {columns} x {rows}")
        down = self.downsample(level)
        width_px = min(self.tile_px, math.ceil(self.width_px0 / down) - column * self.tile_px)
        height_px = min(self.tile_px, math.ceil(self.height_px0 / down) - row * self.tile_px)
        x0, y0 = column * self.tile_px * down, row * self.tile_px * down
        return Box(x0, y0, x0 + width_px * down, y0 + height_px * down), width_px, height_px
