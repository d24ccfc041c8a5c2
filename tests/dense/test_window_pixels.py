"""Pixels of windows over the slide's edge: what `Slide.read` gives, without reading what is not there."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

import lamella.dense.window_pixels as window_pixels
from lamella.dense.window_pixels import read_windows
from lamella.geometry import Box
from lamella.slides.slide import Slide, open_slide


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Slide:
    path = tmp_path_factory.mktemp("slide") / "slide.tif"
    pixels = np.random.default_rng(0).integers(0, 256, (90, 130, 3), dtype=np.uint8)
    tifffile.imwrite(path, pixels, photometric="rgb", tile=(32, 32))
    return open_slide(path, mpp=0.5)


@given(st.floats(-90, 140), st.floats(-90, 100), st.sampled_from([0.3, 0.5, 0.7, 2.0]))
@settings(max_examples=60, deadline=None)
def test_it_is_what_read_gives(slide: Slide, x0: float, y0: float, mpp: float) -> None:
    side_px0 = 32 * mpp / 0.5
    box = Box(x0, y0, x0 + side_px0, y0 + side_px0)
    (found,) = read_windows(slide, [box], mpp, 32, threads=1)
    expected = slide.read(box, mpp).pixels
    assert np.abs(found.astype(int) - expected.astype(int)).max() <= 1  # rounding of another first pixel


def test_windows_inside_and_over_the_edge_keep_their_order(slide: Slide) -> None:
    boxes = [Box(0, 0, 32, 32), Box(-16, 4, 16, 36), Box(40, 40, 72, 72), Box(200, 200, 232, 232)]
    found = read_windows(slide, boxes, 0.5, 32, threads=2)
    for box, pixels in zip(boxes, found, strict=True):
        np.testing.assert_array_equal(pixels, slide.read(box, 0.5).pixels)
    assert (found[3] == 255).all()


def test_far_outside_nothing_is_held(slide: Slide, monkeypatch: pytest.MonkeyPatch) -> None:
    """A window of 20,000 px a side around a slide of 130: read whole it would be 1.2 GB."""
    asked: list[Box] = []
    read = Slide.read

    def watched(self: Slide, box_px0: Box, mpp: float, **options: float) -> object:
        asked.append(box_px0)
        return read(self, box_px0, mpp, **options)

    monkeypatch.setattr(Slide, "read", watched)
    (found,) = read_windows(slide, [Box(-10_000, -10_000, 10_000, 10_000)], 50.0, 200, threads=1)
    assert len(asked) == 1
    assert asked[0].area <= 600 * 600
    assert (found != 255).any()
    assert (found[:95] == 255).all()


def test_windows_of_many_source_pixels_are_read_in_pieces(slide: Slide, monkeypatch: pytest.MonkeyPatch) -> None:
    box = Box(8, 8, 72, 72)
    expected = read_windows(slide, [box], 1.0, 32, threads=1)
    monkeypatch.setattr(window_pixels, "MAX_SOURCE_PX", 100)
    monkeypatch.setattr("lamella.slides.views.MAX_SOURCE_PX", 100)
    np.testing.assert_array_equal(read_windows(slide, [box], 1.0, 32, threads=1), expected)
