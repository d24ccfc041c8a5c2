"""Where tissue is found, and how much of a box is tissue."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lamella.errors import EmptyTissueError
from lamella.geometry import Box, Frame
from lamella.slides.readers.mpp import Resolution
from lamella.slides.slide import Slide
from lamella.slides.tissue import TissueMap, TissueSettings, find_tissue

GLASS, PINK, PURPLE = (244, 243, 245), (228, 170, 205), (130, 80, 150)


class ArrayReader:
    """One level in memory that remembers the largest piece asked for."""

    name = "array"

    def __init__(self, pixels):
        self.properties = {}
        self.pixels = pixels
        self.largest_px = 0

    @property
    def level_sizes(self):
        return [(self.pixels.shape[1], self.pixels.shape[0])]

    def read_level(self, level, x, y, width, height):
        self.largest_px = max(self.largest_px, width * height)
        return self.pixels[y : y + height, x : x + width]

    def close(self):
        pass


def slide_of(pixels, mpp=8.0):
    return Slide("generated", ArrayReader(pixels), Resolution(mpp, mpp, "stated"))


def canvas(height, width, colour=GLASS, noise=2, seed=0):
    rng = np.random.default_rng(seed)
    return np.clip(np.array(colour) + rng.integers(-noise, noise + 1, (height, width, 3)), 0, 255).astype(np.uint8)


def paint(pixels, rows, columns, colour, seed=1):
    pixels[rows, columns] = canvas(*pixels[rows, columns].shape[:2], colour, 6, seed)


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


def test_pale_and_dark_tissue_are_found_and_glass_is_not():
    pixels = canvas(200, 300)
    paint(pixels, slice(40, 120), slice(30, 130), PINK)
    paint(pixels, slice(60, 160), slice(180, 280), PURPLE)
    expected = np.zeros((200, 300), bool)
    expected[40:120, 30:130] = expected[60:160, 180:280] = True
    for method in ("saturation", "optical_density"):
        mask = find_tissue(slide_of(pixels), TissueSettings(method=method))
        assert (mask != expected).mean() < 0.01


def test_crumbs_are_dropped_small_holes_filled_and_large_ones_kept():
    pixels = canvas(200, 200)
    paint(pixels, slice(20, 180), slice(20, 180), PURPLE)
    paint(pixels, slice(5, 10), slice(5, 10), PURPLE)  # 40 um a side
    paint(pixels, slice(60, 66), slice(60, 66), GLASS)  # 48 um
    paint(pixels, slice(100, 140), slice(100, 140), GLASS)  # 320 um
    mask = find_tissue(slide_of(pixels), TissueSettings())
    assert not mask[5:10, 5:10].any()
    assert mask[60:66, 60:66].all()
    assert not mask[105:135, 105:135].any()


def test_tissue_reaches_the_edge_of_the_slide():
    assert find_tissue(slide_of(canvas(100, 100, PURPLE, 20)), TissueSettings()).all()


def test_black_borders_and_pen_marks_are_no_tissue():
    pixels = canvas(200, 300)
    paint(pixels, slice(40, 160), slice(100, 200), PURPLE)
    pixels[:, :40] = (3, 1, 6)
    for row, ink in ((40, (30, 140, 70)), (90, (40, 70, 190)), (140, (36, 54, 116))):
        paint(pixels, slice(row, row + 30), slice(230, 290), ink)
    mask = find_tissue(slide_of(pixels), TissueSettings())
    assert mask[60:140, 120:180].all()
    assert not mask[:, :45].any()
    assert not mask[:, 225:].any()


@pytest.mark.parametrize("colour", [GLASS, (225, 225, 225), (2, 2, 2), (240, 236, 226)])
def test_a_slide_without_tissue_is_refused(colour):
    with pytest.raises(EmptyTissueError, match="no tissue was found"):
        find_tissue(slide_of(canvas(100, 120, colour)), TissueSettings())


def test_the_thumbnail_is_read_in_pieces_that_join_without_a_seam(monkeypatch):
    rng = np.random.default_rng(4)
    pixels = canvas(1003, 1501)
    for top, left in rng.integers(0, 900, (12, 2)):
        paint(pixels, slice(top, top + 150), slice(left, left + 180), PURPLE)
    slide = slide_of(pixels, mpp=1.0)
    whole = find_tissue(slide, TissueSettings(mpp=3.0, min_object_um2=0, max_hole_um2=0))
    monkeypatch.setattr("lamella.slides.tissue._READ_PX", 100**2)
    pieces = slide_of(pixels, mpp=1.0)
    mask = find_tissue(pieces, TissueSettings(mpp=3.0, min_object_um2=0, max_hole_um2=0))
    np.testing.assert_array_equal(mask, whole)
    assert pieces.reader.largest_px <= 110**2
    assert mask.shape == (334, 500)


@given(height=st.integers(1, 60), width=st.integers(1, 60), mpp=st.floats(1.0, 7.0), piece=st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_every_size_of_slide_can_be_cut_into_pieces(height, width, mpp, piece):
    from lamella.slides import tissue

    slide = slide_of(canvas(height, width, PURPLE, 20))
    old, tissue._READ_PX = tissue._READ_PX, piece**2
    try:
        mask = find_tissue(slide, TissueSettings(mpp=mpp * 8, min_object_um2=0))
    finally:
        tissue._READ_PX = old
    assert mask.all()
