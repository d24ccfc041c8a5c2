"""Where the edges of outlines cross each other: almost linear in their number, in bounded memory.

Edges that follow each other lie near each other, so the boxes around runs of 2, 4, 8, ... of them form a tree in which
few pairs of boxes meet; only pairs whose boxes meet are taken apart.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_AT_ONCE = 2**19  # pairs of boxes; some 50 MB while they are compared
# Products of coordinates carry an error of a few units in the last place: a corner this near to a line lies on it.
_RELATIVE = 1e-12


def first_crossing(polygons: Sequence[Sequence[np.ndarray]]) -> tuple[int, tuple[float, float]] | None:
    """The first polygon in which two edges cross, each with its ends on both sides of the other; and the place.

    Rings that only touch, or run back along themselves, do not cross. Many small polygons at once take hardly longer
    than one.

    Args:
        polygons: The rings of each: (M, 2) float x, y, open or closed.

    Returns:
        Number of the polygon and x, y of the crossing between its foremost edges; None if there is none.
    """
    rings = [np.asarray(ring, np.float64) for polygon in polygons for ring in polygon]
    if not rings:
        return None
    sizes = [sum(len(ring) for ring in polygon) for polygon in polygons]
    groups = np.repeat(np.arange(len(polygons)), sizes)
    starts, lasts = np.concatenate(rings), np.cumsum([len(ring) for ring in rings]) - 1
    after = np.arange(1, len(starts) + 1)
    after[lasts] = np.append(0, lasts[:-1] + 1)
    ends = starts[after]
    pairs = crossing_pairs(starts, ends, groups)
    if not len(pairs):
        return None
    one, other = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))[0]]
    along, across, between = ends[one] - starts[one], ends[other] - starts[other], starts[other] - starts[one]
    x, y = starts[one] + _cross(between, across) / _cross(along, across) * along
    return int(groups[one]), (float(x), float(y))


def crossing_pairs(
    starts: np.ndarray, ends: np.ndarray, groups: np.ndarray | None = None, *, touching: bool = False
) -> np.ndarray:
    """(K, 2) the numbers of edges that cross, the smaller first.

    Args:
        starts: (N, 2) float64.
        ends: (N, 2) float64.
        groups: (N,) edges of different groups are not compared.
        touching: Whether edges that touch count too, unless they share an end.
    """
    tree = [_boxes(starts, ends, np.zeros(len(starts)) if groups is None else groups)]
    while tree[-1].shape[1] > 1:
        boxes = tree[-1] if tree[-1].shape[1] % 2 == 0 else np.concatenate([tree[-1], tree[-1][:, -1:]], axis=1)
        tree.append(
            np.concatenate([np.minimum(boxes[:3, ::2], boxes[:3, 1::2]), np.maximum(boxes[3:, ::2], boxes[3:, 1::2])])
        )
    work = [(len(tree) - 1, np.zeros(1, np.int64), np.zeros(1, np.int64))]
    found = [np.empty((0, 2), np.int64)]
    while work:
        level, a, b = work.pop()
        if len(a) > _AT_ONCE:
            half = len(a) // 2
            work += [(level, a[half:], b[half:]), (level, a[:half], b[:half])]
        elif level:
            work.append((level - 1, *_children(tree[level - 1], a, b)))
        else:
            apart = a != b
            a, b = a[apart], b[apart]
            crossing = _crossing(starts, ends, a, b, touching)
            found.append(np.stack([a[crossing], b[crossing]], axis=1))
    return np.concatenate(found)


def _boxes(starts: np.ndarray, ends: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """(6, N): the lower sides in x, in y and in group, then the upper ones; edges of two groups never meet."""
    (x0, y0), (x1, y1) = starts.T, ends.T
    sides = [np.minimum(x0, x1), np.minimum(y0, y1), groups, np.maximum(x0, x1), np.maximum(y0, y1), groups]
    return np.stack(sides).astype(np.float64)


def _children(boxes: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of the next finer level whose boxes meet, each once: a <= b."""
    apart = a != b
    lefts = np.concatenate([2 * a, 2 * a, 2 * a + 1, 2 * a[apart] + 1])
    rights = np.concatenate([2 * b, 2 * b + 1, 2 * b + 1, 2 * b[apart]])
    there = rights < boxes.shape[1]
    lefts, rights = lefts[there], rights[there]
    for lower, upper in zip(boxes[:3], boxes[3:], strict=True):  # axis by axis: few pairs are left for the third
        meet = lower[lefts] <= upper[rights]
        meet &= lower[rights] <= upper[lefts]
        lefts, rights = lefts[meet], rights[meet]
    return lefts, rights


def _crossing(starts: np.ndarray, ends: np.ndarray, a: np.ndarray, b: np.ndarray, touching: bool) -> np.ndarray:
    """(K,) bool for pairs of edges."""
    p, q, r, s = starts[a], ends[a], starts[b], ends[b]
    sides = [_side(p, q, r), _side(p, q, s), _side(r, s, p), _side(r, s, q)]
    if not touching:
        return np.asarray((sides[0] * sides[1] < 0) & (sides[2] * sides[3] < 0))
    shared = _same(p, r) | _same(p, s) | _same(q, r) | _same(q, s)
    # On one line their boxes meet, or they would not be here.
    return np.asarray((sides[0] * sides[1] <= 0) & (sides[2] * sides[3] <= 0) & ~shared)


def _side(start: np.ndarray, end: np.ndarray, point: np.ndarray) -> np.ndarray:
    """(K,) 1, -1 or 0: on which side of the line through start and end a point lies."""
    one = (end[:, 0] - start[:, 0]) * (point[:, 1] - start[:, 1])
    other = (end[:, 1] - start[:, 1]) * (point[:, 0] - start[:, 0])
    doubt = _RELATIVE * (np.abs(one) + np.abs(other))
    turn = one - other
    return np.where(np.abs(turn) <= doubt, 0, np.sign(turn))


def _same(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.asarray((one[:, 0] == other[:, 0]) & (one[:, 1] == other[:, 1]))


def _cross(one: np.ndarray, other: np.ndarray) -> float:
    return float(one[0] * other[1] - one[1] * other[0])
