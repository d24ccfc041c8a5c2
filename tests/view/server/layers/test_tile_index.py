"""The box under each pixel, against the plain rule."""

from __future__ import annotations

import numpy as np
import pytest

from lamella.geometry import Box
from lamella.view.server.layers.tile_index import index_under


def plainly(bounds: np.ndarray, box: Box, width: int, height: int, disks: bool) -> np.ndarray:
    """The last box that covers each pixel's centre, one by one."""
    out = np.full((height, width), -1)
    x = box.x0 + (np.arange(width) + 0.5) * box.width / width
    y = box.y0 + (np.arange(height)[:, None] + 0.5) * box.height / height
    for number, (x0, y0, x1, y1) in enumerate(bounds):
        inside = (x >= x0) & (x < x1) & (y >= y0) & (y < y1)
        if disks:
            inside &= ((2 * x - x0 - x1) / (x1 - x0)) ** 2 + ((2 * y - y0 - y1) / (y1 - y0)) ** 2 <= 1
        out[inside] = number
    return out


@pytest.mark.parametrize("disks", [False, True])
@pytest.mark.parametrize("down", [0.5, 1, 3])
def test_each_pixel_shows_the_last_box_over_its_centre(disks, down):
    rng = np.random.default_rng(0)
    corners = rng.uniform(-40, 200, (60, 2))
    bounds = np.concatenate([corners, corners + rng.uniform(12 * down, 50, (60, 2))], axis=1)
    box = Box(10, 20, 10 + 64 * down, 20 + 48 * down)
    assert np.array_equal(index_under(bounds, box, 64, 48, disks=disks), plainly(bounds, box, 64, 48, disks))


def test_boxes_smaller_than_a_pixel_stay_visible_but_cover_no_other():
    large, speck, beside = [0, 0, 16, 16], [17.0, 3.0, 17.5, 3.5], [9.0, 9.0, 9.4, 9.4]
    found = index_under(np.array([large, speck, beside]), Box(0, 0, 32, 32), 8, 8)
    assert found[0, 4] == 1  # a speck takes the pixel that it lies in
    assert (found[:4, :4] == 0).all()  # but not one that something larger covers
    assert (found == -1).sum() == 64 - 17


def test_no_box_near_is_none():
    assert index_under(np.array([[0.0, 0, 5, 5]]), Box(10, 10, 20, 20), 10, 10) is None
    assert index_under(np.zeros((0, 4)), Box(0, 0, 20, 20), 10, 10) is None


def test_many_boxes_over_each_other_are_painted_in_parts(monkeypatch):
    monkeypatch.setattr("lamella.view.server.layers.tile_index._AT_ONCE", 500)
    bounds = np.array([[shift, 0, shift + 20.0, 30] for shift in range(30)])
    box = Box(0, 0, 32, 32)
    assert np.array_equal(index_under(bounds, box, 32, 32), plainly(bounds, box, 32, 32, False))
