"""Masks of drawings: what is labelled, what is not, and who wins where two classes overlap."""

from __future__ import annotations

import numpy as np
import pytest
from tests.data.test_drawn import square

from lamella.data.drawn import Drawn
from lamella.data.drawn_masks import drawn_mask
from lamella.formats.label_values import NOT_LABELLED
from lamella.geometry import Box

VALUES = {"background": 0, "gland": 1, "stroma": 2}
BOX = Box(100, 200, 180, 240)


def mask_of(drawn, size=(80, 40), *, smaller_wins=False):
    return drawn_mask(drawn, BOX, size, VALUES, smaller_wins=smaller_wins)


def expected(**places):
    """(40, 80) of not labelled with rectangles of values: region=(x0, y0, x1, y1) in pixels of the image."""
    mask = np.full((40, 80), NOT_LABELLED, np.uint8)
    for name, (x0, y0, x1, y1) in places.items():
        mask[y0:y1, x0:x1] = VALUES[name.rstrip("_")]
    return mask


def test_a_region_is_background_where_no_object_is_and_the_rest_is_not_labelled():
    drawn = Drawn([square(110, 210, 20)], [("gland", (square(115, 212, 5),)), ("stroma", (square(150, 205, 10),))])
    mask, overlaps = mask_of(drawn)
    assert np.array_equal(mask, expected(background=(10, 10, 30, 30), gland=(15, 12, 20, 17), stroma=(50, 5, 60, 15)))
    assert not overlaps


def test_a_coarser_image_is_the_same_place():
    drawn = Drawn([square(100, 200, 40)], [("gland", (square(120, 220, 20),))])
    mask, _ = mask_of(drawn, (40, 20))
    assert np.array_equal(mask, expected(background=(0, 0, 40, 40), gland=(20, 20, 40, 40))[::2, ::2])


@pytest.mark.parametrize("order", [1, -1])
def test_overlaps_are_counted_and_not_labelled_or_of_the_smaller_object(order):
    large, small = ("gland", (square(110, 205, 20),)), ("stroma", (square(125, 210, 10),))
    drawn = Drawn([], [large, small][::order])
    mask, overlaps = mask_of(drawn)
    plain = expected(gland=(10, 5, 30, 25), stroma=(25, 10, 35, 20))
    ignored = plain.copy()
    ignored[10:20, 25:30] = NOT_LABELLED
    assert np.array_equal(mask, ignored)
    assert overlaps == {("gland", "stroma"): 50}
    assert np.array_equal(mask_of(drawn, smaller_wins=True)[0], plain)


def test_the_same_class_twice_is_no_overlap():
    drawn = Drawn([], [("gland", (square(110, 205, 20),)), ("gland", (square(125, 210, 10),))])
    mask, overlaps = mask_of(drawn)
    assert np.array_equal(mask, expected(gland=(10, 5, 30, 25), gland_=(25, 10, 35, 20)))
    assert not overlaps


def test_what_is_ignored_is_ignored_in_regions_and_objects():
    drawn = Drawn([square(100, 200, 40)], [("gland", (square(110, 210, 20),))], [square(100, 200, 15)])
    mask, _ = mask_of(drawn)
    want = expected(background=(0, 0, 40, 40), gland=(10, 10, 30, 30))
    want[:15, :15] = NOT_LABELLED
    assert np.array_equal(mask, want)


def test_holes_are_not_of_the_object_and_what_lies_beside_the_image_is_cut():
    holed = (*square(110, 210, 20), *square(115, 215, 5))
    drawn = Drawn([], [("gland", (holed, square(170, 230, 100))), ("stroma", (square(500, 500),))])
    mask, _ = mask_of(drawn)
    want = expected(gland=(10, 10, 30, 30), gland_=(70, 30, 80, 40))
    want[15:20, 15:20] = NOT_LABELLED
    assert np.array_equal(mask, want)
