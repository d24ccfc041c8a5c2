"""How dark the image is at places."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from tests.data.tiny_expression import MPP, counts_of, full_rc, slide_of

from lamella.data.expression_darkness import darkness, density_map

COUNTS = counts_of(np.ones((4, 1), int), full_rc(2, 2))


def density(grey: np.ndarray) -> np.ndarray:
    return -np.log10((grey.astype(float) + 1) / 256)


def grey_slide(tmp_path: Path, grey: np.ndarray) -> object:
    return slide_of(tmp_path, COUNTS, pixels=np.repeat(grey[..., None], 3, axis=2).astype(np.uint8))


def test_a_place_is_as_dark_as_the_pixels_in_it(tmp_path: Path) -> None:
    """Against the mean over the pixels of each square and disk; rows and columns are not swapped."""
    noise = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(120, 90)), 3)
    grey = np.rint(140 + 100 * noise / np.abs(noise).max())
    slide = grey_slide(tmp_path, grey)
    places = np.array([[30.5, 40.5], [60.5, 80.5], [20.5, 100.5]])
    for shape, size_um in (("bin", 5.5), ("spot", 5.5)):
        size_px = size_um / MPP
        y, x = np.mgrid[:120, :90] + 0.5
        expected = []
        for at_x, at_y in places:
            away = np.stack([np.abs(x - at_x), np.abs(y - at_y)])
            inside = away.max(axis=0) < size_px / 2 if shape == "bin" else np.hypot(*away) < size_px / 2
            expected.append(density(grey)[inside].mean())
        found = darkness(slide, places, size_um, shape)  # type: ignore[arg-type]
        # The map is read at 8 pixels across a place, and a disk's edge cuts pixels.
        assert np.ptp(expected) > 0.05
        assert found == pytest.approx(expected, abs=0.01)


def test_a_bin_of_one_pixel_is_that_pixel(tmp_path: Path) -> None:
    grey = np.random.default_rng(1).integers(0, 256, (60, 70))
    slide = grey_slide(tmp_path, grey)
    rows, columns = np.array([0, 7, 59]), np.array([69, 31, 0])
    found = darkness(slide, np.stack([columns + 0.5, rows + 0.5], axis=1), MPP, "bin")  # type: ignore[arg-type]
    assert found == pytest.approx(density(grey[rows, columns]), abs=1e-5)


def test_off_the_slide_there_is_no_stain(tmp_path: Path) -> None:
    slide = grey_slide(tmp_path, np.full((40, 40), 50))
    places = np.array([[20.0, 20.0], [500.0, 20.0]])
    assert darkness(slide, places, 4.0, "bin") == pytest.approx([density(np.array(50)), 0], abs=1e-5)  # type: ignore[arg-type]
    assert darkness(slide, places[1:], 4.0, "spot").tolist() == [0]  # type: ignore[arg-type]
    assert len(darkness(slide, np.zeros((0, 2)), 4.0, "spot")) == 0  # type: ignore[arg-type]
    made = density_map(slide, places, 4.0)  # type: ignore[arg-type]
    assert np.isnan(made.at(places)).tolist() == [False, True]
