"""Blending tiles into one raster while only a strip of it is held.

Tiles come row by row, left to right. Three pieces of float32 memory are enough: the window under the current tile, and
the rows that the next row of tiles covers too, across the raster. What lies left of the current tile and above the
next row is finished and handed on at once. Every pixel is summed in the order of the tiles, as on a canvas that holds
the whole raster, so the numbers are the same to the last bit.

Shapes: C channels, Y x X pixels of a finished block, T side of a tile.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from lamella.dense.tiling import Tile, Tiling


class Taker(Protocol):
    """Where finished pixels go."""

    def take(self, y: int, x: int, block_CYX: Tensor, seen_YX: Tensor | None) -> None:
        """A finished block at (y, x): weighted means, 0 where no tile lay. It is overwritten after the call.

        `seen_YX` is bool, or None where every pixel was seen. Blocks that no tile touched are never sent.
        """

    def rows_finished(self, y: int) -> None:
        """No more blocks come for the rows above `y`."""


class Mosaic:
    """The blending of one raster.

    Args:
        tiling: The grid.
        channels: C.
        window: float32 (T, T) positive weights of a tile's pixels.
        taker: Gets the finished pixels, from the first row of tiles on.
        first_row: Row of tiles to begin with; what lies above it comes out without the rows before.
        device: Of the maps.
    """

    def __init__(
        self,
        tiling: Tiling,
        channels: int,
        window: Tensor,
        taker: Taker,
        *,
        first_row: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self._tiling, self._taker = tiling, taker
        self._weight = window.to(device)
        side, width = tiling.side, tiling.width
        steps = tiling.y0[1:] - tiling.y0[:-1]
        shared = int(side - steps.min()) if len(steps) else 0  # most rows that a row of tiles shares with the next
        # Channel C is the sum of weights. Columns that no tile touches stay zero and take no real memory.
        self._carry = torch.zeros((channels + 1, shared, width), device=device)
        self._window = torch.zeros((channels + 1, side, side), device=device)
        self._block = torch.empty(channels * side * side, device=device)
        self._first_row = self._row = first_row
        self._x = 0
        self._carried_rows = 0  # of the carry, given by the row of tiles before
        self._covered = self._columns_covered()

    def add(self, tile: Tile, maps_CTT: Tensor) -> None:
        """Lay a tile's maps. Tiles must come row by row, left to right."""
        while self._row < tile.row:
            self._end_row()
        self._advance(tile.x)
        self._window[:-1].addcmul_(maps_CTT, self._weight)
        self._window[-1].add_(self._weight)

    def finish(self) -> None:
        """Hand on all that is left."""
        while self._row < len(self._tiling.y0):
            self._end_row()

    def _end_row(self) -> None:
        self._advance(self._tiling.width)
        finished = self._tiling.finished_at(self._row)
        self._taker.rows_finished(finished)
        self._carried_rows = max(0, int(self._tiling.y0[self._row]) + self._tiling.side - finished)
        self._row, self._x = self._row + 1, 0
        if self._row < len(self._tiling.y0):
            self._covered = self._columns_covered()
            self._fill(0, self._tiling.side)

    def _columns_covered(self) -> np.ndarray:
        """(W,) bool: columns in which this row of tiles, or an earlier one that reaches into it, lays a tile."""
        tiling, covered = self._tiling, np.zeros(self._tiling.width, bool)
        for row in range(self._row, self._first_row - 1, -1):
            if tiling.y0[row] + tiling.side <= tiling.y0[self._row]:
                break
            for x in tiling.x0[tiling.kept[row]].tolist():
                covered[x : x + tiling.side] = True
        return covered

    def _advance(self, x: int) -> None:
        """Finish the columns left of `x` and move the window there."""
        while self._x < x:
            columns = min(self._tiling.side, x - self._x)
            if self._covered[self._x : self._x + columns].any():
                self._hand_on(columns)
            self._move(columns)

    def _hand_on(self, columns: int) -> None:
        """Give away the finished rows of the window's first columns, and carry the others to the next row of tiles."""
        tiling, y = self._tiling, int(self._tiling.y0[self._row])
        rows = min(tiling.finished_at(self._row) - y, tiling.side)
        ready = self._window[:, :rows, :columns]
        weight, channels = ready[-1], len(ready) - 1
        block = self._block[: channels * rows * columns].view(channels, rows, columns)
        seen = None
        if float(weight.min()) > 0:
            torch.div(ready[:-1], weight, out=block)
        else:
            seen = weight > 0
            torch.div(ready[:-1], torch.where(seen, weight, 1.0), out=block)
        self._taker.take(y, self._x, block, seen)
        left = tiling.side - rows if self._row + 1 < len(tiling.y0) else 0
        carry = self._carry[:, :, self._x : self._x + columns]
        carry[:, :left] = self._window[:, rows:, :columns][:, :left]
        carry[:, left:] = 0

    def _move(self, columns: int) -> None:
        """Shift the window to the right by 1 to T columns."""
        kept = self._tiling.side - columns
        if kept:
            moved = self._window[:, :, columns:]
            self._window[:, :, :kept] = moved if kept <= columns else moved.clone()  # or it would read what it wrote
        self._x += columns
        self._fill(kept, columns)

    def _fill(self, start: int, columns: int) -> None:
        """Columns of the window that no tile of this row has touched: what the rows of tiles before left there."""
        fresh = self._window[:, :, start : start + columns]
        left, rows = self._x + start, self._carried_rows
        carried = self._carry[:, :rows, left : left + columns]
        width = carried.shape[2]
        fresh[:, :rows, :width] = carried
        fresh[:, :rows, width:] = 0
        fresh[:, rows:] = 0
