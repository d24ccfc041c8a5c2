from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamella.dense.refining import lattice
from lamella.dense.refining.lattice import Lattice


def cloud(dimensions: int, points: int, seed: int, reach: float = 4) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=(dimensions, points)) * reach).astype(np.float32)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.integers(1, 60), st.integers(0, 1000))
def test_a_point_lies_within_its_simplex_and_is_the_mean_of_its_corners(dimensions, points, seed):
    share = Lattice.of(cloud(dimensions, points, seed)).share
    weights = share.data.reshape(points, dimensions + 1)
    assert weights.min() > -1e-5
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-5)
    corners = share.indices.reshape(points, dimensions + 1)
    assert all(len(set(row)) == dimensions + 1 for row in corners)


@pytest.mark.parametrize(("dimensions", "tolerance"), [(1, 0.04), (2, 0.04), (5, 0.13)])
def test_weighted_means_are_those_of_a_gaussian(dimensions, tolerance):
    """The lattice's kernel is near a Gaussian's (Adams and others, figure 5); what is filtered is a mean of it."""
    points = cloud(dimensions, 1500, 3, reach=1.0)
    values = np.tanh(points.sum(0)).astype(np.float32)
    made = Lattice.of(points)
    found = made.filter(values) / made.filter(np.ones_like(values))
    distance2 = ((points[:, :, None] - points[:, None]) ** 2).sum(0)
    kernel = np.exp(-0.5 * distance2)
    wanted = kernel @ values / kernel.sum(1)
    assert np.abs(found - wanted).mean() < tolerance
    assert np.corrcoef(found, wanted)[0, 1] > 0.99


def test_points_that_are_far_apart_do_not_meet():
    points = np.concatenate([cloud(3, 20, 1), cloud(3, 20, 2) + 500], axis=1)
    values = np.random.default_rng(0).random(40).astype(np.float32)
    both = Lattice.of(points).filter(values)
    alone = Lattice.of(points[:, :20]).filter(values[:20])
    np.testing.assert_allclose(both[:20], alone, rtol=1e-5)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 5), st.integers(0, 1000))
def test_a_corner_is_the_same_corner_in_whatever_set_of_points(dimensions, seed):
    """Windows of a slide: neighbouring keys are never taken for each other."""
    points = cloud(dimensions, 80, seed, reach=2)
    some = np.arange(0, 80, 2)
    whole, part = Lattice.of(points).share, Lattice.of(points[:, some]).share
    np.testing.assert_array_equal(whole.data.reshape(80, -1)[some], part.data.reshape(40, -1))
    pairs = set(zip(whole.indices.reshape(80, -1)[some].ravel().tolist(), part.indices.tolist(), strict=True))
    assert len(pairs) == len({one for one, _ in pairs}) == len({other for _, other in pairs})


def test_the_blur_gives_half_to_either_neighbour_along_each_direction_in_turn():
    """Points on a line: their corners are a row, blurred twice by (1/2, 1, 1/2), which has no second direction."""
    made = Lattice.of(np.array([[0.0, 0.3, 1.1, 2.4, 2.5]], np.float32))
    corners = made.share.shape[1]
    for one, other in made.neighbours:
        assert ((one == corners) | (other[np.minimum(one, corners - 1)] == np.arange(corners))).all()
        assert (one < corners).sum() == (other < corners).sum() == corners - 1
    ends = {frozenset(np.flatnonzero(one == corners).tolist()) for pair in made.neighbours for one in pair}
    assert len(ends) == 2
    blur = np.eye(corners)
    for one, other in made.neighbours:
        whole = np.vstack([blur, np.zeros(corners)])
        blur = blur + 0.5 * (whole[one] + whole[other])
    share = made.share.toarray()
    wanted = share @ blur @ share.T / 1.5
    found = np.stack([made.filter(column) for column in np.eye(5, dtype=np.float32)], 1)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_many_points_are_found_in_parts_and_the_same(monkeypatch):
    points = cloud(5, 500, 7)
    whole = Lattice.of(points).share
    monkeypatch.setattr(lattice, "_AT_ONCE", 64)
    parts = Lattice.of(points).share
    np.testing.assert_array_equal(whole.toarray(), parts.toarray())


def test_corners_that_cannot_be_numbered_are_refused():
    with pytest.raises(ValueError, match="reach over"):
        Lattice.of(cloud(5, 10, 0, reach=1e5))
