"""Gates, and which pixels lie in tiles: against counting pixel by pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lamella.data.bags import Bag, WeakStudy
from lamella.formats.label_values import NOT_LABELLED
from lamella.geometry import Frame
from lamella.verbs.weak_stages.evaluation_gates import Gate, gated, labels_of
from lamella.verbs.weak_stages.evaluation_judged import Judged, raster_of
from lamella.verbs.weak_stages.evaluation_maps import stretched
from lamella.verbs.weak_stages.evaluation_settings import EvaluationSettings

SHARES = st.floats(0, 1, width=32)


@st.composite
def maps_and_gates(draw, background: bool):
    classes, height, width = draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(st.integers(1, 4))
    maps = draw(arrays(np.float32, (classes + background, height, width), elements=SHARES))
    present = draw(arrays(bool, (classes, *draw(st.sampled_from([(1, 1), (height, width)])))))
    return maps, present


@settings(max_examples=60, deadline=None)
@given(maps_and_gates(background=True))
def test_a_gate_takes_out_absent_classes_and_never_the_background(drawn):
    maps, present = drawn
    found = gated(maps, present)
    looked, classes = maps.any(0), len(present)
    assert np.allclose(found.sum(0)[looked], 1, atol=1e-5)
    assert not found[:, ~looked].any()  # where nobody looked stays so
    whole = np.broadcast_to(present, maps[:classes].shape)
    assert not found[:classes][~whole].any()
    labels = labels_of(found)
    assert (labels[looked & ~whole.any(0)] == classes).all()
    assert (labels[~looked] == NOT_LABELLED).all()
    # Among what is left the order is as it was.
    kept = np.concatenate([np.where(whole, maps[:classes], -1), maps[classes:]])
    clear = looked & (kept.max(0) > 0) & ((kept == kept.max(0)).sum(0) == 1) & (kept.max(0) > 1e-6)
    assert (labels[clear] == kept.argmax(0)[clear]).all()


@settings(max_examples=40, deadline=None)
@given(maps_and_gates(background=False))
def test_without_a_background_a_gate_that_leaves_nothing_says_nothing(drawn):
    maps, present = drawn
    found, whole = gated(maps, present), np.broadcast_to(present, maps.shape)
    nothing = maps.any(0) & ~np.where(whole, maps, 0).any(0)
    assert (labels_of(found)[nothing] == labels_of(maps)[nothing]).all()


def judged_of(corners_px0: np.ndarray, size: tuple[int, int], mpp0: float, mpp: float, tile_px: int) -> Judged:
    frame = Frame(size[1], size[0], mpp0, mpp0)
    bag = Bag("a", Path("a.png"), frame, corners_px0, (1,), None, "a", "test")
    study = WeakStudy(("tumour",), "glass", (bag,), mpp, tile_px, {})
    return Judged.of(study, bag, EvaluationSettings(), inside=True)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_pixels_in_tiles_are_those_whose_centres_are(data):
    size = data.draw(st.integers(4, 40)), data.draw(st.integers(4, 40))
    mpp0, mpp = data.draw(st.sampled_from([(0.5, 0.5), (0.25, 0.5), (0.5, 0.25), (0.23, 0.5)]))
    tile_px = data.draw(st.integers(1, 12))
    side = tile_px * mpp / mpp0
    number = data.draw(st.integers(0, 4))
    corners = np.array(
        [[data.draw(st.floats(0, max(0, axis - side))) for axis in size[::-1]] for _ in range(number)]
    ).reshape(-1, 2)
    judged = judged_of(corners, size, mpp0, mpp, tile_px)
    frame = judged.frame
    y_um, x_um = ((np.arange(count) + 0.5) * mpp for count in (frame.height_px, frame.width_px))
    expected = np.zeros((frame.height_px, frame.width_px), bool)
    unsure = np.zeros_like(expected)  # centres on an edge, up to rounding
    for x, y in corners * mpp0:
        rows, columns = ((at >= low) & (at < low + tile_px * mpp) for at, low in ((y_um, y), (x_um, x)))
        expected |= rows[:, None] & columns
        for at, low, axis in ((y_um, y, 0), (x_um, x, 1)):
            edge = (np.abs(at - low) < 1e-6) | (np.abs(at - low - tile_px * mpp) < 1e-6)
            unsure |= np.expand_dims(edge, 1 - axis)
    first = data.draw(st.integers(0, frame.height_px))
    last = data.draw(st.integers(first, frame.height_px))
    assert (judged.within_tiles(first, last) == expected[first:last])[~unsure[first:last]].all()


def test_tiles_edge_to_edge_leave_no_gap_whatever_the_spacing():
    """A rounded edge is the next tile's first pixel."""
    side = 7 * 0.5 / 0.23
    corners = np.array([[x * side, y * side] for y in range(3) for x in range(3)])
    judged = judged_of(corners, (46, 46), 0.23, 0.5, 7)
    assert judged.within_tiles(0, judged.frame.height_px)[:21, :21].all()


def test_a_gate_of_tiles_is_that_of_each_pixels_tiles():
    places = np.array([[0, 0, 4, 4], [2, 2, 6, 6]])
    present = np.array([[True, False], [False, True]])
    whole = Gate(present, places).of_rows(0, 8, 8)
    for y in range(8):
        for x in range(8):
            holding = [
                row for row, (left, top, right, bottom) in enumerate(places) if left <= x < right and top <= y < bottom
            ]
            expected = present[holding].any(0) if holding else np.ones(2, bool)
            assert (whole[:, y, x] == expected).all()
    assert (Gate(present, places).of_rows(3, 7, 8) == whole[:, 3:7]).all()
    assert Gate(present[:1]).of_rows(0, 8, 8).shape == (2, 1, 1)


@pytest.mark.parametrize(
    ("mpp0", "mpp", "expected"), [(0.5, 0.5, 101), (0.25, 0.5, 50), (1.0, 0.5, 202), (0.5, 400.0, 1)]
)
def test_the_judged_raster_is_at_exactly_the_studys_spacing(mpp0, mpp, expected):
    frame = raster_of(Frame(101, 101, mpp0, mpp0), mpp)
    assert frame == Frame(expected, expected, mpp, mpp)


def test_labels_are_stretched_by_nearest_pixels():
    labels = np.array([[0, 1], [2, 3]], np.uint8)
    assert (stretched(labels, 4, 4) == labels.repeat(2, 0).repeat(2, 1)).all()
    assert (stretched(labels, 4, 4, 1, 3) == stretched(labels, 4, 4)[1:3]).all()
    assert (stretched(labels.repeat(3, 0).repeat(3, 1), 2, 2) == labels).all()
