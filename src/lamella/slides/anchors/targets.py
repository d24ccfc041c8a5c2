"""Where targets lie inside a context: at random, or, where that finds no room, on a deterministic grid.

All boxes are in micrometres from the context's top-left corner. The same grid decides twice: the catalogue proves with
it that an anchor's targets fit, and at run time it is what random placement falls back on. So placement never fails
for an anchor of the catalogue.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from lamella.errors import ConfigError, EmptyTissueError
from lamella.geometry import Box
from lamella.slides.anchors.sampling import CrossSampling
from lamella.slides.tissue_map import TissueMap

# Grid corners per axis, about: an eighth of a target in the shipped profile. More make anchors slower, not better.
_GRID_PER_AXIS = 24
_SLACK = 1e-9  # rounding of sums of micrometres; far below any pixel
# Fractions are compared after this rounding: the same box computed in two ways must not fall on two sides of a limit.
_DECIMALS = 6
_CHUNK = 2**21  # grid fractions held at a time: 16 MB


@dataclass(frozen=True)
class TargetGrid:
    """The candidate corners of a profile and which of them are too close to stand together."""

    axis_um: np.ndarray
    """(A,) corner coordinates of both axes; candidate y * A + x is at (axis_um[x], axis_um[y])."""
    conflicts: np.ndarray
    """(A * A, A * A) bool, true on the diagonal."""
    packed: np.ndarray
    """(A * A,) bool: the densest regular layout, none of whose candidates is in conflict with another."""

    def corners_um(self, candidates: np.ndarray) -> np.ndarray:
        """(..., 2) x, y of candidate numbers."""
        y, x = np.divmod(candidates, len(self.axis_um))
        return np.stack([self.axis_um[x], self.axis_um[y]], axis=-1)


@lru_cache(maxsize=16)  # one profile, at a few scales
def target_grid(sampling: CrossSampling) -> TargetGrid:
    """The candidates of a profile.

    Raises:
        ConfigError: Even on tissue everywhere the grid finds no room for the profile's targets.
    """
    axis, tight = _aligned_axes(sampling) if sampling.align_targets_to_patch_grid else _free_axes(sampling)
    side = sampling.target_fov_um
    shared = np.clip(side - np.abs(axis[:, None] - axis[None, :]), 0, None)  # (A, A) shared length along one axis
    overlap = shared[:, None, :, None] * shared[None, :, None, :]  # (y, x, y', x')
    conflicts = (overlap > _overlap_limit_um2(sampling)).reshape(len(axis) ** 2, len(axis) ** 2)
    np.fill_diagonal(conflicts, True)
    on_tight = np.isin(axis, tight)
    grid = TargetGrid(axis, conflicts, (on_tight[:, None] & on_tight[None, :]).ravel())
    everywhere = np.ones((1, len(axis) ** 2))
    if not len(axis) or (grid_placement(everywhere, 0.0, grid, sampling.targets_per_context) < 0).any():
        raise ConfigError(
            [
                f"sampling.targets_per_context: {sampling.targets_per_context} targets of {side:g} um do not fit into "
                f"a context of {sampling.context_fov_um:g} um with a margin of {sampling.target_margin_um:g} um"
                + (" when aligned to the patch grid" if sampling.align_targets_to_patch_grid else "")
                + "; lower it, or target_fov_um, or target_margin_um"
            ]
        )
    return grid


def grid_fractions(
    x_um: np.ndarray, y_um: float, tissue: TissueMap, sampling: CrossSampling, grid: TargetGrid
) -> np.ndarray:
    """Tissue fraction of every candidate, for contexts whose top edges are at one height.

    Args:
        x_um: (M,) left edges of the contexts on the slide.
        y_um: Their top edge.
        tissue: The slide's tissue.
        sampling: The profile.
        grid: Its candidates.

    Returns:
        (M, A * A) float64.
    """
    axis, side = grid.axis_um, sampling.target_fov_um
    fractions = tissue.grid_fractions((x_um[:, None] + axis).ravel(), y_um + axis, side, side)
    by_context = fractions.reshape(len(axis), len(x_um), len(axis)).transpose(1, 0, 2)
    return by_context.reshape(len(x_um), -1).round(_DECIMALS)


def grid_placement(fractions: np.ndarray, threshold: float, grid: TargetGrid, targets: int) -> np.ndarray:
    """Choose candidates greedily, most tissue first; where that gets stuck, among those of the densest layout only.

    Args:
        fractions: (M, A * A) tissue fraction of each candidate of M contexts.
        threshold: Least tissue fraction of a target.
        grid: The candidates.
        targets: K.

    Returns:
        (M, K) candidate numbers; -1 throughout where K targets do not fit.
    """
    allowed = fractions >= threshold - _SLACK
    chosen = _greedy(np.where(allowed, fractions, -1.0), grid.conflicts, targets)
    stuck = (chosen < 0).any(axis=1)
    if stuck.any():
        packed = np.where(allowed[stuck] & grid.packed, fractions[stuck], -1.0)
        chosen[stuck] = _greedy(packed, grid.conflicts, targets)
        chosen[(chosen < 0).any(axis=1)] = -1
    return chosen


def fitting_thresholds(
    centers_px0: np.ndarray, tissue: TissueMap, mpp: tuple[float, float], sampling: CrossSampling
) -> np.ndarray:
    """The highest of the profile's thresholds at which each anchor's targets fit.

    Args:
        centers_px0: (N, 2) x, y of the anchors; fastest where many share a y.
        tissue: The slide's tissue.
        mpp: The slide's (x, y) micrometres per level-0 pixel.
        sampling: The profile.

    Returns:
        (N,) float64, NaN where the targets fit at none.
    """
    grid = target_grid(sampling)
    corners_um = context_corners_um(centers_px0, mpp, sampling)
    thresholds = np.full(len(corners_um), np.nan)
    per_chunk = max(1, _CHUNK // len(grid.conflicts))
    for y_um in np.unique(corners_um[:, 1]):
        row = np.flatnonzero(corners_um[:, 1] == y_um)
        for start in range(0, len(row), per_chunk):
            part = row[start : start + per_chunk]
            fractions = grid_fractions(corners_um[part, 0], y_um, tissue, sampling, grid)
            thresholds[part] = _highest(fractions, sampling, grid)
    return thresholds


def context_corners_um(centers_px0: np.ndarray, mpp: tuple[float, float], sampling: CrossSampling) -> np.ndarray:
    """(N, 2) top-left corners of contexts in micrometres; the same arithmetic as `Anchor.context_px0`."""
    spacing = np.array(mpp)
    return (centers_px0 - sampling.context_fov_um / spacing / 2) * spacing


def place_targets(
    rng: np.random.Generator, tissue: TissueMap, context_um: Box, sampling: CrossSampling, threshold: float
) -> np.ndarray:
    """Place the targets of one context. Depends on its arguments alone.

    Random corners first, at most `target_attempts` per target; then the free places of the grid with the most tissue;
    then the grid alone.

    Args:
        rng: Source of the random corners.
        tissue: The slide's tissue.
        context_um: The context on the slide, in micrometres.
        sampling: The profile.
        threshold: Least tissue fraction of a target; the anchor's `min_target_tissue_fraction`.

    Returns:
        (K, 4) float64 x0, y0, x1, y1 in micrometres from the context's top-left corner.

    Raises:
        EmptyTissueError: K targets with that much tissue do not fit.
    """
    targets, side = sampling.targets_per_context, sampling.target_fov_um
    corners = _random_corners(rng, sampling)
    absolute = corners + np.array([context_um.x0, context_um.y0])
    fractions = tissue.fractions(np.concatenate([absolute, absolute + side], axis=1)).round(_DECIMALS)
    placed = _first_fitting(corners[fractions >= threshold - _SLACK], sampling)
    if len(placed) < targets:
        grid = target_grid(sampling)
        on_grid = grid_fractions(np.array([context_um.x0]), context_um.y0, tissue, sampling, grid)
        placed = _completed(placed, on_grid, threshold, grid, sampling)
    return np.concatenate([placed, placed + side], axis=1)


def _completed(
    placed: np.ndarray, fractions: np.ndarray, threshold: float, grid: TargetGrid, sampling: CrossSampling
) -> np.ndarray:
    """(K, 2) corners: those placed so far with grid places beside them, or grid places only."""
    targets = sampling.targets_per_context
    corners = grid.corners_um(np.arange(len(grid.conflicts)))
    free = (_overlaps_um2(corners, placed, sampling) <= _overlap_limit_um2(sampling)).all(axis=1)
    beside = grid_placement(np.where(free, fractions, -1.0), threshold, grid, targets - len(placed))[0]
    if (beside >= 0).all():
        return np.concatenate([placed, grid.corners_um(beside)])
    alone = grid_placement(fractions, threshold, grid, targets)[0]
    if (alone < 0).any():
        raise EmptyTissueError(
            "targets",
            f"{targets} of them with {threshold:.0%} tissue do not fit into this context",
            "Lower sampling.min_target_tissue_fraction, or build the anchors with this profile.",
        )
    return grid.corners_um(alone)


def _highest(fractions: np.ndarray, sampling: CrossSampling, grid: TargetGrid) -> np.ndarray:
    found = np.full(len(fractions), np.nan)
    for threshold in sampling.thresholds:
        open_rows = np.flatnonzero(np.isnan(found))
        if not len(open_rows):
            break
        chosen = grid_placement(fractions[open_rows], threshold, grid, sampling.targets_per_context)
        found[open_rows[chosen[:, 0] >= 0]] = threshold
    return found


def _greedy(score: np.ndarray, conflicts: np.ndarray, targets: int) -> np.ndarray:
    """(M, K) best candidates in turn, each shutting out its neighbours; a negative score is never chosen."""
    rows = np.arange(len(score))
    chosen = np.full((len(score), targets), -1)
    for turn in range(targets):
        best = score.argmax(axis=1)
        found = score[rows, best] >= 0
        chosen[found, turn] = best[found]
        if turn + 1 < targets:
            score[conflicts[best]] = -1.0
    return chosen


def _first_fitting(corners: np.ndarray, sampling: CrossSampling) -> np.ndarray:
    """(at most K, 2) of the corners in their order, leaving out those too close to one taken before."""
    taken: list[np.ndarray] = []
    while len(corners) and len(taken) < sampling.targets_per_context:
        first, corners = corners[0], corners[1:]
        taken.append(first)
        corners = corners[_overlaps_um2(corners, first[None], sampling)[:, 0] <= _overlap_limit_um2(sampling)]
    return np.array(taken).reshape(-1, 2)


def _overlaps_um2(corners: np.ndarray, others: np.ndarray, sampling: CrossSampling) -> np.ndarray:
    """(N, M) shared area of targets at `corners` (N, 2) and at `others` (M, 2)."""
    shared = np.clip(sampling.target_fov_um - np.abs(corners[:, None] - others[None]), 0, None)
    return shared[..., 0] * shared[..., 1]


def _overlap_limit_um2(sampling: CrossSampling) -> float:
    return (sampling.max_target_overlap + _SLACK) * sampling.target_fov_um**2


def _random_corners(rng: np.random.Generator, sampling: CrossSampling) -> np.ndarray:
    """(attempts, 2) corners, uniform inside the margin or over the patch grid inside it."""
    shape = (sampling.targets_per_context * sampling.target_attempts, 2)
    if sampling.align_targets_to_patch_grid:
        first, last = _aligned_range(sampling)
        return rng.integers(first, last + 1, shape) * sampling.patch_um
    low, high = _corner_range_um(sampling)
    return rng.uniform(low, high, shape)


def _corner_range_um(sampling: CrossSampling) -> tuple[float, float]:
    """The least and greatest corner coordinate inside the margin."""
    low = sampling.target_margin_um
    return low, max(low, sampling.context_fov_um - sampling.target_margin_um - sampling.target_fov_um)


def _aligned_range(sampling: CrossSampling) -> tuple[int, int]:
    """The first and last line of the patch grid on which a target's corner may lie."""
    low, high = (edge / sampling.patch_um for edge in _corner_range_um(sampling))
    return int(np.ceil(low - _SLACK)), int(np.floor(high + _SLACK))


def _free_axes(sampling: CrossSampling) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of candidate corners, and those of the densest layout among them."""
    low, high = _corner_range_um(sampling)
    steps = int(np.ceil((high - low) / (sampling.target_fov_um / 8)))
    even = np.linspace(low, high, min(steps, _GRID_PER_AXIS) + 1).round(9)
    pitch = sampling.target_fov_um * (1 - sampling.max_target_overlap)
    # Where hundreds fit along an axis the densest layout is not needed, and its conflicts would not fit into memory.
    many = pitch * _GRID_PER_AXIS < high - low
    tight = even if many or not pitch else np.arange(low, high + _SLACK, pitch).clip(low, high).round(9)
    return np.union1d(even, tight), tight


def _aligned_axes(sampling: CrossSampling) -> tuple[np.ndarray, np.ndarray]:
    """As `_free_axes`, on the lines of the patch grid."""
    first, last = _aligned_range(sampling)
    lines = np.arange(first, last + 1)
    if not len(lines):
        return lines * sampling.patch_um, lines * sampling.patch_um
    even = np.append(lines[:: -(-len(lines) // _GRID_PER_AXIS)], last)
    pitch = sampling.target_fov_um * (1 - sampling.max_target_overlap) / sampling.patch_um
    many = pitch * _GRID_PER_AXIS < last - first
    tight = even if many else lines[:: max(1, int(np.ceil(pitch - _SLACK)))]
    return np.union1d(even, tight) * sampling.patch_um, tight * sampling.patch_um
