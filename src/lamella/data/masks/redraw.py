"""Blocks that leave enough to see: drawn anew where they do not, and never for ever.

Shapes: S samples, K blocks of a sample, H rows and W columns of the grid, G = H * W.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lamella.data.masks.blocks import cells, within
from lamella.data.masks.draws import Draws
from lamella.errors import LamellaError

# Times that a sample's blocks are drawn anew. Settings that fail nine times in ten still succeed in all but one of
# 40,000 samples; the others' blocks are put on top of each other.
REDRAWS = 100


@dataclass(frozen=True)
class Placed:
    """Blocks of some samples and what they leave."""

    blocks_SKG: np.ndarray
    context_SG: np.ndarray


SizesOf = Callable[[Draws], tuple[np.ndarray, np.ndarray]]
ContextOf = Callable[[Draws, np.ndarray], np.ndarray]


def placed(draws: Draws, sizes: SizesOf, context: ContextOf, rows: int, columns: int, keep: int) -> Placed:
    """Place blocks so that the context keeps at least `keep` tokens.

    Only samples that fail are drawn anew, with numbers of their own: a sample does not depend on its neighbours. One
    that fails every time gets blocks on top of each other and everything outside them as context: the most that
    blocks of these sizes can leave.

    Args:
        draws: Random numbers.
        sizes: Draws heights and widths, (S, K) each.
        context: Draws the (S, G) context from the (S, G) tokens outside all blocks.
        rows: H.
        columns: W.
        keep: Least context tokens.

    Raises:
        LamellaError: Blocks on top of each other still leave less.
    """
    blocks_SKG, context_SG = _drawn(draws, sizes, context, rows, columns)
    short = np.flatnonzero(context_SG.sum(1) < keep)
    for attempt in range(1, REDRAWS + 1):
        if not len(short):
            break
        blocks_SKG[short], context_SG[short] = _drawn(draws.again(attempt, short), sizes, context, rows, columns)
        short = short[context_SG[short].sum(1) < keep]
    if len(short):
        fresh = draws.again(REDRAWS + 1, short)
        heights, widths = sizes(fresh)
        top = within(fresh, heights.max(1, keepdims=True), rows) + np.zeros_like(heights)
        left = within(fresh, widths.max(1, keepdims=True), columns) + np.zeros_like(widths)
        blocks_SKG[short] = cells(top, heights, left, widths, rows, columns)
        context_SG[short] = ~blocks_SKG[short].any(1)
        if (context_SG[short].sum(1) < keep).any():
            raise LamellaError(
                "masks",
                f"on a grid of {rows} x {columns} tokens, blocks of these sizes leave fewer than {keep} to see",
                "Lower the scale or min_keep of the masks, or use smaller patches.",
            )
    return Placed(blocks_SKG, context_SG)


def _drawn(draws: Draws, sizes: SizesOf, context: ContextOf, rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    heights, widths = sizes(draws)
    tops, lefts = within(draws, heights, rows), within(draws, widths, columns)
    blocks_SKG = cells(tops, heights, lefts, widths, rows, columns)
    return blocks_SKG, context(draws, ~blocks_SKG.any(1))
