"""Polygons onto masks, masks into polygons."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from lamella.slides import polygons
from lamella.slides.polygons import fill_polygon, trace_mask

masks = hnp.arrays(bool, st.tuples(st.integers(1, 14), st.integers(1, 14)))
corners = hnp.arrays(np.float64, st.tuples(st.integers(3, 9), st.just(2)), elements=st.floats(-6, 26, width=32))


def filled(shape, *shapes):
    mask = np.zeros(shape, bool)
    for rings in shapes:
        fill_polygon(mask, [np.array(ring, float) for ring in rings])
    return mask


def winds_oddly(point, rings):
    """Even-odd by counting the edges that a ray to the right crosses, one point at a time."""
    x, y = point
    inside = False
    for ring in rings:
        for (x0, y0), (x1, y1) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
            if (y0 <= y) != (y1 <= y) and x < x0 + (y - y0) / (y1 - y0) * (x1 - x0):
                inside = not inside
    return inside


@given(mask=masks)
@settings(max_examples=100, deadline=None)
def test_the_outlines_of_a_mask_fill_to_exactly_that_mask(mask):
    pieces = list(trace_mask(mask))
    assert len(pieces) == ndimage.label(mask)[1]
    np.testing.assert_array_equal(filled(mask.shape, *pieces), mask)


@given(seed=st.integers(0, 2**32 - 1), smoothness=st.floats(0.6, 6), x_px0=st.floats(1, 40), y_px0=st.floats(1, 40))
@settings(max_examples=15, deadline=None)
def test_level_0_outlines_rounded_to_hundredths_still_fill_to_the_mask(seed, smoothness, x_px0, y_px0):
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(90, 110)), smoothness)
    mask, scale = noise > 0, np.array([x_px0, y_px0])
    written = [[np.round(ring * scale, 2) / scale for ring in rings] for rings in trace_mask(mask)]
    np.testing.assert_array_equal(filled(mask.shape, *written), mask)


def test_outlines_are_simplified_and_hold_their_holes():
    y, x = np.mgrid[:200, :200] - 99.5
    ring = (np.hypot(x, y) < 80) & (np.hypot(x, y) > 30)
    (rings,) = trace_mask(ring)
    assert len(rings) == 2
    assert [len(line) < perimeter / 2 for line, perimeter in zip(rings, (640, 240), strict=True)] == [True, True]
    for line, radius in zip(rings, (80, 30), strict=True):  # outer ring first
        np.testing.assert_allclose(np.hypot(*(line - 100).T), radius, atol=1.0)


def test_pieces_that_touch_at_a_corner_are_two_polygons():
    assert len(list(trace_mask(np.eye(2, dtype=bool)))) == 2
    assert len(list(trace_mask(~np.eye(3, dtype=bool)[:, ::-1]))) == 2


@given(rings=st.lists(corners, min_size=1, max_size=3))
@settings(max_examples=40, deadline=None)
def test_every_pixel_follows_the_even_odd_rule_at_its_centre(rings):
    expected = [[winds_oddly((x + 0.5, y + 0.5), rings) for x in range(20)] for y in range(12)]
    found = filled((12, 20), rings)
    for y, x in np.argwhere(found != expected):  # a centre on an edge, up to rounding, may go either way
        assert winds_oddly((x + 0.5 - 1e-6, y + 0.5), rings) != winds_oddly((x + 0.5 + 1e-6, y + 0.5), rings)


def test_a_square_has_its_area_and_a_hole_takes_its_own_away():
    square = [(2, 3), (12, 3), (12, 9), (2, 9)]
    assert filled((20, 20), [square]).sum() == 60
    assert filled((20, 20), [square, [(4, 5), (7, 5), (7, 8), (4, 8)]]).sum() == 51
    assert filled((20, 20), [square], [[(4, 5), (7, 5), (7, 8), (4, 8)]]).sum() == 60  # a polygon of its own: union


@given(radius=st.floats(5, 60), x=st.floats(60, 70), y=st.floats(60, 70))
@settings(max_examples=30, deadline=None)
def test_a_disc_keeps_its_area_to_a_fraction_of_its_rim(radius, x, y):
    angle = np.linspace(0, 2 * np.pi, 720, endpoint=False)
    found = filled((140, 140), [np.stack([x + radius * np.cos(angle), y + radius * np.sin(angle)], axis=1)]).sum()
    # Gauss's circle problem: the number of centres within is pi r^2 + O(r^(2/3)).
    assert found == pytest.approx(np.pi * radius**2, abs=3 * radius ** (2 / 3))


@pytest.mark.parametrize(
    "ring",
    [
        [(-9, -9), (-1, -9), (-1, -1)],
        [(25, 5), (30, 5), (30, 8)],
        [(5, 5), (5, 5), (5, 5)],
        [(0, 3.5), (20, 3.5), (10, 3.5)],
        [(0, 0), (0.4, 0), (0.4, 20), (0, 20)],
    ],
)
def test_what_holds_no_pixel_centre_fills_nothing(ring):
    assert not filled((20, 20), [ring]).any()


def test_a_polygon_that_reaches_over_all_edges_is_cut_off():
    assert filled((7, 5), [[(-1e6, -1e6), (1e6, -1e6), (1e6, 1e6), (-1e6, 1e6)]]).all()


def test_edges_are_taken_in_portions(monkeypatch):
    rng = np.random.default_rng(0)
    ring = rng.uniform(0, 50, (60, 2))
    whole = filled((50, 50), [ring])
    monkeypatch.setattr(polygons, "_CROSSINGS_AT_ONCE", 7)
    np.testing.assert_array_equal(filled((50, 50), [ring]), whole)
