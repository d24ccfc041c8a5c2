from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from monai.metrics import compute_dice, compute_iou
from sklearn.metrics import confusion_matrix

from lamella.formats.label_values import NOT_LABELLED
from lamella.metrics.segments.confusion import (
    _BLOCK_PX,
    any_tissue_dice,
    class_counts,
    confusion_of,
    dice_per_class,
    iou_per_class,
    mean_of_present,
    present,
)

C = 4
LABELS = arrays(np.uint8, (7, 9), elements=st.sampled_from([*range(C), NOT_LABELLED]))


def one_hot(labels: np.ndarray, where: np.ndarray) -> torch.Tensor:
    """(1, C, Y, X) of the pixels that count."""
    return torch.tensor(np.stack([(labels == number) & where for number in range(C)])[None].astype(np.float32))


@given(LABELS, LABELS)
def test_the_matrix_is_that_of_scikit_learn_and_dice_and_iou_those_of_monai(truth, predicted):
    matrix = confusion_of(truth, predicted, C)
    judged = truth != NOT_LABELLED
    reference = np.zeros((NOT_LABELLED + 1, NOT_LABELLED + 1), np.int64)
    if judged.any():
        reference = confusion_matrix(truth[judged], predicted[judged], labels=np.arange(NOT_LABELLED + 1))
    np.testing.assert_array_equal(matrix[:, :C], reference[:C, :C])
    np.testing.assert_array_equal(matrix[:, C], reference[:C, NOT_LABELLED])
    called, own = one_hot(predicted, judged), one_hot(truth, judged)
    theirs = compute_dice(called, own, include_background=True, ignore_empty=False)[0].numpy()
    iou = compute_iou(called, own, include_background=True, ignore_empty=False)[0].numpy()
    there = class_counts(matrix)[:, 1:].sum(1) > 0
    np.testing.assert_allclose(dice_per_class(matrix)[there], theirs[there], rtol=1e-6)
    np.testing.assert_allclose(iou_per_class(matrix)[there], iou[there], rtol=1e-6)
    assert np.isnan(dice_per_class(matrix)[~there]).all()
    assert np.isnan(iou_per_class(matrix)[~there]).all()


def test_a_missed_class_counts_zero_and_one_in_neither_is_left_out():
    truth = np.array([0, 0, 1, 1], np.uint8)
    matrix = confusion_of(truth, np.zeros(4, np.uint8), C)
    np.testing.assert_allclose(dice_per_class(matrix), [2 * 2 / 6, 0.0, np.nan, np.nan])
    assert mean_of_present(dice_per_class(matrix)) == pytest.approx((2 / 3 + 0) / 2)
    assert present(dice_per_class(matrix)) == 2
    # The background is no tissue: only class 1 is left, and it was missed.
    assert mean_of_present(dice_per_class(matrix), background=0) == 0
    assert present(dice_per_class(matrix), background=0) == 1


def test_ignored_pixels_change_nothing():
    """Mistake of the source: the ignored area counted as background."""
    truth, predicted = np.array([0, 1, 1], np.uint8), np.array([0, 1, 0], np.uint8)
    wider = (
        np.append(truth, np.full(5, NOT_LABELLED, np.uint8)),
        np.append(predicted, np.arange(5) % C).astype(np.uint8),
    )
    np.testing.assert_array_equal(confusion_of(truth, predicted, C), confusion_of(*wider, C))


def test_a_pixel_that_was_not_looked_at_is_missed_and_is_no_false_alarm():
    matrix = confusion_of(np.array([1, 1], np.uint8), np.array([1, NOT_LABELLED], np.uint8), 2)
    assert dice_per_class(matrix)[1] == pytest.approx(2 * 1 / (2 + 1))


def test_any_tissue_is_perfect_where_every_class_is_wrong():
    """Lesson of the source: "any tissue?" said 0.82 while the true per-class Dice was 0.42."""
    truth, predicted = np.array([0, 1, 2, 3], np.uint8), np.array([0, 2, 3, 1], np.uint8)
    matrix = confusion_of(truth, predicted, C)
    assert any_tissue_dice(matrix, background=0) == 1
    assert mean_of_present(dice_per_class(matrix), background=0) == 0


@given(LABELS, LABELS)
def test_any_tissue_is_the_dice_of_the_union(truth, predicted):
    judged = truth != NOT_LABELLED
    own, called = judged & (truth != 0), judged & (predicted != 0) & (predicted != NOT_LABELLED)
    size = own.sum() + called.sum()
    expected = 2 * (own & called).sum() / size if size else np.nan
    np.testing.assert_allclose(any_tissue_dice(confusion_of(truth, predicted, C), 0), expected)


@pytest.mark.parametrize(
    ("truth", "predicted", "said"),
    [
        ([0, 4], [0, 0], r"the truth holds \[4\]"),
        ([0, 1], [0, 254], r"the prediction holds \[254\]"),
        ([0, -1], [0, 0], "whole numbers"),
        ([0, 256], [0, 0], "whole numbers"),
        ([0.0, 0.5], [0, 0], "whole numbers"),
        ([0, 1, 2], [0, 0], "the truth is"),
    ],
)
def test_what_is_no_channel_is_refused_and_never_wraps_round(truth, predicted, said):
    """Mistake of the source: class ids that drifted between scripts."""
    with pytest.raises(ValueError, match=said):
        confusion_of(np.array(truth), np.array(predicted), C)


def test_blocks_do_not_matter():
    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(0, C, (2, _BLOCK_PX + 17)).astype(np.uint8)
    whole = confusion_of(truth, predicted, C)
    parts = sum(confusion_of(truth[at : at + 1000], predicted[at : at + 1000], C) for at in range(0, len(truth), 1000))
    np.testing.assert_array_equal(whole, parts)
    assert whole.sum() == len(truth)
