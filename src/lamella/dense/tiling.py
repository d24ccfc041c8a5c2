"""Where the tiles of a raster lie, and which of them are looked at.

All places are pixels of the raster of maps: `stride` image pixels each.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lamella.dense.blending import starts
from lamella.geometry import Frame
from lamella.slides.tissue_map import TissueMap

# Shares of tissue below this are rounding (about 1e-10); one pixel of the largest tile is a thousand times more.
_NO_TISSUE = 1e-9


@dataclass(frozen=True)
class Tile:
    """One tile: its place in the grid, and its top-left pixel."""

    row: int
    column: int
    y: int
    x: int


@dataclass(frozen=True, eq=False)
class Tiling:
    """A grid of square tiles over a raster.

    Attributes:
        height: Of the raster.
        width: Of the raster.
        side: Of a tile.
        y0: (R,) int64 first row of each row of tiles, rising.
        x0: (K,) int64 first column of each column of tiles, rising.
        kept: (R, K) bool, the tiles that are looked at.
    """

    height: int
    width: int
    side: int
    y0: np.ndarray
    x0: np.ndarray
    kept: np.ndarray

    @classmethod
    def over(cls, height: int, width: int, side: int, overlap: float) -> Tiling:
        """All tiles of a raster."""
        y0, x0 = starts(height, side, overlap), starts(width, side, overlap)
        return cls(height, width, side, y0, x0, np.ones((len(y0), len(x0)), bool))

    def on_tissue(self, tissue: TissueMap, frame: Frame) -> Tiling:
        """The same grid, keeping the tiles that hold any tissue.

        A pixel of tissue keeps every tile over it, so it is blended as if all tiles were there.

        Args:
            tissue: Of the slide.
            frame: The raster laid over the slide.
        """
        side_um = self.side * frame.mpp_x, self.side * frame.mpp_y
        shares = tissue.grid_fractions(self.x0 * frame.mpp_x, self.y0 * frame.mpp_y, *side_um)
        return Tiling(self.height, self.width, self.side, self.y0, self.x0, shares > _NO_TISSUE)

    def __len__(self) -> int:
        return int(self.kept.sum())

    @cached_property
    def places(self) -> np.ndarray:
        """(N, 2) int64 row and column of each kept tile, row by row."""
        return np.argwhere(self.kept)

    def tiles(self, start: int = 0, stop: int | None = None) -> Iterator[Tile]:
        """Kept tiles by their number."""
        for row, column in self.places[start:stop].tolist():
            yield Tile(row, column, int(self.y0[row]), int(self.x0[column]))

    def finished_at(self, row: int) -> int:
        """The rows of pixels above this one get nothing more once a row of tiles is done."""
        return int(self.y0[row + 1]) if row + 1 < len(self.y0) else self.height

    def first_row_reaching(self, y: int) -> int:
        """The first row of tiles that covers any row of pixels from `y` on; len(y0) where none does."""
        return int(np.searchsorted(self.y0 + self.side, y, side="right"))

    def first_tile_of(self, row: int) -> int:
        """Number of the first kept tile in a row of tiles or below it."""
        return int(np.searchsorted(self.places[:, 0], row))
