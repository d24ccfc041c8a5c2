"""The grid of tiles: no gap, no overlap, and the same as OpenSlide's Deep Zoom generator makes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openslide.deepzoom import DeepZoomGenerator

from lamella.geometry import Frame
from lamella.slides.slide import open_slide
from lamella.view.server.pyramid import Pyramid

SIDES = st.integers(1, 1200)


class OneLevel:
    """What DeepZoomGenerator asks of an open slide before it reads."""

    properties = {}  # noqa: RUF012

    def __init__(self, width, height):
        self.dimensions, self.level_dimensions, self.level_downsamples = (width, height), ((width, height),), (1.0,)

    def get_best_level_for_downsample(self, downsample):
        return 0


@settings(max_examples=25, deadline=None)
@given(SIDES, SIDES, st.sampled_from([100, 256]))
def test_the_tiles_of_each_level_cover_the_slide_once(width, height, tile_px):
    pyramid = Pyramid(width, height, tile_px)
    for level in range(pyramid.max_level + 1):
        down = pyramid.downsample(level)
        columns, rows = pyramid.tiles(level)
        seen = np.zeros((-(-height // down), -(-width // down)), int)
        for row in range(rows):
            for column in range(columns):
                box, width_px, height_px = pyramid.tile(level, column, row)
                assert (box.width, box.height) == (width_px * down, height_px * down)
                x, y = int(box.x0 / down), int(box.y0 / down)
                seen[y : y + height_px, x : x + width_px] += 1
        assert (seen == 1).all()
        assert seen.shape[1] * down < width + down  # the last pixel lies on the slide, in part at least
        assert seen.shape[0] * down < height + down


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 300_000), st.integers(1, 300_000))
def test_levels_and_sizes_are_openslides(width, height):
    theirs = DeepZoomGenerator(OneLevel(width, height), 256, 0)
    ours = Pyramid.over(Frame(width, height, 0.5, 0.25))
    assert ours.max_level + 1 == theirs.level_count
    for level in range(theirs.level_count):
        assert ours.tiles(level) == theirs.level_tiles[level]
        columns, rows = theirs.level_tiles[level]
        for place in {(0, 0), (columns - 1, rows - 1), (columns // 2, rows - 1)}:
            box, *size_px = ours.tile(level, *place)
            assert tuple(size_px) == theirs.get_tile_dimensions(level, place)
            assert (box.x0, box.y0) == theirs.get_tile_coordinates(level, place)[0]


@pytest.mark.parametrize("place", [(-1, 0, 0), (12, 0, 0), (11, 6, 0), (11, 0, 4), (11, -1, 0), (0, 1, 0)])
def test_a_tile_that_is_not_there_is_said(place):
    with pytest.raises(IndexError):
        Pyramid(1536, 1024).tile(*place)


@pytest.mark.parametrize(("stored", "side"), [((240, 240), 240), ((512, 512), 512), ((64, 64), 256), ((256, 16), 256)])
def test_a_slides_own_tiles_are_those_of_the_page_if_their_size_suits_one(make_slide, stored, side):
    path = make_slide(tile_px=stored[0], compression="jpeg") if stored[0] == stored[1] else make_slide()
    with open_slide(path) as slide:
        if stored[0] != stored[1]:
            slide.reader.tile_size = lambda level: stored
        assert Pyramid.of(slide).tile_px == side
