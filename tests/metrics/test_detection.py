from __future__ import annotations

import numpy as np
import pytest

from lamella.metrics.detection import Found, candidates, match_boxes, match_mask, sensitivity


def spots(*places: tuple[int, int, float]) -> np.ndarray:
    chance = np.zeros((20, 20))
    for y, x, score in places:
        chance[y : y + 3, x : x + 3] = score
    return chance


def test_components_become_candidates_with_their_centre_and_largest_value() -> None:
    found = candidates(spots((2, 2, 0.9), (10, 12, 0.7)))
    assert found == [((3.0, 3.0), pytest.approx(0.9)), ((11.0, 13.0), pytest.approx(0.7))]
    assert candidates(np.zeros((5, 5))) == []


def test_a_candidate_hits_where_its_centroid_lies() -> None:
    mask = np.zeros((20, 20), int)
    mask[1:6, 1:6], mask[15:18, 15:18] = 1, 1
    found = match_mask(candidates(spots((2, 2, 0.9), (10, 12, 0.7))), mask)
    assert found.lesions.tolist() == pytest.approx([0.9, 0.0])
    assert found.alarms.tolist() == pytest.approx([0.7])
    boxed = match_boxes(candidates(spots((2, 8, 0.8))), [(7, 1, 12, 6)])  # x0, y0, x1, y1
    assert boxed.lesions.tolist() == pytest.approx([0.8])
    assert not len(boxed.alarms)


def test_sensitivity_at_a_rate_of_false_alarms_against_hand_counts() -> None:
    images = [
        Found(np.array([0.9, 0.4]), np.array([0.8, 0.3])),
        Found(np.array([0.6]), np.array([0.5])),
    ]
    ones = np.ones((1, 2))
    # Two images: half an alarm each is one in all (0.8 may be raised, 0.5 not), so lesions above 0.5 count: 2 of 3.
    assert sensitivity(images, 0.5, ones) == pytest.approx([2 / 3])
    assert sensitivity(images, 1.0, ones) == pytest.approx([1.0])
    assert sensitivity(images, 0.0, ones) == pytest.approx([1 / 3])
    assert np.isnan(sensitivity([Found(np.zeros(0), np.array([0.5]))], 1.0, np.ones((1, 1)))).all()


def test_a_missed_lesion_is_never_found() -> None:
    images = [Found(np.array([0.0, 0.7]), np.zeros(0))]
    assert sensitivity(images, 100.0, np.ones((1, 1))) == pytest.approx([0.5])
