from __future__ import annotations

import numpy as np

from lamella.formats.label_values import NOT_LABELLED
from lamella.metrics.segments.objects import ALL, FOUND, TrueObjects, size_names


def test_recall_is_by_class_and_by_size_in_square_micrometres():
    truth = np.zeros((20, 30), np.uint8)
    truth[1:3, 1:3] = 1  # 4 px, 16 um2: found in half of its pixels
    truth[6:8, 1:3] = 1  # 4 px, found in a quarter
    truth[10:18, 10:18] = 1  # 64 px, 256 um2: found
    truth[1:5, 20:25] = 2  # 20 px, 80 um2: called another class
    truth[15:, 25:] = NOT_LABELLED
    predicted = np.zeros_like(truth)
    predicted[1, 1:3] = 1
    predicted[6, 1] = 1
    predicted[10:18, 10:18] = 1
    predicted[1:5, 20:25] = 1
    counts = TrueObjects(truth, 3, 4.0, (16.0, 80.0), background=0).found(predicted)
    assert counts[1, :, ALL].tolist() == [0, 2, 1]  # low <= area < high: 16 um2 is in the second
    assert counts[1, :, FOUND].tolist() == [0, 1, 1]
    assert counts[2, :, ALL].tolist() == [0, 0, 1]
    assert counts[2, :, FOUND].tolist() == [0, 0, 0]
    assert not counts[0].any()


def test_without_a_background_every_class_has_objects():
    truth = np.array([[0, 0, 1, 1]], np.uint8)
    counts = TrueObjects(truth, 2, 1.0, (), background=None).found(truth)
    assert counts[:, 0].tolist() == [[1, 1], [1, 1]]


def test_sizes_have_names():
    assert size_names(()) == ("of any size",)
    assert size_names((500.0, 5000.0)) == ("below 500 µm²", "500 to 5000 µm²", "5000 µm² and more")
