"""What empty glass looks like."""

import numpy as np
import pytest

from lamella.slides.glass import WHITE, balanced, estimate_glass, evened


def picture(glass, *, height=160, width=240, noise=1.0, seed=0):
    rng = np.random.default_rng(seed)
    return np.broadcast_to(glass, (height, width, 3)) + rng.normal(0, noise, (height, width, 3))


def texture(pixels, rows, columns, colour, seed=1):
    rng = np.random.default_rng(seed)
    pixels[rows, columns] = np.array(colour) + rng.normal(0, 12, pixels[rows, columns].shape)


def as_bytes(pixels):
    return pixels.round().clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("colour", [(244, 243, 243), (243, 230, 205), (180, 178, 182), (234, 218, 231)])
def test_glass_is_the_brightest_flat_colour(colour):
    pixels = picture(colour)
    texture(pixels, slice(20, 130), slice(40, 160), (190, 110, 160))
    pixels[140:150, 10:230] = (190, 150, 180)  # flat too, but darker
    glass = estimate_glass(as_bytes(pixels))
    np.testing.assert_allclose(glass.colour, colour, atol=1.5)
    assert glass.share == pytest.approx(1 - 110 * 120 / (160 * 240), abs=0.15)
    flat = balanced(as_bytes(pixels), glass)[:15]
    assert flat.min() > 245


def test_the_white_that_a_scanner_left_out_is_no_glass():
    pixels = picture((236, 234, 238))
    pixels[:, :200] = 255
    np.testing.assert_allclose(estimate_glass(as_bytes(pixels)).colour, (236, 234, 238), atol=1.5)
    np.testing.assert_allclose(estimate_glass(np.full((50, 50, 3), 255, np.uint8)).colour, 255)


def test_a_cut_out_without_glass_is_taken_for_one_on_white():
    pixels = np.zeros((160, 240, 3))
    texture(pixels, slice(None), slice(None), (190, 110, 160))
    glass = estimate_glass(as_bytes(pixels))
    assert (glass.colour, glass.share) == (WHITE, 0.0)
    assert evened(as_bytes(pixels), glass).tobytes() == as_bytes(pixels).tobytes()


def test_even_glass_is_left_as_it_is():
    pixels = as_bytes(picture((244, 243, 243)))
    assert evened(pixels, estimate_glass(pixels)) is pixels


@pytest.mark.parametrize(("height", "width"), [(160, 240), (163, 251), (33, 700)])
def test_haze_is_taken_off_and_tissue_stays(height, width):
    pixels = picture((244, 243, 243), height=height, width=width)
    haze = 1 - np.linspace(0, 1, width)[None, :, None] * (0.01, 0.10, 0.05)
    rows, columns = slice(height // 3, height // 2), slice(width // 4, width // 2)
    texture(pixels, rows, columns, (190, 110, 160))
    hazy = as_bytes(pixels * haze)
    seen = estimate_glass(hazy)
    result = balanced(evened(hazy, seen), seen).astype(int)
    glass = np.ones((height, width), bool)
    glass[rows, columns] = False
    spread = result.max(axis=2) - result.min(axis=2)
    assert np.quantile(spread[glass], 0.99) < 8  # the haze was 22
    expected = np.array((190, 110, 160)) * 255 / (244, 243, 243)
    assert np.abs(result[rows, columns].mean(axis=(0, 1)) - expected).max() < 6


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 300), (300, 1), (31, 31), (32, 32)])
def test_pictures_of_any_size(height, width):
    pixels = as_bytes(picture((240, 238, 239), height=height, width=width))
    glass = estimate_glass(pixels)
    assert evened(pixels, glass).shape == balanced(pixels, glass).shape == (height, width, 3)
