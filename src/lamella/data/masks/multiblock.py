"""I-JEPA's masks (arXiv 2301.08243): a few blocks to predict from one large block around and between them."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from lamella.config import Settings
from lamella.data.masks.blocks import Proportions, Shares, block_sizes, cells, least_kept, within
from lamella.data.masks.draws import Draws
from lamella.data.masks.mask import Grid, Masks, token_count
from lamella.data.masks.redraw import placed

Count = Annotated[int, Field(ge=1)]


class MultiBlockMaskSettings(Settings):
    """Predict several blocks of an image from the rest of a large one."""

    name: Literal["multiblock"] = "multiblock"
    targets: Count = 4
    """Blocks to predict; they may overlap."""
    scale: Shares = (0.15, 0.2)
    """Least and largest area of a target, as a share of the grid; drawn for each."""
    aspect: Proportions = (0.75, 1.5)
    """Least and largest height over width of a target; drawn for each."""
    context_scale: Shares = (0.85, 1.0)
    """Least and largest area of the context's square block before the targets are taken out; it lies anywhere."""
    min_keep: Count = 10
    """Least context tokens; on small grids a quarter of the grid, if that is less. Blocks are drawn anew below it."""

    def masks(self, draws: Draws, grid: Grid) -> Masks:
        """The masks of the samples of `draws`.

        Raises:
            LamellaError: Such blocks cannot leave min_keep tokens on this grid.
        """
        tokens = token_count(grid, 2)
        rows, columns = grid
        sizes = partial(
            block_sizes, blocks=self.targets, scale=self.scale, aspect=self.aspect, rows=rows, columns=columns
        )
        found = placed(
            draws, sizes, partial(self._context, grid=grid), rows, columns, least_kept(self.min_keep, tokens)
        )
        return Masks(found.context_SG, found.blocks_SKG, grid)

    def _context(self, draws: Draws, free_SG: np.ndarray, grid: Grid) -> np.ndarray:
        rows, columns = grid
        # A block of the grid's own proportions may be the whole grid; one of square tokens could not on a long grid.
        side_S1 = np.sqrt(draws.between(*self.context_scale, 1))
        heights_S1 = np.clip(np.rint(side_S1 * rows), 1, rows).astype(np.int64)
        widths_S1 = np.clip(np.rint(side_S1 * columns), 1, columns).astype(np.int64)
        tops_S1, lefts_S1 = within(draws, heights_S1, rows), within(draws, widths_S1, columns)
        return free_SG & cells(tops_S1, heights_S1, lefts_S1, widths_S1, rows, columns)[:, 0]
