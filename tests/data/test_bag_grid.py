"""Tiles that cover all of a region: none reaches over its edge, none of it is left out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamella.data.bag_grid import everywhere_corners
from lamella.errors import DatasetError
from lamella.geometry import Frame


@given(
    side_px0=st.integers(2, 40),
    width=st.integers(1, 150),
    height=st.integers(1, 150),
    overlap=st.sampled_from([0.0, 0.25, 0.5]),
    mpp=st.sampled_from([0.25, 0.5, 0.62]),
)
@settings(max_examples=150, deadline=None)
def test_a_region_is_covered_and_nothing_else(
    side_px0: int, width: int, height: int, overlap: float, mpp: float
) -> None:
    """At the slide's own spacing, so that a tile is whole level-0 pixels."""
    frame = Frame(width, height, mpp, mpp)
    if min(width, height) < side_px0:
        with pytest.raises(DatasetError, match="smaller than a tile"):
            everywhere_corners("a", frame, mpp, side_px0, overlap)
        return
    corners = everywhere_corners("a", frame, mpp, side_px0, overlap)
    assert (corners == np.floor(corners)).all()
    assert len({tuple(corner) for corner in corners.tolist()}) == len(corners)
    covered = np.zeros((height, width), bool)
    for x, y in corners.astype(int).tolist():
        assert 0 <= x <= width - side_px0
        assert 0 <= y <= height - side_px0
        covered[y : y + side_px0, x : x + side_px0] = True
    assert covered.all()
    for starts in (np.unique(corners[:, 0]), np.unique(corners[:, 1])):
        # One more: corners are whole pixels, and evenly spread ones are rounded down one by one.
        assert (np.diff(starts) <= side_px0 * (1 - overlap) + 1).all()


def test_tiles_of_an_even_region_stand_side_by_side() -> None:
    corners = everywhere_corners("a", Frame(96, 64, 0.5, 0.5), 0.5, 32, 0)
    assert corners.tolist() == [[x, y] for y in (0, 32) for x in (0, 32, 64)]
    assert len(everywhere_corners("a", Frame(96, 64, 0.5, 0.5), 0.5, 32, 0.5)) == 5 * 3


def test_tiles_have_their_size_in_micrometres() -> None:
    """At half the spacing a tile of 16 pixels is 32 pixels of level 0; the axes may differ."""
    assert everywhere_corners("a", Frame(64, 32, 0.25, 0.5), 0.5, 16, 0).tolist() == [
        [0, 0],
        [32, 0],
        [0, 16],
        [32, 16],
    ]
