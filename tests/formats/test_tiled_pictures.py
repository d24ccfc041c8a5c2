"""Pictures of tiles lie over their labels: an analytic image, a mirrored and turned chip, all scales."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lamella.errors import ImageError
from lamella.formats.tiled_labels import Tile
from lamella.formats.tiled_pictures import (
    picture_places,
    picture_scales,
    read_tile_picture,
    tile_centre,
    write_tile_pictures,
)
from lamella.geometry import BinGrid

WIDTH_PX, HEIGHT_PX, MPP = 2000, 1600, 0.5


def chip(turn_deg: float, mirrored: bool) -> BinGrid:
    turn, step = math.radians(turn_deg), 2 / MPP
    col = (math.cos(turn) * step, math.sin(turn) * step)
    sign = -1 if mirrored else 1
    return BinGrid((900.0, 700.0), (-math.sin(turn) * step * sign, math.cos(turn) * step * sign), col, 2.0)


def ramp(x: np.ndarray, y: np.ndarray, _: float) -> tuple[np.ndarray, np.ndarray]:
    """An image whose colour says where one is: red grows with x, green with y."""
    seen = (x >= 0) & (x < WIDTH_PX) & (y >= 0) & (y < HEIGHT_PX)
    red, green = x / WIDTH_PX * 255, y / HEIGHT_PX * 255
    return np.clip(np.rint(np.stack([red, green, 0 * x], -1)), 0, 255).astype(np.uint8), seen


@settings(max_examples=40, deadline=None)
@given(
    turn=st.floats(-30, 30),
    mirrored=st.booleans(),
    scale=st.sampled_from([2.0, 8.0, 32.0]),
    pixels=st.integers(2, 9),
    centre=st.tuples(st.floats(-50, 50), st.floats(-50, 50)),
)
def test_pixels_of_every_scale_lie_where_bins_of_that_number_would(
    turn: float, mirrored: bool, scale: float, pixels: int, centre: tuple[float, float]
) -> None:
    """The place of pixel (i, j) is that of the bin (i - middle) * scale / 2 um away, by the lattice's own formula."""
    grid = chip(turn, mirrored)
    x, y = picture_places(grid, centre, scale, pixels)
    row, col = grid.bin_at(x, y)
    steps = (np.arange(pixels) - (pixels - 1) / 2) * scale / 2
    assert np.allclose(row, centre[0] + steps[:, None], atol=1e-6)  # rows down, columns right: never swapped
    assert np.allclose(col, centre[1] + steps[None, :], atol=1e-6)
    assert np.allclose([x.mean(), y.mean()], grid.place_px0(*centre), atol=1e-6)


def test_labels_and_pictures_of_all_scales_show_the_same_place(tmp_path: Path) -> None:
    """Of an image that is a function of x and y, to within half a bin at every scale."""
    grid, tile = chip(1.1, True), Tile("patch_002_003", 2, 3)
    write_tile_pictures(tmp_path, [tile], grid, ramp, tile_bins=16, scales_um=(2, 8), pixels=16)
    centre = grid.place_px0(*tile_centre(tile, 16))
    for scale in (2.0, 8.0):
        pixels = read_tile_picture(tmp_path, scale, tile).pixels.astype(float)
        middle = pixels[7:9, 7:9].mean((0, 1))
        found = middle[0] * WIDTH_PX / 255, middle[1] * HEIGHT_PX / 255
        rounding_px = WIDTH_PX / 255 / 2  # of one grey value
        assert np.hypot(found[0] - centre[0], found[1] - centre[1]) < 2 / MPP / 2 + rounding_px
    fine = read_tile_picture(tmp_path, 2.0, tile).pixels.astype(float)
    row, col = np.indices((16, 16))
    x, y = grid.place_px0(row + tile.row * 16, col + tile.col * 16)
    assert np.array_equal(fine, ramp(x, y, 2.0)[0])  # at the bins' own scale pixel (i, j) is bin (i, j)


def test_pictures_over_the_border_are_padded_and_flagged(tmp_path: Path) -> None:
    """mistake: clipped border patches stretched."""
    grid = BinGrid.upright(2.0, MPP, MPP)
    tiles = [Tile("patch_000_000", 0, 0), Tile("patch_005_005", 5, 5)]
    write_tile_pictures(tmp_path, tiles, grid, ramp, tile_bins=16, scales_um=(2, 8), pixels=16)
    inside, over = (read_tile_picture(tmp_path, 8.0, tile) for tile in reversed(tiles))
    assert inside.seen == 1.0
    # The first tile's middle is 16 um from both borders: pixels beyond 2 of 16 lie outside.
    assert (over.pixels[:6] == 255).all()
    assert (over.pixels[:, :6] == 255).all()
    assert np.array_equal(over.pixels[6, 6], ramp(np.array(8.0), np.array(8.0), 8.0)[0])
    assert over.seen == pytest.approx((10 / 16) ** 2, abs=1e-4)
    assert list(picture_scales(tmp_path)) == [2.0, 8.0]


def test_pictures_of_others_and_damaged_ones(tmp_path: Path) -> None:
    tile = Tile("patch_000_000", 0, 0)
    with pytest.raises(ImageError, match="no folder such as scale_2um"):
        picture_scales(tmp_path)
    folder = tmp_path / "scale_32um"
    folder.mkdir()
    with pytest.raises(ImageError, match="does not exist"):
        read_tile_picture(tmp_path, 32, tile)
    path = folder / "patch_000_000.png"
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(path)
    read = read_tile_picture(tmp_path, 32, tile)
    assert read.seen is None
    assert read.pixels.shape == (4, 4, 3)
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(path)
    with pytest.raises(ImageError, match="not RGB"):
        read_tile_picture(tmp_path, 32, tile)
    path.write_bytes(path.read_bytes()[:30])
    with pytest.raises(ImageError, match="cannot be read"):
        read_tile_picture(tmp_path, 32, tile)
