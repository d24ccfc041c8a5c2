from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamella.formats import ring_crossings
from lamella.formats.ring_crossings import crossing_pairs, first_crossing

SQUARE = np.array([[0.0, 0], [10, 0], [10, 10], [0, 10]])


def test_a_bow_tie_crosses_in_its_middle() -> None:
    assert first_crossing([[SQUARE], [np.array([[0.0, 0], [10, 10], [10, 0], [0, 10]])]]) == (1, (5, 5))


def test_a_hole_that_leaves_its_outline_crosses_it() -> None:
    assert first_crossing([[SQUARE, np.array([[2.0, 2], [12, 3], [2, 4]])]]) is not None


@pytest.mark.parametrize(
    "rings",
    [
        [SQUARE],
        [np.concatenate([SQUARE, SQUARE[:1]])],  # closed
        [SQUARE, np.array([[0.0, 0], [4, 2], [2, 4]])],  # a hole that touches at a corner
        [np.array([[0.0, 0], [10, 0], [10, 10], [5, 0], [0, 10]])],  # a corner on an edge
        [np.array([[0.0, 0], [10, 0], [15, 0], [10, 0], [10, 10]])],  # out and back along itself
        [np.array([[0.0, 0], [1, 1], [2, 0]])],
    ],
)
def test_rings_that_touch_do_not_cross(rings: list[np.ndarray]) -> None:
    assert first_crossing([rings]) is None


def test_touching_counts_where_asked_unless_an_end_is_shared() -> None:
    starts, ends = np.array([[0.0, 0], [5, 0], [10, 0]]), np.array([[10.0, 0], [5, 5], [20, 5]])
    assert len(crossing_pairs(starts, ends)) == 0
    assert crossing_pairs(starts, ends, touching=True).tolist() == [[0, 1]]


def test_edges_of_two_groups_are_not_compared() -> None:
    starts, ends = np.array([[0.0, 0], [0, 10]]), np.array([[10.0, 10], [10, 0]])
    assert len(crossing_pairs(starts, ends)) == 1
    assert len(crossing_pairs(starts, ends, np.array([0, 1]))) == 0


def crosses(p: np.ndarray, q: np.ndarray, r: np.ndarray, s: np.ndarray) -> bool:
    """By the definition, in whole numbers."""

    def side(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> int:
        return int(np.sign((b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])))

    return side(p, q, r) * side(p, q, s) < 0 and side(r, s, p) * side(r, s, q) < 0


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 12)] * 4), min_size=1, max_size=24), st.integers(1, 20))
def test_the_same_pairs_as_trying_all(edges: list[tuple[int, ...]], at_once: int) -> None:
    array = np.array(edges)
    starts, ends = array[:, :2], array[:, 2:]
    expected = {
        (a, b)
        for a in range(len(array))
        for b in range(a + 1, len(array))
        if crosses(starts[a], ends[a], starts[b], ends[b])
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ring_crossings, "_AT_ONCE", at_once)  # work in portions finds the same
        found = crossing_pairs(starts.astype(float), ends.astype(float))
    assert len(found) == len(expected)
    assert {tuple(pair) for pair in found.tolist()} == expected


def test_a_long_outline_is_tried_without_trying_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []
    original = ring_crossings._crossing
    monkeypatch.setattr(ring_crossings, "_crossing", lambda *given: tried.append(len(given[2])) or original(*given))
    angle = np.linspace(0, 2 * np.pi, 20_000, endpoint=False)
    radius = 5000 + 300 * np.sin(41 * angle)
    ring = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    assert first_crossing([[ring]]) is None
    assert sum(tried) < 4 * len(ring)  # of 200 million pairs
