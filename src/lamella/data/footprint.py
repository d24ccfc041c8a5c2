"""Which context tokens lie over a target, so that the model never sees in the context what it must predict.

Three sets belong to every target, all in the context's own grid of ViT patches:

- C, its continuous extent: the box itself, in context pixels;
- R, the tokens that C touches. A 128 px target at patch 16 touches 64 (aligned), 72 (off the grid on one axis) or 81
  (off on both);
- T, the tokens that the predictor is asked for: R, unless the user asks for fewer.

Context tokens are what is left after removing every R, always. There is no fallback that hands a removed token back,
and no set is cut to the length of another: ragged sets are padded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# A box that reaches this little over a patch's edge (context pixels) does so by rounding of its coordinates, which is
# below 1e-10. It is a tenth of what `Slide.read` neglects, so no such pixel enters a target; and a ten-millionth
# of a pixel is less than a ten-thousandth of one grey level.
EDGE_SLACK_PX = 1e-7


@dataclass(frozen=True)
class Footprint:
    """The token sets of one sample: row-major indices into the context's token grid, ascending, int64."""

    touched: tuple[np.ndarray, ...]
    """R of each target."""
    asked: tuple[np.ndarray, ...]
    """T of each target, a subset of its R."""
    keep: np.ndarray
    """Context tokens: outside every R."""
    free_fraction: float
    """Share of the grid outside every R, before any subsampling."""


def touched_tokens(boxes_px: np.ndarray, patch_px: float, rows: int, columns: int) -> np.ndarray:
    """R of each box as a mask.

    Args:
        boxes_px: (K, 4) float x0, y0, x1, y1 in context pixels; boxes may reach over the edge of the context.
        patch_px: Side of a token in the same pixels.
        rows: Rows of the token grid.
        columns: Columns of the token grid.

    Returns:
        (K, rows, columns) bool. A box inside the context touches at least one token.

    Raises:
        ValueError: A box is not finite or is empty.
    """
    boxes_px = np.asarray(boxes_px, np.float64).reshape(-1, 4)
    if not (np.isfinite(boxes_px).all() and (boxes_px[:, 2:] > boxes_px[:, :2]).all()):
        raise ValueError(f"boxes must be finite and x0 < x1, y0 < y1, got {boxes_px.tolist()}")
    touched_x = _touched(boxes_px[:, 0], boxes_px[:, 2], patch_px, columns)
    touched_y = _touched(boxes_px[:, 1], boxes_px[:, 3], patch_px, rows)
    touched: np.ndarray = touched_y[:, :, None] & touched_x[:, None, :]
    return touched


def _touched(start_px: np.ndarray, stop_px: np.ndarray, patch_px: float, tokens: int) -> np.ndarray:
    """(K, tokens) bool: the tokens of one axis that [start, stop) meets."""
    edges_px = np.arange(tokens + 1) * patch_px
    # A box narrower than twice the slack keeps its middle, so that it still touches what it lies in.
    slack_px = np.minimum(EDGE_SLACK_PX, (stop_px - start_px) / 4)
    touched: np.ndarray = edges_px[1:] > (start_px + slack_px)[:, None]
    touched &= edges_px[:-1] < (stop_px - slack_px)[:, None]
    return touched


def footprint(
    boxes_px: np.ndarray,
    patch_px: float,
    rows: int,
    columns: int,
    *,
    rng: np.random.Generator | None = None,
    max_context_tokens: int | None = None,
    max_target_tokens: int | None = None,
) -> Footprint:
    """The token sets of one sample.

    Args:
        boxes_px: (K, 4) target boxes in context pixels.
        patch_px: Side of a token in context pixels.
        rows: Rows of the token grid.
        columns: Columns of the token grid.
        rng: Draws the subsets; needed only with a maximum.
        max_context_tokens: Keep a random subset of at most this many context tokens.
        max_target_tokens: Ask for a random subset of at most this many tokens of each target. The context still loses
            all of R.
    """
    touched_KG = touched_tokens(boxes_px, patch_px, rows, columns).reshape(-1, rows * columns)
    touched = tuple(np.flatnonzero(row) for row in touched_KG)
    free = np.flatnonzero(~touched_KG.any(axis=0))
    return Footprint(
        touched=touched,
        asked=tuple(_subset(tokens, max_target_tokens, rng) for tokens in touched),
        keep=_subset(free, max_context_tokens, rng),
        free_fraction=free.size / (rows * columns),
    )


def _subset(tokens: np.ndarray, most: int | None, rng: np.random.Generator | None) -> np.ndarray:
    if most is None or tokens.size <= most:
        return tokens
    if rng is None:
        raise ValueError("a maximum number of tokens needs a random generator")
    return np.sort(rng.choice(tokens, most, replace=False))


def pad_ragged(sets: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Stack index sets of different lengths; nothing is cut.

    Returns:
        (S, L) int64 indices padded with 0, and (S, L) bool that is True where padded. L is the longest set, at least 1.
    """
    length = max([1, *(len(indices) for indices in sets)])
    padded = np.zeros((len(sets), length), np.int64)
    pad = np.ones((len(sets), length), bool)
    for row, indices in enumerate(sets):
        padded[row, : len(indices)] = indices
        pad[row, : len(indices)] = False
    return padded, pad
