from __future__ import annotations

import numpy as np
import pytest

from lamella.dense import smoothing
from lamella.dense.smoothing import LOSSLESS_PX, smoothed
from lamella.slides.polygons import fill_polygon


def box(x0: int, y0: int, x1: int, y1: int, *, hole: bool = False) -> np.ndarray:
    corners = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
    return corners[::-1] if hole else corners


def inside(ring: np.ndarray, x: float, y: float) -> bool:
    mask = np.zeros((1, 1), bool)
    fill_polygon(mask, [ring - (x - 0.5, y - 0.5)])
    return bool(mask[0, 0])


def test_a_hole_stays_inside_when_the_outline_around_it_is_cut_off() -> None:
    # A bump on a long bar, with a hole in it: at this tolerance the bump alone would go.
    bar = np.array([[0, 10], [40, 10], [40, 0], [50, 0], [50, 10], [100, 10], [100, 60], [0, 60]])
    hole = box(43, 3, 47, 7, hole=True)
    (alone,) = smoothed([[bar]], 11)
    assert alone[0][:, 1].min() > 5
    ((outer, kept),) = smoothed([[bar, hole]], 11)
    assert all(inside(outer, x, y) for x, y in kept)


def test_polygons_with_a_hole_in_the_wrong_place_are_found() -> None:
    outer, hole = box(0, 0, 20, 20), box(4, 4, 9, 9, hole=True)
    polygons = [
        [outer, hole],
        [outer, box(30, 4, 35, 9, hole=True)],  # beside the outer ring
        [box(100, 0, 120, 20), box(104, 4, 116, 16, hole=True), box(106, 6, 109, 9, hole=True)],  # in another hole
        [outer, hole, box(12, 4, 15, 9, hole=True)],
        [box(0, 0, 3, 3)],
    ]
    rings = [ring.astype(float) for polygon in polygons for ring in polygon]
    ring = np.repeat(np.arange(len(rings)), [len(corners) for corners in rings])
    polygon_of_ring = np.repeat(np.arange(len(polygons)), [len(polygon) for polygon in polygons])
    ends = np.concatenate([np.roll(corners, -1, axis=0) for corners in rings])
    found = smoothing._holes_outside(np.concatenate(rings), ends, ring, polygon_of_ring)
    assert sorted(found.tolist()) == [1, 2]


def test_a_piece_smaller_than_the_tolerance_stays() -> None:
    ((ring,),) = smoothed([[box(3, 3, 5, 5)]], 50)
    assert len(ring) >= 3
    mask = np.zeros((8, 8), bool)
    fill_polygon(mask, [ring])
    assert mask.any()


def test_what_crosses_at_the_tolerance_is_made_again_with_half_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []
    original = smoothing._thinned
    monkeypatch.setattr(
        smoothing, "_thinned", lambda rings, tolerance: tried.append(tolerance) or original(rings, tolerance)
    )
    monkeypatch.setattr(smoothing, "_clashing", lambda corners, sizes, polygons, tolerance: np.unique(polygons)[:1])
    rings = smoothed([[box(0, 0, 20, 20)], [box(30, 0, 50, 20)]], 2.0)
    assert tried == [2.0, 1.0, 0.5, LOSSLESS_PX]
    assert rings[0][0].tolist() == box(0, 0, 20, 20).tolist()  # at last, the edges of the pixels themselves
    assert len(rings[1][0]) > 3


def test_loops_that_hang_on_a_corner_become_rings_of_their_own() -> None:
    # Two holes in a chain, each touching the next at a corner, walked as one ring.
    chain = np.array([[0, 0], [0, 1], [1, 1], [1, 2], [2, 2], [2, 3], [3, 3], [3, 2], [2, 2], [2, 1], [1, 1], [1, 0]])
    ((outer, *loops),) = smoothed([[box(-5, -5, 9, 9), chain]], 0)
    assert outer.tolist() == box(-5, -5, 9, 9).tolist()
    assert sorted(sorted(loop.tolist()) for loop in loops) == [
        sorted(box(corner, corner, corner + 1, corner + 1).tolist()) for corner in range(3)
    ]
