from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamella.metrics.label_draws import share_rows, shot_rows


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(2, 4))
def test_every_class_gets_its_shots_from_the_rows_given(seed: int, shots: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    labels, groups = np.arange(60) % classes, rng.integers(10, size=60)
    rows = np.arange(0, 60)[rng.random(60) < 0.7]
    if np.bincount(labels[rows], minlength=classes).min() < shots:
        return
    drawn = shot_rows(rows, labels, groups, shots, rng)
    assert np.isin(drawn, rows).all()
    assert len(np.unique(drawn)) == len(drawn)
    assert np.bincount(labels[drawn]).tolist() == [shots] * classes


def test_labels_spread_over_as_many_groups_as_there_are() -> None:
    groups = np.repeat(np.arange(5), 20)
    labels = np.zeros(100, int)
    for seed in range(5):
        drawn = shot_rows(np.arange(100), labels, groups, 5, np.random.default_rng(seed))
        assert sorted(groups[drawn]) == [0, 1, 2, 3, 4]


def test_a_share_keeps_the_classes_in_proportion_and_at_least_one_of_each() -> None:
    labels = np.repeat([0, 1, 2], [100, 50, 3])
    drawn = share_rows(np.arange(153), labels, np.arange(153), 0.1, np.random.default_rng(0))
    assert np.bincount(labels[drawn]).tolist() == [10, 5, 1]
    assert share_rows(np.arange(153), labels, np.arange(153), 1.0, np.random.default_rng(0)).tolist() == list(
        range(153)
    )


def test_more_shots_than_a_class_has_are_refused() -> None:
    with pytest.raises(ValueError, match="class 1 has 2 rows, 3 are asked for"):
        shot_rows(np.arange(12), np.repeat([0, 1], [10, 2]), np.arange(12), 3, np.random.default_rng(0))
