"""Every drawing is in an image, no image is larger than allowed, and near drawings share one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamella.data.drawn_images import image_boxes
from lamella.geometry import Box, Frame

SLIDE = Frame(4000, 3000, 0.25, 0.5)


def rectangle(x0, y0, x1, y1):
    return (np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], float),)


RECTANGLES = st.builds(
    lambda x, y, width, height: rectangle(x, y, x + width, y + height),
    st.floats(-500, 4200), st.floats(-500, 3200), st.floats(1, 3000), st.floats(1, 3000),
)  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(st.lists(RECTANGLES, max_size=6), st.sampled_from([0.0, 40.0]), st.sampled_from([0.5, 1.0]))
def test_all_that_is_drawn_is_covered_by_images_that_are_small_enough(polygons, context_um, mpp):
    boxes = image_boxes(polygons, SLIDE, mpp, context_um=context_um, most_px=512)
    covered = np.zeros((150, 200), bool)  # 20 px0 a cell; images share the cells of their edges
    for box in boxes:
        assert SLIDE.bounds_px.contains(box)
        size_um = SLIDE.box_um(box)
        assert max(size_um.width, size_um.height) <= 512 * mpp + 1.5  # edges on whole pixels
        covered[int(box.y0 // 20) : int(np.ceil(box.y1 / 20)), int(box.x0 // 20) : int(np.ceil(box.x1 / 20))] = True
    for polygon in polygons:
        (x0, y0), (x1, y1) = polygon[0].min(axis=0).clip(0), polygon[0].max(axis=0).clip(0, (4000, 3000))
        if x1 > x0 and y1 > y0:
            assert covered[int(y0 // 20) : int(np.ceil(y1 / 20)), int(x0 // 20) : int(np.ceil(x1 / 20))].all()


def test_context_counts_micrometres_and_stays_on_the_slide():
    (box,) = image_boxes([rectangle(100, 1000, 200, 1100)], SLIDE, 0.5, context_um=50, most_px=4096)
    assert box == Box(0, 900, 400, 1200)  # 50 um are 200 px0 across and 100 down


def test_near_drawings_share_an_image_and_far_ones_do_not():
    near, far = rectangle(300, 100, 350, 150), rectangle(2000, 2000, 2100, 2100)
    boxes = image_boxes([rectangle(100, 100, 200, 200), near, far], SLIDE, 0.5, context_um=20, most_px=4096)
    assert boxes == [Box(20, 60, 430, 240), Box(1920, 1960, 2180, 2140)]


@pytest.mark.parametrize("polygons", [[], [rectangle(5000, 100, 5100, 200)]])
def test_nothing_on_the_slide_is_no_image(polygons):
    assert image_boxes(polygons, SLIDE, 0.5, context_um=20, most_px=4096) == []
