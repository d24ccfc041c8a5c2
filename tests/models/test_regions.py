from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lamella.errors import ImageError
from lamella.models.regions import MODES, Region, RegionSettings, isolated, region_of_mask, regions_of

GRAY = (123, 117, 104)
SETTINGS = RegionSettings(min_px=1)


def disc(side: int = 60, x: float = 30, y: float = 25, radius: float = 10) -> np.ndarray:
    rows, columns = np.mgrid[:side, :side]
    return (columns + 0.5 - x) ** 2 + (rows + 0.5 - y) ** 2 < radius**2


def image(side: int = 60) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)


@pytest.mark.parametrize("mode", MODES)
def test_the_image_is_never_changed(mode: str) -> None:
    """Mistake of the source: the outside was whitened in place while cropping, so later regions saw white holes."""
    pixels = image()
    before = pixels.copy()
    pixels.setflags(write=False)
    shown = isolated(pixels, region_of_mask(disc()), mode, SETTINGS, GRAY)
    shown[:] = 0  # what is shown is one's own
    assert np.array_equal(pixels, before)


@settings(max_examples=60, deadline=None)
@given(mask=arrays(bool, (12, 15)).filter(lambda mask: mask.any()), mode=st.sampled_from(MODES))
def test_pixels_of_the_region_are_shown_as_they_are_in_every_mode(mask: np.ndarray, mode: str) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (12, 15, 3), dtype=np.uint8)
    region = region_of_mask(mask)
    shown = isolated(pixels, region, mode, SETTINGS, GRAY)
    height, width = region.mask_YX.shape
    margin = round(0.5 * max(height, width)) if mode in ("dim", "context") else 0
    top, left = min(region.y0, margin), min(region.x0, margin)
    inside = shown[top : top + height, left : left + width]
    original = pixels[region.y0 : region.y0 + height, region.x0 : region.x0 + width]
    assert np.array_equal(inside[region.mask_YX], original[region.mask_YX])
    outside = inside[~region.mask_YX]
    if mode == "gray":
        assert (outside == GRAY).all()
    elif mode == "dim":
        mixed = 0.3 * original[~region.mask_YX] + 0.7 * np.array(GRAY)
        assert np.abs(outside - mixed).max(initial=0) <= 0.5 + 1e-9
    else:
        assert np.array_equal(outside, original[~region.mask_YX])


def test_a_margin_is_a_share_or_micrometres_and_ends_where_the_image_ends() -> None:
    region = Region(20, 10, np.ones((8, 16), bool))
    shapes = {
        (0.5, None): (8 + 8 + 8, 16 + 8 + 8),  # half of 16 to each side
        (0.0, None): (8, 16),
        (5.0, None): (60, 60),
        (0.5, 2.0): (8 + 8, 16 + 8),  # 2 um at 0.5 um per pixel
    }
    for (margin, margin_um), shape in shapes.items():
        asked = RegionSettings(margin=margin, margin_um=margin_um)
        assert isolated(image(), region, "context", asked, GRAY, mpp=0.5).shape[:2] == shape
        assert isolated(image(), region, "crop", asked, GRAY, mpp=0.5).shape[:2] == (8, 16)
    with pytest.raises(ImageError, match="micrometres, and the image has no stated spacing"):
        isolated(image(), region, "context", RegionSettings(margin_um=2.0), GRAY)


def test_an_empty_region_and_one_outside_the_image_are_refused() -> None:
    with pytest.raises(ImageError, match="region is empty"):
        region_of_mask(np.zeros((5, 5), bool))
    with pytest.raises(ImageError, match="region is empty"):
        isolated(image(), Region(0, 0, np.zeros((3, 3), bool)), "gray", SETTINGS, GRAY)
    for x0, y0 in ((-1, 0), (0, -2), (57, 0), (0, 58)):
        with pytest.raises(ImageError, match=r"lies outside the image \(60 x 60 pixels\)"):
            isolated(image(), Region(x0, y0, np.ones((4, 4), bool)), "crop", SETTINGS, GRAY)


@settings(max_examples=60, deadline=None)
@given(channels=arrays(np.uint8, (14, 17), elements=st.sampled_from([0, 1, 2, 255])))
def test_regions_cover_their_classes_once_and_nothing_else(channels: np.ndarray) -> None:
    found, small = regions_of(channels, 3, SETTINGS)
    again = np.full(channels.shape, 255, np.uint8)
    for region in found:
        height, width = region.mask_YX.shape
        part = again[region.y0 : region.y0 + height, region.x0 : region.x0 + width]
        assert (part[region.mask_YX] == 255).all()
        part[region.mask_YX] = region.channel
        assert region.mask_YX.any(0).all() or region.mask_YX.any(1).all() or region.area_px > 1
    assert np.array_equal(again, channels)
    assert small == [0, 0, 0]


def test_pieces_that_touch_at_a_corner_are_one_and_small_ones_are_counted() -> None:
    channels = np.zeros((20, 20), np.uint8)
    channels[2:5, 2:5] = channels[5:8, 5:8] = 1  # one piece of 18 pixels, by a corner
    channels[15, 15] = 1
    found, small = regions_of(channels, 2, RegionSettings(min_px=9))
    glands = [region for region in found if region.channel == 1]
    assert [region.area_px for region in glands] == [18]
    assert small == [0, 1]
    whole, _ = regions_of(channels, 2, RegionSettings(min_px=9, pieces="whole"))
    assert [region.area_px for region in whole] == [400 - 19, 19]
