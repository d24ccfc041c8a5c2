"""The canvas: nothing is squashed, shifted or exchanged on the way there and back."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from lamella.models.canvas import Canvas

SIDES = st.integers(1, 200)


@settings(deadline=None)
@given(SIDES, SIDES)
def test_the_longest_side_fills_and_the_ratio_stays(height, width):
    canvas = Canvas((height, width), 64)
    filled = canvas.filled_px
    assert max(filled) == 64
    for side, own in zip(filled, (height, width), strict=True):
        assert side == max(1, round(own * 64 / max(height, width)))


@settings(deadline=None)
@given(SIDES, SIDES, st.booleans())
def test_corners_lie_on_corners(height, width, squash):
    canvas = Canvas((height, width), 64, squash)
    corner = canvas.to_canvas(torch.tensor([float(width), float(height)]))
    torch.testing.assert_close(corner, torch.tensor(canvas.filled_px[::-1], dtype=torch.float32))
    assert canvas.to_canvas(torch.zeros(2)).tolist() == [0, 0]


def test_x_and_y_have_their_own_scale():
    """A mistake of the source: x and y scale swapped."""
    assert Canvas((20, 40), 80, squash=True).scale_xy == (2.0, 4.0)


def test_squash_fills_the_square():
    assert Canvas((20, 40), 80, squash=True).filled_px == (80, 80)
    assert Canvas((20, 40), 80).filled_px == (40, 80)


def test_below_and_right_is_filled_and_the_image_is_not_written_to():
    images = torch.rand(2, 3, 20, 40)
    before = images.clone()
    placed = Canvas((20, 40), 40).place(images, torch.tensor([7.0, 8.0, 9.0])[:, None, None])
    assert torch.equal(placed[:, :, :20], images)
    assert (placed[:, :, 20:] == torch.tensor([7.0, 8.0, 9.0])[None, :, None, None]).all()
    assert torch.equal(images, before)


@pytest.mark.parametrize("size", [8, 64, 23])
def test_a_full_canvas_comes_back_as_torch_interpolates(size):
    maps = torch.rand(2, 1, 16, 16)
    expected = F.interpolate(maps, (size, size), mode="bilinear", align_corners=False)
    torch.testing.assert_close(Canvas((size, size), 64).to_image(maps), expected)


@settings(deadline=None)
@given(st.integers(8, 90), st.integers(8, 90), st.booleans())
def test_a_plane_over_the_canvas_is_the_same_plane_over_the_image(height, width, squash):
    """What is linear in canvas places is read at exactly the places of the image's pixel centres."""
    canvas, cells = Canvas((height, width), 64, squash), 32
    centre = (torch.arange(cells, dtype=torch.float64) + 0.5) * 64 / cells
    plane = 3 * centre[None, :] + 5 * centre[:, None]
    x = (torch.arange(width) + 0.5)[None, :].expand(height, -1)
    y = (torch.arange(height) + 0.5)[:, None].expand(-1, width)
    xy = canvas.to_canvas(torch.stack([x, y], -1).double())
    inside = ((xy > centre[0]) & (xy < centre[-1])).all(-1)  # the outermost half cells are held constant
    expected = 3 * xy[..., 0] + 5 * xy[..., 1]
    torch.testing.assert_close(canvas.to_image(plane)[inside], expected[inside])


def test_the_way_back_has_gradients():
    maps = torch.rand(1, 16, 16, requires_grad=True)
    Canvas((20, 40), 64).to_image(maps).sum().backward()
    assert maps.grad is not None
    assert maps.grad[:, :6].abs().sum() > 0
    assert maps.grad[:, 12:].abs().sum() == 0  # below the image
