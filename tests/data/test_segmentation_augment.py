"""Image, masks, points and boxes stay together. Reference: where single marked pixels are found afterwards."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lamella.data.augment import Turn
from lamella.data.image_augment import PhotometricColour
from lamella.data.segmentation_augment import (
    NO_CHANGE,
    Labelled,
    SegmentationAugmentSettings,
    augmented,
    drawn_warp,
    turned,
    turned_points,
    warped,
    warped_points,
)
from lamella.models.prompts import PADDING

ALL_TURNS = [Turn(mirror, quarters) for mirror in (False, True) for quarters in range(4)]
turns = st.sampled_from(ALL_TURNS)
sides = st.integers(2, 12)


@st.composite
def labelled_images(draw):
    """An image that is rarely square, with a mask and the box of its ones."""
    height, width = draw(sides), draw(sides)
    y0, x0 = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
    y1, x1 = draw(st.integers(y0 + 1, height)), draw(st.integers(x0 + 1, width))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    mask = np.zeros((height, width), np.uint8)
    mask[y0:y1, x0:x1] = rng.random((y1 - y0, x1 - x0)) < 0.5
    mask[rng.integers(y0, y1), rng.integers(x0, x1)] = 1
    rows, columns = np.nonzero(mask)
    return Labelled(
        pixels_YXC=rng.integers(0, 256, (height, width, 3), dtype=np.uint8),
        masks=(mask,),
        points_P2=np.stack([columns, rows], 1) + 0.5,
        labels_P=np.ones(len(rows), np.int64),
        boxes_M4=box_of(mask)[None],
    )


def box_of(mask: np.ndarray) -> np.ndarray:
    rows, columns = np.nonzero(mask)
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], np.float64)


@given(labelled_images(), turns)
def test_points_inside_the_mask_stay_inside(labelled, turn):
    moved = turned(labelled, turn)
    x, y = np.floor(moved.points_P2).astype(int).T
    assert (moved.masks[0][y, x] == 1).all()
    # And they are still all of its pixels: none fell on another.
    assert len({*zip(x, y, strict=True)}) == np.count_nonzero(moved.masks[0])


@given(labelled_images(), turns)
def test_the_box_of_the_turned_mask_is_the_turned_box(labelled, turn):
    moved = turned(labelled, turn)
    np.testing.assert_array_equal(moved.boxes_M4[0], box_of(moved.masks[0]))
    assert (moved.boxes_M4[:, :2] < moved.boxes_M4[:, 2:]).all()  # corners sorted anew after a mirror


@given(labelled_images(), turns)
def test_pixels_and_masks_turn_alike(labelled, turn):
    # Mistake of the source: prompts and masks not transformed with the image.
    painted = np.repeat(labelled.masks[0][..., None], 3, axis=-1)
    moved = turned(Labelled(painted, labelled.masks), turn)
    np.testing.assert_array_equal(moved.pixels_YXC[..., 0], moved.masks[0])


def test_x_and_y_are_never_swapped_on_images_that_are_no_squares():
    # Mistake of the source: x and y scale swapped. One pixel at column 6, row 1 of an image of 3 rows, 8 columns.
    mask = np.zeros((3, 8), np.uint8)
    mask[1, 6] = 1
    start = np.array([[6.5, 1.5]])
    for turn, at in [
        (Turn(False, 0), (6.5, 1.5)),
        (Turn(True, 0), (1.5, 1.5)),
        (Turn(False, 1), (1.5, 1.5)),
        (Turn(False, 2), (1.5, 1.5)),
        (Turn(False, 3), (1.5, 6.5)),
        (Turn(True, 1), (1.5, 6.5)),
    ]:
        assert turned_points(start, turn, 3, 8).tolist() == [list(at)]
        moved = turned(Labelled(np.zeros((3, 8, 3), np.uint8), (mask,)), turn).masks[0]
        assert moved[int(at[1]), int(at[0])] == 1


def test_the_eight_turns_are_eight():
    labelled = Labelled(np.arange(12, dtype=np.uint8).reshape(2, 2, 3))
    assert len({turned(labelled, turn).pixels_YXC.tobytes() for turn in ALL_TURNS}) == 8


@given(labelled_images(), st.integers(0, 1000))
def test_padding_points_stay_padding(labelled, seed):
    # Mistake of the source: padding clicks taken as negative clicks.
    labels = labelled.labels_P.copy()
    labels[0] = PADDING
    points = labelled.points_P2.copy()
    points[0] = 0
    given_ = Labelled(labelled.pixels_YXC, labelled.masks, points, labels, labelled.boxes_M4)
    moved = augmented(given_, SegmentationAugmentSettings(elastic=1.0), np.random.default_rng(seed))
    assert moved.labels_P[0] == PADDING
    assert moved.points_P2[0].tolist() == [0, 0]
    assert np.array_equal(moved.labels_P, labels)


@given(labelled_images(), st.integers(0, 1000))
def test_nothing_is_changed_in_place(labelled, seed):
    # Mistake of the source: the image was whitened in place while it was cropped.
    before = [array.copy() for array in arrays_of(labelled)]
    for array in arrays_of(labelled):
        array.setflags(write=False)
    moved = augmented(labelled, SegmentationAugmentSettings(elastic=1.0), np.random.default_rng(seed))
    for array, copy in zip(arrays_of(labelled), before, strict=True):
        np.testing.assert_array_equal(array, copy)
    assert (moved.pixels_YXC.dtype, moved.masks[0].dtype) == (np.uint8, labelled.masks[0].dtype)


def arrays_of(labelled: Labelled) -> list[np.ndarray]:
    return [labelled.pixels_YXC, *labelled.masks, labelled.points_P2, labelled.labels_P, labelled.boxes_M4]


STILL = PhotometricColour(brightness=0, contrast=0, gamma=0, saturation=0, hue=0, blur=0)


@pytest.mark.parametrize(
    "still",
    [
        SegmentationAugmentSettings(**NO_CHANGE),
        SegmentationAugmentSettings(
            turn=False, elastic=1.0, elastic_alpha_px=0, stain_scale=0, stain_shift=0, colour=STILL
        ),
    ],
    ids=["off", "strengths-0"],
)
@given(labelled=labelled_images(), seed=st.integers(0, 1000))
def test_no_strength_is_no_change(still, labelled, seed):
    same = augmented(labelled, still, np.random.default_rng(seed))
    for array, other in zip(arrays_of(labelled), arrays_of(same), strict=True):
        np.testing.assert_array_equal(array, other)


def test_a_draw_belongs_to_its_generator():
    labelled = Labelled(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8))
    one, same, other = (
        augmented(labelled, SegmentationAugmentSettings(), np.random.default_rng(seed)).pixels_YXC for seed in (1, 1, 2)
    )
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_one_setting_does_not_change_what_another_draws():
    labelled = Labelled(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8))
    calm = {**NO_CHANGE, "turn": True}
    for seed in range(8):
        plain = augmented(labelled, SegmentationAugmentSettings(**calm), np.random.default_rng(seed))
        stained = augmented(
            labelled, SegmentationAugmentSettings(**{**calm, "stain_scale": 0.01}), np.random.default_rng(seed)
        )
        assert np.abs(plain.pixels_YXC.astype(int) - stained.pixels_YXC).max() < 10  # the same orientation


# ---- elastic --------------------------------------------------------------------------------------------------------


def smooth_warp(seed: int, size=(48, 64)) -> np.ndarray:
    return drawn_warp(size, SegmentationAugmentSettings(), np.random.default_rng(seed))


def test_a_warp_is_as_strong_as_the_settings_say():
    # Uniform noise has a deviation of 1 / sqrt(3); a Gaussian of width s over a plane divides it by 2 s sqrt(pi).
    warp = smooth_warp(0, (400, 400))
    assert warp.std() == pytest.approx(30 / np.sqrt(3) / (2 * 4 * np.sqrt(np.pi)), rel=0.05)


def test_a_warp_of_one_pixel_moves_pixels_and_mask_by_one():
    rng = np.random.default_rng(0)
    mask = rng.integers(0, 5, (6, 9)).astype(np.uint8)
    pixels = np.repeat(mask[..., None] * 40, 3, axis=-1).astype(np.uint8)
    warp = np.zeros((2, 6, 9), np.float32)
    warp[0] = 1  # content is fetched from one pixel to the right
    moved = warped(Labelled(pixels, (mask,), np.array([[4.5, 2.5]]), None, np.array([[3.0, 1.0, 6.0, 4.0]])), warp)
    np.testing.assert_array_equal(moved.masks[0][:, :-1], mask[:, 1:])
    np.testing.assert_array_equal(moved.masks[0][:, -1], mask[:, -1])  # the edge goes on
    np.testing.assert_array_equal(moved.pixels_YXC[..., 0], moved.masks[0] * 40)
    np.testing.assert_allclose(moved.points_P2, [[3.5, 2.5]], atol=1e-6)
    np.testing.assert_allclose(moved.boxes_M4, [[2, 1, 5, 4]], atol=1e-6)


@settings(max_examples=20)
@given(st.integers(0, 1000))
@example(689)  # a warp that a plain step back does not undo
def test_warped_points_are_where_the_content_went(seed):
    warp = smooth_warp(seed)
    points = np.random.default_rng(seed).uniform([10, 10], [54, 38], (20, 2))
    moved = warped_points(points, warp)
    # Put the points back: q + warp(q) must be p. The warp between pixels is read off by a plain bilinear sum.
    for (x, y), point in zip(moved, points, strict=True):
        left, top = int(np.floor(x - 0.5)), int(np.floor(y - 0.5))
        right, down = x - 0.5 - left, y - 0.5 - top
        around = warp[:, top : top + 2, left : left + 2]
        weights = np.outer([1 - down, down], [1 - right, right])
        np.testing.assert_allclose(np.array([x, y]) + (around * weights).sum((1, 2)), point, atol=0.002)


@settings(max_examples=20)
@given(st.integers(0, 1000))
def test_a_disc_and_its_centre_and_box_are_warped_together(seed):
    y, x = np.mgrid[:48, :64] + 0.5
    mask = ((x - 30) ** 2 + (y - 24) ** 2 < 100).astype(np.uint8)
    pixels = np.repeat(mask[..., None] * 200, 3, axis=-1).astype(np.uint8)
    moved = warped(Labelled(pixels, (mask,), np.array([[30.0, 24.0]]), None, box_of(mask)[None]), smooth_warp(seed))
    column, row = np.floor(moved.points_P2[0]).astype(int)
    assert moved.masks[0][row, column] == 1
    found, box = box_of(moved.masks[0]), moved.boxes_M4[0]
    assert (found[:2] >= box[:2] - 1).all()  # the warped outline holds the warped mask, within the pixel it is cut to
    assert (found[2:] <= box[2:] + 1).all()
    # Bright where the mask is: pixels and mask took the same way.
    inside = moved.pixels_YXC[..., 0] > 100
    assert (inside != (moved.masks[0] == 1)).mean() < 0.02


def test_class_numbers_are_never_mixed():
    mask = np.where(np.arange(64)[None, :] < 32, 1, 5).astype(np.uint8) * np.ones((48, 1), np.uint8)
    moved = warped(Labelled(np.zeros((48, 64, 3), np.uint8), (mask,)), smooth_warp(3))
    assert set(np.unique(moved.masks[0]).tolist()) == {1, 5}
