"""Resampling against a brute force average over exact areas."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamella.geometry import Box
from lamella.slides.resample import reach_px, resample, resample_mask


def exact_area(pixels, box, width, height):
    """Every output pixel: integral of the piecewise constant image over its rectangle, by the antiderivative."""

    def integral(values, edges):  # along axis 0
        sums = np.concatenate([np.zeros((1, *values.shape[1:])), np.cumsum(values, axis=0)])
        whole = np.floor(edges).astype(int).clip(0, len(values) - 1)
        part = (edges - whole).reshape(-1, *[1] * (values.ndim - 1))
        return sums[whole] + part * values[whole]

    rows = np.linspace(box.y0, box.y1, height + 1)
    columns = np.linspace(box.x0, box.x1, width + 1)
    by_row = np.diff(integral(pixels.astype(float), rows), axis=0)
    both = np.diff(integral(by_row.transpose(1, 0, 2), columns), axis=0).transpose(1, 0, 2)
    return both / (box.width / width * box.height / height)


@st.composite
def views(draw):
    """(pixels, box inside them, output size) that shrinks both axes, by fractional factors at fractional places."""
    height, width = draw(st.integers(8, 40)), draw(st.integers(8, 40))
    x0, y0 = draw(st.floats(0, width / 3)), draw(st.floats(0, height / 3))
    x1, y1 = draw(st.floats(x0 + width / 2, width)), draw(st.floats(y0 + height / 2, height))
    outputs = (
        draw(st.integers(1, max(1, int((x1 - x0) / 1.06)))),
        draw(st.integers(1, max(1, int((y1 - y0) / 1.06)))),
    )
    pixels = np.random.default_rng(draw(st.integers(0, 99))).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return pixels, Box(x0, y0, x1, y1), outputs


@settings(max_examples=150, deadline=None)
@given(views())
def test_shrinking_is_the_exact_area_average(view):
    pixels, box, (width, height) = view
    expected = exact_area(pixels, box, width, height)
    assert np.abs(resample(pixels, box, width, height) - expected).max() <= 0.51  # half a grey level is the rounding


@settings(max_examples=60, deadline=None)
@given(views(), st.integers(0, 255))
def test_a_constant_stays_constant_shrinking_or_growing(view, value):
    pixels, box, (width, height) = view
    flat = np.full_like(pixels, value)
    assert (resample(flat, box, width, height) == value).all()
    assert (resample(flat, box, width * 3, height * 3) == value).all()


@settings(max_examples=60, deadline=None)
@given(views())
def test_the_mean_is_kept(view):
    pixels, _, (width, height) = view
    whole = Box(0, 0, pixels.shape[1], pixels.shape[0])
    # Each output pixel is rounded by at most half a grey level, evenly in both directions.
    assert abs(resample(pixels, whole, width, height).mean() - pixels.mean()) <= 0.5


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_the_fast_path_of_whole_factors_agrees_with_the_exact_one(factor):
    pixels = np.random.default_rng(1).integers(0, 256, (48, 60, 3), dtype=np.uint8)
    box = Box(factor, 0, 48 + factor, 48)
    expected = exact_area(pixels, box, 48 // factor, 48 // factor)
    # Pillow's fixed-point division by 9 may round 0.56 down.
    assert np.abs(resample(pixels, box, 48 // factor, 48 // factor) - expected).max() <= 0.56


def test_whole_pixels_at_the_same_scale_are_copied():
    pixels = np.random.default_rng(2).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    assert (resample(pixels, Box(3, 5, 23, 25), 20, 20) == pixels[5:25, 3:23]).all()
    assert reach_px(Box(3, 5, 23, 25), 20, 20) == 0


@settings(max_examples=60, deadline=None)
@given(st.floats(0, 1), st.floats(0, 1), st.floats(0.3, 1.04))
def test_interpolation_of_a_ramp_tells_the_place(x, y, scale):
    ramp = np.zeros((40, 40, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = np.arange(40) * 6, (np.arange(40) * 6)[:, None]
    side = 20 * scale
    box = Box(5 + x, 7 + y, 5 + x + side, 7 + y + side)
    assert reach_px(box, 20, 20) == 1 or abs(scale - 1) < 1e-6  # within rounding of 1 the pixels are copied
    centres = (np.arange(20) + 0.5) * scale
    out = resample(ramp, box, 20, 20).astype(float)
    assert np.abs(out[0, :, 0] - (5 + x + centres - 0.5) * 6).max() <= 1.1
    assert np.abs(out[:, 0, 1] - (7 + y + centres - 0.5) * 6).max() <= 1.1


def test_one_axis_may_shrink_while_the_other_grows():
    ramp = np.zeros((60, 20, 3), np.uint8)
    ramp[..., 1] = (np.arange(60) * 4)[:, None]
    out = resample(ramp, Box(0, 0, 20, 60), 40, 20)
    assert out.shape == (20, 40, 3)
    assert np.abs(out[:, 0, 1] - (np.arange(20) * 12.0 + 4)).max() <= 0.51


@pytest.mark.parametrize(("box", "size"), [((0, 0, 8, 8), 8), ((0, 0, 8, 8), 4), ((0, 0, 8, 8), 16), ((0, 0, 7, 7), 3)])
def test_the_result_can_be_written_to(box, size):
    resample(np.zeros((8, 8, 3), np.uint8), Box(*box), size, size)[:] = 1  # torch.from_numpy wants writable memory


def test_a_box_that_leaves_the_image_by_a_rounding_error_is_read():
    out = resample(np.full((8, 8, 3), 9, np.uint8), Box(-1e-7, -1e-7, 8 + 1e-7, 8 + 1e-7), 20, 20)
    assert (out == 9).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 30), st.integers(1, 30), st.floats(-2, 5), st.floats(1, 40))
def test_masks_keep_their_classes(width, height, x0, side):
    mask = np.arange(24 * 24, dtype=np.int32).reshape(24, 24)
    out = resample_mask(mask, Box(x0, x0, x0 + side, x0 + side), width, height)
    centre_x = np.floor(x0 + (np.arange(width) + 0.5) * side / width).clip(0, 23)
    assert out.shape == (height, width)
    assert (out[0] % 24 == centre_x).all()
