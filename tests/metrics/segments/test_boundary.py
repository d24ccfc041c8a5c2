from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from monai.metrics import compute_hausdorff_distance
from scipy.spatial.distance import cdist

from lamella.formats.label_values import NOT_LABELLED
from lamella.metrics.segments.boundary import F1, HD95, Outlines, edge_pixels

LABELS = arrays(np.uint8, (8, 7), elements=st.sampled_from([0, 1, 2, NOT_LABELLED]))
UM = (0.5, 2.0)


def scores(truth, predicted, tolerance_um=1.0, um=UM, classes=3):
    unknown = truth == NOT_LABELLED
    return Outlines(truth, unknown, um, classes).scores(Outlines(predicted, unknown, um, classes), tolerance_um)


def disk(y, x, radius, size=64):
    rows, columns = np.mgrid[:size, :size]
    return ((rows - y) ** 2 + (columns - x) ** 2 <= radius**2).astype(np.uint8)


def brute_edges(labels, unknown):
    edge = np.zeros(labels.shape, bool)
    for y, x in np.ndindex(labels.shape):
        for other in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            if all(0 <= place < side for place, side in zip(other, labels.shape, strict=True)):
                edge[y, x] |= not (unknown[y, x] or unknown[other]) and labels[y, x] != labels[other]
    return edge


@given(LABELS, LABELS)
def test_scores_are_those_of_every_distance_between_every_two_edge_pixels(truth, predicted):
    unknown = truth == NOT_LABELLED
    found = scores(truth, predicted)
    for number in range(3):
        own, called = (
            np.argwhere(brute_edges(labels, unknown) & (labels == number)) * UM for labels in (truth, predicted)
        )
        if not len(own) or not len(called):
            continue
        distance = cdist(own, called)
        misses, strays = distance.min(1), distance.min(0)
        recall, precision = (misses <= 1).mean(), (strays <= 1).mean()
        assert found[number, F1] == pytest.approx(2 * precision * recall / max(precision + recall, 1e-12))
        assert found[number, HD95] == pytest.approx(max(np.percentile(misses, 95), np.percentile(strays, 95)))


@given(LABELS)
def test_edges_are_between_labelled_neighbours_of_different_class(labels):
    unknown = labels == NOT_LABELLED
    np.testing.assert_array_equal(edge_pixels(labels, unknown), brute_edges(labels, unknown))


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")  # of MONAI itself
@pytest.mark.parametrize("shift", [0, 3, 9])
def test_hd95_is_that_of_monai(shift):
    truth, predicted = disk(30, 28, 13), disk(30, 28 + shift, 11)
    masks = [torch.tensor((labels == 1)[None, None].astype(np.float32)) for labels in (predicted, truth)]
    theirs = compute_hausdorff_distance(*masks, include_background=True, percentile=95, spacing=[0.5, 0.5])
    assert scores(truth, predicted, um=(0.5, 0.5))[1, HD95] == pytest.approx(float(theirs), abs=1e-5)


def test_the_tolerance_is_in_micrometres_and_closed():
    truth, predicted = np.zeros((20, 40), np.uint8), np.zeros((20, 40), np.uint8)
    truth[:, 20:], predicted[:, 23:] = 1, 1
    assert scores(truth, predicted, tolerance_um=1.5, um=(9.0, 0.5))[1, F1] == 1
    assert scores(truth, predicted, tolerance_um=1.4, um=(9.0, 0.5))[1, F1] == 0
    assert scores(truth, predicted, um=(9.0, 0.5))[1, HD95] == pytest.approx(1.5)


def test_a_side_without_outline_has_the_worst_score_there_is_and_no_hole_in_the_mean():
    truth, nothing = disk(10, 10, 4, 21), np.zeros((21, 21), np.uint8)
    diagonal = np.hypot(21 * 3, 21 * 4)
    for one, other in ((truth, nothing), (nothing, truth)):
        np.testing.assert_allclose(scores(one, other, um=(3.0, 4.0))[1], [0, diagonal])
    assert np.isnan(scores(truth, truth)[2]).all()  # in neither


def test_all_of_one_class_on_both_sides_is_right():
    full = np.ones((5, 5), np.uint8)
    np.testing.assert_allclose(scores(full, full)[1], [1, 0])
    holed = full.copy()
    holed[2, 2] = 0
    assert scores(full, holed)[1, F1] == 0


def test_the_edge_of_the_image_and_of_what_is_not_labelled_is_no_outline():
    labels = np.ones((6, 6), np.uint8)
    labels[:, 4:] = NOT_LABELLED
    assert not edge_pixels(labels, labels == NOT_LABELLED).any()


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match="the labels are"):
        Outlines(np.zeros((3, 3), np.uint8), np.zeros((3, 4), bool), UM, 2)
