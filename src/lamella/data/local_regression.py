"""Local regression: a smooth curve through points, without assuming its form."""

from __future__ import annotations

import numpy as np

_AT_ONCE = 2**20  # neighbours weighed together: 60 MB


def local_quadratic(x: np.ndarray, y: np.ndarray, span: float) -> np.ndarray:
    """Loess of degree 2: at every point a parabola through its nearest points, weighted by the tricube of distance.

    Cleveland, "Robust locally weighted regression and smoothing scatterplots", 1979, without the robust passes.
    Computed at every different x; R and scikit-misc interpolate between some of them.

    Args:
        x: (N,) places.
        y: (N,) values.
        span: Share of the points that each fit looks at.

    Returns:
        (N,) float64 fitted values.
    """
    order = np.argsort(x, kind="stable")
    xs, ys = x[order].astype(np.float64), y[order].astype(np.float64)
    count = len(xs)
    near = int(min(count, max(4, np.floor(span * count + 1e-5))))  # a parabola needs three points and one to smooth
    asked, first_of = np.unique(xs, return_inverse=True)
    start = _nearest(xs, asked, near)
    fitted = np.empty(len(asked))
    step = max(1, _AT_ONCE // near)
    for at in range(0, len(asked), step):
        rows = slice(at, at + step)
        members = start[rows, None] + np.arange(near)[None, :]
        fitted[rows] = _parabolas(xs[members] - asked[rows, None], ys[members])
    result = np.empty(count)
    result[order] = fitted[first_of.reshape(-1)]
    return result


def _nearest(xs: np.ndarray, asked: np.ndarray, near: int) -> np.ndarray:
    """The first of the `near` sorted points that are nearest to each asked place."""
    low = np.zeros(len(asked), np.int64)
    high = np.full(len(asked), len(xs) - near)
    while np.any(low < high):  # the window moves right while the point behind it is nearer than its first
        middle = (low + high) // 2
        right = asked - xs[middle] > xs[np.minimum(middle + near, len(xs) - 1)] - asked
        open_ = low < high
        low = np.where(open_ & right, middle + 1, low)
        high = np.where(open_ & ~right, middle, high)
    return low


def _parabolas(distance: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(R,) value at distance 0 of the weighted parabola through each row of points (R, near)."""
    reach = np.abs(distance).max(axis=1, keepdims=True)
    scaled = distance / np.where(reach > 0, reach, 1)
    length = np.abs(scaled)
    weight = np.maximum(1 - length * length * length, 0)  # products: numpy's powers take ten times as long
    weights = [weight * weight * weight]
    for _ in range(4):
        weights.append(weights[-1] * scaled)
    moments = [each.sum(axis=1) for each in weights]
    right = np.stack([np.einsum("rn,rn->r", each, y) for each in weights[:3]], axis=1)
    system = np.stack([np.stack([moments[i + j] for j in range(3)], axis=1) for i in range(3)], axis=1)
    # Where a few places are all there is, no parabola is determined: the least-norm one is taken, as loess does.
    return np.einsum("ri,ri->r", np.linalg.pinv(system, rcond=1e-10, hermitian=True)[:, 0], right)
