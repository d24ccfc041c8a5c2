"""Masks over time: whole frames are hidden, and most tokens of the frames that remain."""

from __future__ import annotations

from typing import Literal

import numpy as np

from lamella.config import Settings
from lamella.data.masks.draws import Draws
from lamella.data.masks.exact import Ratio, first_ones, hidden_count
from lamella.data.masks.mask import Grid, Masks, token_count


class TemporalMaskSettings(Settings):
    """Hide some frames entirely and, in each other frame, some tokens; both numbers are exact."""

    name: Literal["temporal"] = "temporal"
    frames: Ratio = 0.5
    """Share of the frames (steps of the tokens in time) that is hidden entirely."""
    ratio: Ratio = 0.75
    """Share of the tokens hidden in each other frame, drawn for each frame."""

    def masks(self, draws: Draws, grid: Grid) -> Masks:
        """The masks of the samples of `draws`, on a grid (t, y, x).

        Raises:
            ValueError: There is only one frame, or a frame is one token.
        """
        token_count(grid, 3)
        frames, rows, columns = grid
        if frames < 2:
            raise ValueError(f"a grid of {grid} has only one frame, and some must be hidden and some shown")
        plane = token_count((rows, columns))
        gone_ST = first_ones(draws.uniform(frames), hidden_count(self.frames, frames))
        ranks = draws.uniform(frames, plane).reshape(-1, plane)
        thinned = first_ones(ranks, hidden_count(self.ratio, plane)).reshape(len(draws), frames, plane)
        hidden_SG = (gone_ST[:, :, None] | thinned).reshape(len(draws), -1)
        shown_SG: np.ndarray = ~hidden_SG
        return Masks(shown_SG, hidden_SG[:, None], grid)
