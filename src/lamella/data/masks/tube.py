"""V-JEPA's masks (arXiv 2404.08471): the same blocks of the image plane through the whole film or volume."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from lamella.config import Settings
from lamella.data.masks.blocks import Proportions, Shares, block_sizes, least_kept
from lamella.data.masks.draws import Draws
from lamella.data.masks.mask import Grid, Masks, token_count
from lamella.data.masks.redraw import placed

Count = Annotated[int, Field(ge=1)]


class TubeMaskSettings(Settings):
    """Hide blocks through all frames or slices; the context is everything outside all of them."""

    name: Literal["tube"] = "tube"
    blocks: Count = 8
    """Blocks; they may overlap. Their union is the one target."""
    scale: Shares = (0.15, 0.15)
    """Least and largest area of a block, as a share of the image plane."""
    aspect: Proportions = (0.75, 1.5)
    """Least and largest height over width of a block; drawn for each."""
    min_keep: Count = 4
    """Least tokens of the plane that stay visible; on small planes a quarter of them, if that is less."""

    def masks(self, draws: Draws, grid: Grid) -> Masks:
        """The masks of the samples of `draws`, on a grid (t or z, y, x).

        Raises:
            LamellaError: Such blocks cannot leave min_keep tokens of the plane.
        """
        token_count(grid, 3)
        depth, rows, columns = grid
        plane = token_count((rows, columns))
        sizes = partial(
            block_sizes, blocks=self.blocks, scale=self.scale, aspect=self.aspect, rows=rows, columns=columns
        )
        found = placed(draws, sizes, lambda _, free: free, rows, columns, least_kept(self.min_keep, plane))
        shown_SG = np.tile(found.context_SG, (1, depth))
        return Masks(shown_SG, ~shown_SG[:, None], grid)


SHORT_RANGE = TubeMaskSettings(blocks=8, scale=(0.15, 0.15))
"""Much to see close to every gap."""
LONG_RANGE = TubeMaskSettings(blocks=2, scale=(0.7, 0.7))
"""A strip or a corner to see, and most of the plane to predict."""
