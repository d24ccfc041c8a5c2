from __future__ import annotations

import numpy as np
import pytest

from lamella.formats.halving import majority_halved, mean_halved


@pytest.mark.parametrize(
    ("four", "expected"),
    [
        ([7, 7, 7, 7], 7),
        ([1, 2, 2, 2], 2),
        ([1, 1, 2, 3], 1),
        ([1, 2, 1, 3], 1),
        ([1, 2, 3, 1], 1),
        ([1, 2, 2, 3], 2),
        ([1, 2, 3, 2], 2),
        ([1, 2, 3, 3], 3),
        ([1, 1, 2, 2], 1),  # a tie goes to the first
        ([2, 1, 1, 2], 2),
        ([5, 6, 7, 8], 5),
        ([255, 255, 0, 1], 255),  # what was not looked at is a label like any other
    ],
)
def test_the_most_frequent_label_wins_and_none_is_averaged(four: list[int], expected: int) -> None:
    assert majority_halved(np.array(four, np.uint8).reshape(2, 2)).tolist() == [[expected]]


def test_odd_sides_count_their_last_pixels_twice() -> None:
    labels = np.array([[1, 1, 2], [1, 3, 4], [5, 6, 7]], np.uint8)
    assert majority_halved(labels).tolist() == [[1, 2], [5, 7]]
    assert mean_halved(np.array([[10, 20, 30]], np.uint8)).tolist() == [[15, 30]]


def test_means_are_rounded_half_up_and_do_not_overflow() -> None:
    values = np.array([[[0, 1], [1, 0]], [[255, 255], [255, 254]]], np.uint8)
    assert mean_halved(values).tolist() == [[[1]], [[255]]]


def test_a_value_that_is_unknown_is_left_out_of_the_mean() -> None:
    nan = np.nan
    values = np.array([[1, nan, nan, nan], [3, nan, nan, nan]], np.float16)
    halved = mean_halved(values)
    assert halved.dtype == np.float16
    assert halved[0, 0] == 2
    assert np.isnan(halved[0, 1])
