"""Masks that hide an exact number of tokens: scattered, or in blocks. Grids of any number of axes.

Shapes: S samples, G tokens, M blocks of a sample.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from lamella.config import Settings
from lamella.data.masks.blocks import Shares
from lamella.data.masks.draws import Draws
from lamella.data.masks.mask import Grid, Masks, token_count
from lamella.errors import LamellaError

Ratio = Annotated[float, Field(gt=0, lt=1)]

_LEAST_CHANCE = 1e-3  # of a token to lie in a block: 2,000 blocks for a ratio of 0.75, megabytes per sample
# Blocks drawn over those that cover the ratio on average: half as many again leave an eighth where a quarter is wanted,
# so that few samples need single tokens to fill up.
_SPARE_BLOCKS = 1.5


class _ExactSettings(Settings):
    ratio: Ratio = 0.75
    """Share of the tokens that is hidden, met to the nearest token."""

    _axes: int = 2

    def masks(self, draws: Draws, grid: Grid) -> Masks:
        """One target: everything hidden. The context is the rest."""
        tokens = token_count(grid, self._axes)
        hidden_SG = first_ones(self._ranks(draws, grid), hidden_count(self.ratio, tokens))
        return Masks(~hidden_SG, hidden_SG[:, None], grid)

    def _ranks(self, draws: Draws, grid: Grid) -> np.ndarray:
        raise NotImplementedError


class RandomMaskSettings(_ExactSettings):
    """Hide single tokens of an image, each equally likely (MAE)."""

    name: Literal["random"] = "random"

    def _ranks(self, draws: Draws, grid: Grid) -> np.ndarray:
        return draws.uniform(math.prod(grid))


class Random3dMaskSettings(RandomMaskSettings):
    """Hide single tokens of a volume or a video, each equally likely."""

    name: Literal["random3d"] = "random3d"  # type: ignore[assignment]
    _axes: int = 3


class BlockMaskSettings(_ExactSettings):
    """Hide blocks of an image until the ratio is met; of the last block, only as many tokens as it takes."""

    name: Literal["block"] = "block"
    block_scale: Shares = (0.1, 0.2)
    """Least and largest size of one block, as a share of the grid."""
    stretch: Annotated[float, Field(ge=1)] = 1.5
    """Largest ratio between a block's sides, each taken as a share of its axis."""

    def _ranks(self, draws: Draws, grid: Grid) -> np.ndarray:
        return block_ranks(draws, grid, self.ratio, self.block_scale, self.stretch)


class Block3dMaskSettings(BlockMaskSettings):
    """Hide boxes of a volume or a video until the ratio is met."""

    name: Literal["block3d"] = "block3d"  # type: ignore[assignment]
    _axes: int = 3


def hidden_count(ratio: float, tokens: int) -> int:
    """The nearest whole number of tokens; at least one is hidden and one is left."""
    return min(max(1, round(ratio * tokens)), tokens - 1)


def first_ones(ranks_SG: np.ndarray, count: int) -> np.ndarray:
    """(S, G) bool: the `count` tokens of lowest rank in each sample."""
    first = np.argpartition(ranks_SG, count - 1, axis=-1)[:, :count]
    chosen = np.zeros(ranks_SG.shape, bool)
    np.put_along_axis(chosen, first, True, axis=-1)
    return chosen


def block_ranks(draws: Draws, grid: Grid, ratio: float, scale: Shares, stretch: float) -> np.ndarray:
    """(S, G) in which order tokens are hidden: block after block, each filled line by line from one of its corners.

    Blocks may reach over the edge, so that tokens there are covered as often as those in the middle.
    """
    tokens, axes = math.prod(grid), len(grid)
    count = _blocks_needed(grid, ratio, scale)
    log_side = np.log(draws.between(*scale, count, 1)) / axes + _stretches(draws, count, axes, stretch)
    sides_SMA = np.clip(np.rint(np.exp(log_side) * np.array(grid)), 1, grid).astype(np.int64)
    firsts_SMA = draws.below(np.array(grid) + sides_SMA - 1) - (sides_SMA - 1)
    flips_SA = draws.uniform(axes) < 0.5
    # The blocks last: whether, and by which block first, a token is covered is then found by one scan of each row.
    covered_SGM = np.ones((len(draws), 1, count), bool)
    order_SG = np.zeros((len(draws), 1), np.int64)
    for axis, length in enumerate(grid):
        offset_SLM = np.arange(length)[:, None] - firsts_SMA[:, None, :, axis]
        inside_SLM = (offset_SLM >= 0) & (offset_SLM < sides_SMA[:, None, :, axis])
        covered_SGM = (covered_SGM[:, :, None] & inside_SLM[:, None]).reshape(len(draws), -1, count)
        line_SL = np.where(flips_SA[:, axis, None], np.arange(length)[::-1], np.arange(length))
        order_SG = (order_SG[..., :, None] * length + line_SL[:, None, :]).reshape(len(draws), -1)
    first_SG = covered_SGM.argmax(-1)
    missed_SG = ~np.take_along_axis(covered_SGM, first_SG[..., None], -1)[..., 0]
    scattered_SG = count * tokens + tokens * draws.uniform(tokens)
    return np.where(missed_SG, scattered_SG, first_SG * tokens + order_SG)


def _stretches(draws: Draws, blocks: int, axes: int, stretch: float) -> np.ndarray:
    """(S, M, A) what is added to the logarithm of each side; 0 in sum, so that the volume stays."""
    drawn = draws.between(-0.5, 0.5, blocks, axes) * math.log(stretch)
    return drawn - drawn.mean(-1, keepdims=True)


def _blocks_needed(grid: Grid, ratio: float, scale: Shares) -> int:
    """Blocks that cover the ratio on average, times the spare."""
    side = (sum(scale) / 2) ** (1 / len(grid))
    sides = [max(1, round(side * length)) for length in grid]
    chance = math.prod(own / (length + own - 1) for own, length in zip(sides, grid, strict=True))
    if chance < _LEAST_CHANCE:
        raise LamellaError(
            f"block_scale={scale}",
            f"blocks so small would have to be drawn by the thousand to hide {ratio:.0%} of a grid of {grid}",
            "Raise block_scale, or choose random masks.",
        )
    return math.ceil(_SPARE_BLOCKS * math.log(1 - ratio) / math.log1p(-chance))
