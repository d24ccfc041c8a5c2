"""What every kind of mask returns: the tokens that are shown and the tokens that are asked for.

Context and targets never share a token; targets may overlap each other; tokens may belong to neither. Sets are ragged:
they are padded to the longest of a batch, and never cut to the shortest.

Shapes: S samples, K targets of a sample, G tokens of the grid, N context tokens, Q tokens of a target.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Grid = tuple[int, ...]
"""Tokens along each axis: (y, x), or (z or t, y, x)."""


@dataclass(frozen=True)
class Mask:
    """The mask of one sample: row-major token numbers, ascending, int64."""

    context: np.ndarray
    targets: tuple[np.ndarray, ...]
    grid: Grid


@dataclass(frozen=True)
class Masks:
    """The masks of a batch.

    Attributes:
        context_SG: bool, True where a token is shown.
        targets_SKG: bool, True where a token is asked for.
        grid: Tokens along each axis; their product is G.
    """

    context_SG: np.ndarray
    targets_SKG: np.ndarray
    grid: Grid

    def __len__(self) -> int:
        return len(self.context_SG)

    def __getitem__(self, sample: int) -> Mask:
        targets = tuple(np.flatnonzero(target) for target in self.targets_SKG[sample])
        return Mask(np.flatnonzero(self.context_SG[sample]), targets, self.grid)

    def arrays(self) -> dict[str, np.ndarray]:
        """`context` int64 (S, N), `context_pad` bool (S, N), `targets` int64 (S, K, Q), `targets_pad` (S, K, Q).

        True marks padding, whose index is 0.
        """
        context, context_pad = padded(self.context_SG)
        targets, targets_pad = padded(self.targets_SKG)
        return {"context": context, "context_pad": context_pad, "targets": targets, "targets_pad": targets_pad}


def stacked(sets: Sequence[Masks]) -> dict[str, np.ndarray]:
    """Several masks of every sample side by side, each of one target (V-JEPA's short and long range).

    Returns:
        `context` int64 (S, M, N), `context_pad`, `targets` int64 (S, M, Q), `targets_pad`, for M sets.
    """
    context, context_pad = padded(np.stack([masks.context_SG for masks in sets], axis=1))
    targets, targets_pad = padded(np.concatenate([masks.targets_SKG for masks in sets], axis=1))
    return {"context": context, "context_pad": context_pad, "targets": targets, "targets_pad": targets_pad}


def padded(chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the chosen tokens, ascending; nothing is cut.

    Args:
        chosen: (..., G) bool.

    Returns:
        int64 (..., L) padded with 0, and bool (..., L) True where padded; L is the largest count, at least 1.
    """
    rows_RG = chosen.reshape(-1, chosen.shape[-1])
    row, token = np.nonzero(rows_RG)
    counts_R = np.bincount(row, minlength=len(rows_RG))
    length = max(1, int(counts_R.max(initial=0)))
    slot = np.arange(len(row)) - np.repeat(np.cumsum(counts_R) - counts_R, counts_R)
    numbers = np.zeros((len(rows_RG), length), np.int64)
    numbers[row, slot] = token
    pad = np.arange(length) >= counts_R[:, None]
    shape = (*chosen.shape[:-1], length)
    return numbers.reshape(shape), pad.reshape(shape)


def token_count(grid: Grid, axes: int | None = None) -> int:
    """G.

    Raises:
        ValueError: An axis has no token, there are fewer than two tokens, or not as many axes as the mask needs.
    """
    if axes is not None and len(grid) != axes:
        raise ValueError(f"this mask is for grids of {axes} axes, not {grid}")
    if min(grid, default=0) < 1 or math.prod(grid) < 2:
        raise ValueError(f"a grid of {grid} tokens has nothing to show and something to hide")
    return math.prod(grid)
