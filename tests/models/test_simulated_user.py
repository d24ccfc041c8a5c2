from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from lamella.formats.label_values import NOT_LABELLED
from lamella.models.prompts import NOT_THIS, PADDING, THIS
from lamella.models.simulated_user import (
    BOX_NOISE,
    BOX_NOISE_PX,
    Given,
    as_prompts,
    box_of,
    centroid,
    correction,
    deepest,
    first_prompt,
    negatives,
    noisy_box,
    spread,
    true_objects,
)


@st.composite
def masks(draw: st.DrawFn) -> np.ndarray:
    """A connected mask in an image of up to 40 px: the largest part of smooth noise."""
    height, width = draw(st.integers(3, 40)), draw(st.integers(3, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    noise = ndimage.gaussian_filter(rng.normal(size=(height, width)), draw(st.sampled_from([0, 1, 3])))
    parts, _ = ndimage.label(noise >= np.quantile(noise, draw(st.sampled_from([0.3, 0.6, 0.9]))), np.ones((3, 3)))
    return parts == 1 + np.argmax(np.bincount(parts.ravel())[1:])


def at(mask: np.ndarray, point: tuple[float, float]) -> bool:
    """The pixel that a place lies in."""
    return bool(mask[int(point[1]), int(point[0])])


@given(masks(), st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_positive_clicks_are_on_the_object_and_negative_ones_are_not(mask: np.ndarray, seed: int) -> None:
    rng = np.random.default_rng(seed)
    known = np.ones_like(mask)
    assert at(mask, centroid(mask))
    assert at(mask, deepest(mask))
    assert all(at(mask, point) for point in spread(mask, 5))
    assert not any(at(mask, point) for point in negatives(mask, known, 5))
    first = first_prompt(mask, rng, box=False)
    assert first.labels == (THIS,)
    assert at(mask, first.points[0])


@given(masks(), st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_boxes_hold_the_object_and_hands_shake_only_so_far(mask: np.ndarray, seed: int) -> None:
    x0, y0, x1, y1 = box_of(mask)
    rows, columns = np.nonzero(mask)
    assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (x0, y0, x1, y1)
    n0, m0, n1, m1 = noisy_box(mask, np.random.default_rng(seed))
    off_x, off_y = (min(BOX_NOISE * side, BOX_NOISE_PX) for side in (x1 - x0, y1 - y0))
    assert max(abs(n0 - x0), abs(n1 - x1)) <= off_x
    assert max(abs(m0 - y0), abs(m1 - y1)) <= off_y
    assert 0 <= n0 < n1 <= mask.shape[1]
    assert 0 <= m0 < m1 <= mask.shape[0]


@given(masks(), masks(), st.booleans(), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_corrections_are_where_the_answer_is_wrong(
    truth: np.ndarray, other: np.ndarray, drawn: bool, seed: int
) -> None:
    height, width = (min(sides) for sides in zip(truth.shape, other.shape, strict=True))
    truth, predicted = truth[:height, :width], other[:height, :width]
    known = np.random.default_rng(seed).random((height, width)) < 0.9
    click = correction(truth, predicted, known, np.random.default_rng(seed) if drawn else None)
    wrong = (truth != predicted) & known
    assert (click is None) == (not wrong.any())
    if click is not None:
        x, y, label = click
        assert at(wrong, (x, y))
        assert label == (THIS if at(truth, (x, y)) else NOT_THIS)
        again = correction(truth, predicted, known, np.random.default_rng(seed) if drawn else None)
        assert again == click  # a pure function of the masks, or of the masks and the draw


def test_the_correction_is_in_the_depth_of_the_largest_wrong_region() -> None:
    truth, predicted = np.zeros((20, 30), bool), np.zeros((20, 30), bool)
    truth[2:9, 2:9] = True  # missed: 49 pixels
    predicted[12:15, 20:23] = True  # false: 9 pixels
    known = np.ones_like(truth)
    assert correction(truth, predicted, known) == (5.5, 5.5, THIS)
    predicted |= truth
    assert correction(truth, predicted, known) == (21.5, 13.5, NOT_THIS)
    assert correction(truth, truth, known) is None
    assert correction(truth, predicted, truth) is None  # the false region is where nobody knows the truth


def test_random_corrections_reach_every_wrong_pixel() -> None:
    truth, predicted = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    truth[0, :2], predicted[3, 3] = True, True
    rng = np.random.default_rng(0)
    seen = {correction(truth, predicted, np.ones_like(truth), rng) for _ in range(60)}
    assert seen == {(0.5, 0.5, THIS), (1.5, 0.5, THIS), (3.5, 3.5, NOT_THIS)}


def test_the_centroid_of_a_ring_is_moved_onto_it() -> None:
    y, x = np.ogrid[:41, :41]
    ring = (np.hypot(y - 20, x - 20) < 18) & (np.hypot(y - 20, x - 20) > 12)
    assert not ring[20, 20]
    assert at(ring, centroid(ring))
    disk = np.hypot(y - 20, x - 20) < 10
    assert centroid(disk) == deepest(disk) == (20.5, 20.5)


def test_an_object_at_the_border_is_not_clicked_at_its_cut_edge() -> None:
    mask = np.zeros((20, 20), bool)
    mask[:, :9] = True
    x, _ = deepest(mask)
    assert x == 4.5  # beyond the border nothing is: not 0.5, the far side of the cut


def test_points_are_spread_and_no_place_comes_twice() -> None:
    mask = np.zeros((12, 60), bool)
    mask[2:10, 2:58] = True
    points = spread(mask, 3)
    assert len(set(points)) == 3
    assert min(abs(one[0] - other[0]) for one in points for other in points if one != other) > 10
    assert len(spread(np.ones((1, 2), bool), 5)) == 2


def test_negatives_are_in_the_box_unless_the_object_fills_it() -> None:
    y, x = np.ogrid[:40, :40]
    disk = (y - 20) ** 2 + (x - 20) ** 2 < 100
    x0, y0, x1, y1 = box_of(disk)
    assert all(x0 <= x < x1 and y0 <= y < y1 for x, y in negatives(disk, np.ones_like(disk), 3))
    square = np.zeros((40, 40), bool)
    square[10:20, 10:20] = True
    around = negatives(square, np.ones_like(square), 3)
    assert around
    assert all(5 <= x < 25 and 5 <= y < 25 for x, y in around)
    assert negatives(np.ones((5, 5), bool), np.ones((5, 5), bool), 3) == []
    assert negatives(square, square, 3) == []  # nothing else is known


def test_objects_are_connected_parts_of_one_class() -> None:
    channels = np.zeros((10, 20), np.uint8)
    channels[1:4, 1:4] = 1
    channels[4, 4] = 1  # touches it by a corner: eight neighbours
    channels[1:4, 10:13] = 1
    channels[6:9, 10:13] = 2
    channels[9, 19] = 1
    channels[0, 15] = NOT_LABELLED
    found = true_objects(channels, background=0, min_area_px=2)
    assert [(each.channel, each.area_px, each.box) for each in found] == [
        (1, 10, (1, 1, 5, 5)),
        (1, 9, (10, 1, 13, 4)),
        (2, 9, (10, 6, 13, 9)),
    ]
    assert sum(each.mask(10, 20) for each in found).max() == 1
    assert len(true_objects(channels, background=None)) == 5  # the ground is an object where every pixel has a class


def test_prompts_are_padded_with_no_click_and_missing_boxes_are_said() -> None:
    """Mistake of the source: padding with 0, which is a negative click."""
    prompts = as_prompts([[Given(((1.5, 2.5), (3.5, 4.5)), (THIS, NOT_THIS)), Given(box=(0, 0, 4, 5))]])
    assert prompts.labels_BMP is not None
    assert prompts.boxes_BM4 is not None
    assert prompts.labels_BMP.tolist() == [[[THIS, NOT_THIS], [PADDING, PADDING]]]
    assert PADDING == -1
    assert prompts.boxes_BM4[0, 0].isnan().all()
    assert prompts.boxes_BM4[0, 1].tolist() == [0, 0, 4, 5]
    assert torch.equal(prompts.points_BMP2[0, 0], torch.tensor([[1.5, 2.5], [3.5, 4.5]]))
    with pytest.raises(ValueError, match="same number of objects"):
        as_prompts([[Given(box=(0, 0, 1, 1))], []])
    with pytest.raises(ValueError, match="nobody clicked"):
        as_prompts([[Given()]])
