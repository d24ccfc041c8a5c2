from __future__ import annotations

import numpy as np
import pytest

from lamella.metrics.dice import dice, mean_dice, overlaps, pooled_dice


def test_dice_of_known_overlaps() -> None:
    truth = np.array([[1, 1, 0], [2, 0, 0]])
    predicted = np.array([[1, 0, 0], [2, 2, 0]])
    counts = overlaps(truth, predicted, 2)
    assert counts.tolist() == [[1, 2, 1], [1, 1, 2]]
    assert dice(counts) == pytest.approx([2 / 3, 2 / 3])


def test_empty_against_empty_is_undefined_and_left_out_of_the_mean_not_counted_as_one() -> None:
    empty, half = np.zeros((2, 2), int), np.array([[1, 1], [0, 0]])
    counts = np.stack([overlaps(empty, empty, 1), overlaps(half, np.array([[1, 0], [0, 0]]), 1)])
    assert np.isnan(dice(counts[0, 0]))
    ones = np.ones((1, 2))
    assert mean_dice(counts, 0)(ones) == pytest.approx([2 / 3])
    assert pooled_dice(counts, 0)(ones) == pytest.approx([2 / 3])
    assert np.isnan(mean_dice(counts[:1], 0)(ones[:, :1])).all()


def test_something_predicted_where_nothing_is_costs_everything() -> None:
    counts = overlaps(np.zeros(4, int), np.array([1, 0, 0, 0]), 1)
    assert dice(counts) == pytest.approx([0.0])


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="the truth is"):
        overlaps(np.zeros((2, 2), int), np.zeros((2, 3), int), 1)


def test_ignored_pixels_count_nothing_whatever_is_predicted_there() -> None:
    truth = np.array([[1, 2, 0, 255, 255]])
    assert overlaps(truth, np.array([[1, 2, 1, 1, 0]]), 2).tolist() == [[1, 1, 2], [1, 1, 1]]
    # Were they background, the fourth pixel would be a false alarm of class 1.
    assert overlaps(truth[:, :3], np.array([[1, 2, 1]]), 2).tolist() == [[1, 1, 2], [1, 1, 1]]
