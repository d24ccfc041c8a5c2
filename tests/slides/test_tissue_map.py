"""How much of a box is tissue."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lamella.geometry import Box, Frame
from lamella.slides.tissue_map import TissueMap


def exactly(mask, frame, box):
    """Area fraction by adding up every pixel's overlap."""
    x = np.arange(mask.shape[1] + 1) * frame.mpp_x
    y = np.arange(mask.shape[0] + 1) * frame.mpp_y
    width = (np.minimum(x[1:], box[2]) - np.maximum(x[:-1], box[0])).clip(0)
    height = (np.minimum(y[1:], box[3]) - np.maximum(y[:-1], box[1])).clip(0)
    return (height[:, None] * width[None, :] * mask).sum() / ((box[2] - box[0]) * (box[3] - box[1]))


masks = hnp.arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12)))
spacings = st.floats(0.3, 20)
places = st.lists(st.tuples(*[st.floats(-40, 150)] * 2, *[st.floats(0.5, 90)] * 2), min_size=1, max_size=6)


@given(mask=masks, mpp_x=spacings, mpp_y=spacings, places=places)
@settings(max_examples=60, deadline=None)
def test_fractions_equal_the_sum_over_all_pixels(mask, mpp_x, mpp_y, places):
    frame = Frame(mask.shape[1], mask.shape[0], mpp_x, mpp_y)
    boxes = np.array([(x, y, x + width, y + height) for x, y, width, height in places])
    expected = [exactly(mask, frame, box) for box in boxes]
    tissue = TissueMap(mask, frame)
    np.testing.assert_allclose(tissue.fractions(boxes), expected, atol=1e-9)
    assert tissue.fraction(Box(*boxes[0])) == pytest.approx(expected[0], abs=1e-9)


@given(mask=masks, mpp_x=spacings, mpp_y=spacings, places=places, size=st.tuples(*[st.floats(0.5, 90)] * 2))
@settings(max_examples=60, deadline=None)
def test_the_grid_of_fractions_equals_the_boxes_one_by_one(mask, mpp_x, mpp_y, places, size):
    frame = Frame(mask.shape[1], mask.shape[0], mpp_x, mpp_y)
    x, y = (np.array([place[axis] for place in places]) for axis in (0, 1))
    found = TissueMap(mask, frame).grid_fractions(x, y, *size)
    expected = [[exactly(mask, frame, (left, top, left + size[0], top + size[1])) for left in x] for top in y]
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_a_large_full_mask_is_exactly_full():
    tissue = TissueMap(np.ones((4000, 4000), bool), Frame(4000, 4000, 8.0, 8.0))
    assert tissue.fraction(Box(31_000.3, 31_000.7, 31_900.1, 31_999.9)) == pytest.approx(1.0, abs=1e-7)
