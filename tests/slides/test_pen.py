"""Pen marks on a thumbnail. Whole slides with marks are in test_tissue.py."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from lamella.geometry import Frame
from lamella.slides.glass import Glass
from lamella.slides.pen import find_pen

GLASS = Glass((244.0, 243.0, 243.0), 1.0)
BLOOD = (190, 45, 75)  # takes 0.7 as much blue as green: maybe ink
RED = (205, 35, 50)


def drawn(*shapes, width=300, height=200):
    image = Image.new("RGB", (width, height), (244, 243, 243))
    draw = ImageDraw.Draw(image)
    for colour, points, width_px in shapes:
        draw.line(points, fill=colour, width=width_px)
    return np.asarray(image)


def pen(pixels, mpp=8.0):
    return find_pen(pixels, GLASS, Frame(pixels.shape[1], pixels.shape[0], mpp, mpp))


def test_a_slide_without_marks_has_none():
    assert not pen(drawn((BLOOD, ((20, 50), (280, 60)), 30))).any()


def test_blood_counts_as_ink_only_as_part_of_a_stroke_of_ink():
    stroke = drawn((BLOOD, ((20, 50), (280, 50)), 30), (RED, ((20, 50), (120, 50)), 31))
    assert pen(stroke)[40:60, 30:270].all()
    blob = drawn((BLOOD, ((100, 100), (280, 100)), 180), (RED, ((20, 20), (80, 20)), 21))
    found = pen(blob)
    assert found[12:28, 22:78].all()
    assert not found[60:150, 120:260].any()


@pytest.mark.parametrize(("side_px", "is_pen"), [(8, False), (16, True)])
def test_a_speck_of_pigment_is_no_pen(side_px, is_pen):
    pixels = drawn()
    pixels = pixels.copy()
    pixels[50 : 50 + side_px, 50 : 50 + side_px] = (30, 60, 170)
    assert pen(pixels).any() == is_pen


def test_the_pale_run_of_blue_ink_is_followed_for_a_third_of_a_millimetre_and_no_farther():
    pixels = drawn().copy()
    pixels[80:120, 50:250] = (150, 165, 215)  # as pale ink, or as unbound haematoxylin
    pixels[80:120, 30:50] = (30, 60, 170)
    found = pen(pixels)[100]
    assert found[30:85].all()
    assert not found[100:].any()  # 320 um are 40 px, and 24 um of blur


def test_black_ground_is_left_out_whole():
    pixels = drawn().copy()
    pixels[:, :60] = (6, 3, 8)
    found = pen(pixels)
    assert found[:, :62].all()
    assert not found[:, 70:].any()


def test_densities_do_not_run_over_in_black():
    pixels = np.zeros((60, 60, 3), np.uint8)
    assert pen(pixels).all()
