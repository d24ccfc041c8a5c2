"""Rectangles of tokens: how large, where, and which tokens they cover.

Shapes: S samples, K blocks of a sample, H rows and W columns of the grid, G = H * W.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import AfterValidator, Field

from lamella.data.masks.draws import Draws

# A quarter of a small grid is enough to see something of every side; larger grids keep what the settings ask for.
_LARGEST_SHARE_KEPT = 4


def _ascending(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise ValueError(f"the first number ({bounds[0]:g}) must not exceed the second ({bounds[1]:g})")
    return bounds


Share = Annotated[float, Field(gt=0, le=1)]
Proportion = Annotated[float, Field(gt=0)]
Shares = Annotated[tuple[Share, Share], AfterValidator(_ascending)]
Proportions = Annotated[tuple[Proportion, Proportion], AfterValidator(_ascending)]


def block_sizes(
    draws: Draws, blocks: int, scale: Shares, aspect: Proportions, rows: int, columns: int
) -> tuple[np.ndarray, np.ndarray]:
    """Height and width of each block, (S, K) int64 each, at least one token and never the whole grid.

    Area and proportion are drawn apart from each other and anew for each block. The width follows from the area and
    the rounded height, so that the area is met to half a column; where that rounding left the range of areas and one
    column less or more does not, it is taken.

    Args:
        draws: Random numbers.
        blocks: K.
        scale: Least and largest area as a share of the grid.
        aspect: Least and largest height over width.
        rows: H.
        columns: W.
    """
    area_SK = draws.between(*scale, blocks) * (rows * columns)
    aspect_SK = draws.between(*aspect, blocks)
    height_SK = np.clip(np.rint(np.sqrt(area_SK * aspect_SK)), 1, rows).astype(np.int64)
    width_SK = np.clip(np.rint(area_SK / height_SK), 1, columns).astype(np.int64)
    least, most = (share * rows * columns for share in scale)
    narrower_SK = (height_SK * width_SK > most) & (height_SK * (width_SK - 1) >= least)
    wider_SK = (height_SK * width_SK < least) & (height_SK * (width_SK + 1) <= most) & (width_SK < columns)
    width_SK = width_SK + wider_SK - narrower_SK
    whole_SK = (height_SK == rows) & (width_SK == columns)
    if rows >= columns:
        return height_SK - whole_SK, width_SK
    return height_SK, width_SK - whole_SK


def within(draws: Draws, sizes: np.ndarray, tokens: int) -> np.ndarray:
    """(S, K) first row (or column) of each block, every place inside the grid equally likely, also the last."""
    return draws.below(tokens - sizes + 1)


def cells(tops_SK: np.ndarray, heights_SK: np.ndarray, lefts_SK: np.ndarray, widths_SK: np.ndarray, rows: int,
          columns: int) -> np.ndarray:  # fmt: skip
    """(S, K, G) bool: the tokens of each block."""
    down_SKH, across_SKW = span(tops_SK, heights_SK, rows), span(lefts_SK, widths_SK, columns)
    covered: np.ndarray = down_SKH[..., :, None] & across_SKW[..., None, :]
    return covered.reshape(*tops_SK.shape, rows * columns)


def span(firsts: np.ndarray, lengths: np.ndarray, tokens: int) -> np.ndarray:
    """(..., tokens) bool: what [first, first + length) covers of an axis; it may reach over either end."""
    offset = np.arange(tokens) - firsts[..., None]
    inside: np.ndarray = (offset >= 0) & (offset < lengths[..., None])
    return inside


def least_kept(asked: int, tokens: int) -> int:
    """Least context tokens: what the settings ask for, but on a small grid at most a quarter of it; at least 1."""
    return max(1, min(asked, tokens // _LARGEST_SHARE_KEPT))
