"""Directions, aspect and lengths of the planes of a volume; frames of a video."""

from __future__ import annotations

import numpy as np
import pytest

from lamella.view.layers import Layer, classes, even_shares, heat, painted, solid
from lamella.view.planes import common_scale, drawn, fullest, grey_bytes, image_cut, video_cuts, volume_cuts

SHAPE, SPACING = (6, 10, 8), (4.0, 1.0, 2.0)  # z, y, x


def corner(z: int, y: int, x: int) -> np.ndarray:
    """A volume that is bright towards one corner: 0 is the low end of an axis, 1 the high one."""
    grid = np.meshgrid(*(np.linspace(0, 1, side) for side in SHAPE), indexing="ij")
    return sum(part if high else 1 - part for part, high in zip(grid, (z, y, x), strict=True))


def brightest_corner(pixels: np.ndarray) -> tuple[str, str]:
    grey = pixels[..., 0].astype(int)
    rows, columns = grey.mean(axis=1), grey.mean(axis=0)
    return ("top" if rows[0] > rows[-1] else "bottom"), ("left" if columns[0] > columns[-1] else "right")


def test_planes_are_the_radiologist_s() -> None:
    head_front_right = volume_cuts(corner(1, 1, 1), SPACING)
    axial, coronal, sagittal = (brightest_corner(cut.pixels) for cut in head_front_right)
    assert axial == ("top", "left")  # front is up, the patient's right on the left
    assert coronal == ("top", "left")  # head is up
    assert sagittal == ("top", "left")  # front on the left
    feet_back_left = volume_cuts(corner(0, 0, 0), SPACING)
    assert {brightest_corner(cut.pixels) for cut in feet_back_left} == {("bottom", "right")}
    assert [cut.edges for cut in head_front_right] == [
        ("R", "L", "A", "P"),
        ("R", "L", "S", "I"),
        ("A", "P", "S", "I"),
    ]


def test_planes_have_the_true_shape_at_one_scale() -> None:
    cuts = volume_cuts(corner(1, 1, 1), SPACING)
    scale = common_scale(cuts, 240)  # the largest side: 24 mm
    assert [drawn(cut, scale).size for cut in cuts] == [(160, 100), (160, 240), (100, 240)]
    unknown = volume_cuts(corner(1, 1, 1), None)
    assert [drawn(cut, common_scale(unknown, 100)).size for cut in unknown] == [(80, 100), (80, 60), (100, 60)]


def test_scale_bar_is_drawn_only_where_lengths_are_known() -> None:
    known, unknown = volume_cuts(corner(1, 1, 1), (1.0,) * 3)[0], volume_cuts(corner(1, 1, 1), None)[0]
    scaled, plain = drawn(known, common_scale([known], 240)), drawn(unknown, common_scale([unknown], 240))
    assert scaled.size == plain.size
    assert np.any(np.asarray(scaled) != np.asarray(plain))
    np.testing.assert_array_equal(np.asarray(drawn(known, common_scale([known], 240), bar=False)), np.asarray(plain))


def test_a_layer_lies_where_its_voxels_lie() -> None:
    values = np.zeros(SHAPE)
    values[4, 2, 6] = 1.0
    grid = np.zeros((3, 5, 4))
    grid[2, 1, 3] = 1.0  # the token that holds that voxel
    for cut in volume_cuts(values, SPACING, at_zyx=(4, 2, 6)):
        voxel = np.argwhere(cut.pixels[..., 0] == 255)[0]
        token = np.argwhere(cut.of(grid) == 1)[0]
        np.testing.assert_array_equal(voxel // 2, token)
    away = volume_cuts(values, SPACING, at_zyx=(0, 9, 0))
    assert not any(cut.of(grid).any() for cut in away)


def test_planes_go_through_most_of_what_is_marked() -> None:
    marked = np.zeros(SHAPE, int)
    marked[4, 2:8, 1:5] = 2
    marked[1, 3, 3] = 1
    assert fullest(marked) == (4, 3, 3)
    assert fullest(np.zeros(SHAPE)) is None


def test_frames_are_even_in_time_and_their_layer_is_of_their_time() -> None:
    frames = np.repeat(np.arange(12, dtype=np.uint8)[:, None, None, None], 3, axis=3)
    cuts = video_cuts(frames, 3, frame_ms=50.0)
    assert [int(cut.pixels[0, 0, 0]) for cut in cuts] == [2, 6, 10]
    assert cuts[1].name == "frame 7 of 12, 0.30 s"
    tubelets = np.arange(6)[:, None, None]  # two frames each
    assert [int(cut.of(tubelets)[0, 0]) for cut in cuts] == [1, 3, 5]
    assert len(video_cuts(frames, 40)) == 12


def test_heat_is_dark_to_bright_and_shares_are_multiples_of_even() -> None:
    layer = heat(np.array([[-1.0, 0.0, 1.0, 2.0, 3.0]]), 0.0, 2.0)
    lightness = layer.colours.sum(axis=-1)[0]
    assert lightness[0] == lightness[1] < lightness[2] < lightness[3] == lightness[4]
    np.testing.assert_allclose(even_shares(np.array([[0.5, 0.25], [0.25, 0.0]])), [[2, 1], [1, 0]])


def test_painting_is_by_blocks_and_hides_as_much_as_it_says() -> None:
    pixels = np.full((4, 6, 3), 100, np.uint8)
    colours = np.zeros((2, 3, 3))
    colours[1, 2] = (1.0, 0.0, 0.0)
    opacity = np.zeros((2, 3))
    opacity[1, 2] = 0.5
    found = painted(pixels, Layer(colours, opacity))
    expected = pixels.copy()
    expected[2:, 4:] = (178, 50, 50)
    np.testing.assert_array_equal(found, expected)
    assert painted(np.full((1, 1, 3), (0, 0, 255), np.uint8), Layer(colours, 0 * opacity, grey=True)).tolist() == [
        [[85, 85, 85]]
    ]
    hidden = painted(pixels, solid(np.ones((2, 3, 3)), np.array([[True, False, False]] * 2)))
    assert hidden[0, 0].tolist() == [255] * 3
    assert hidden[0, 5].tolist() == [193] * 3  # faded by 0.6


def test_classes_get_their_colours_and_background_none() -> None:
    layer = classes(np.array([[0, 2, 7]]), {"edema": 1, "tumour": 2})
    assert (layer.opacity > 0).tolist() == [[False, True, False]]
    np.testing.assert_allclose(layer.colours[0, 1], np.array((0, 158, 115)) / 255)


def test_grey_is_of_the_bulk_of_the_values() -> None:
    values = np.linspace(0, 1, 1001)
    values[0] = 1e6
    grey = grey_bytes(values)
    assert grey[500] == pytest.approx(127, abs=3)
    assert grey_bytes(np.full(4, 3.0)).tolist() == [0] * 4


def test_an_image_is_its_own_view() -> None:
    cut = image_cut(np.zeros((10, 20, 3), np.uint8), mpp=0.5)
    grid = np.arange(6).reshape(2, 3)
    assert cut.of(grid) is grid
    assert drawn(cut, common_scale([cut], 200)).size == (200, 100)
