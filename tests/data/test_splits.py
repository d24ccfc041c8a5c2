from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamella.data.splits import LeakageError, SplitError, group_folds, groups_of, refuse_shared_groups


@settings(max_examples=60, deadline=None)
@given(
    groups=st.lists(st.integers(0, 9), min_size=2, max_size=80).filter(lambda groups: len(set(groups)) > 1),
    folds=st.integers(2, 6),
    seed=st.integers(0, 3),
)
def test_no_group_is_in_two_folds_and_no_fold_is_empty(groups: list[int], folds: int, seed: int) -> None:
    labels = np.arange(len(groups)) % 3
    dealt = group_folds(np.array(groups), labels, folds, seed=seed)
    refuse_shared_groups(np.array(groups), dealt)
    assert set(dealt) == set(range(min(folds, len(set(groups)))))
    assert np.array_equal(dealt, group_folds(np.array(groups), labels, folds, seed=seed))


def test_labels_are_spread_over_the_folds() -> None:
    # Four groups of each class: a fold of each pair is possible, and blind dealing would rarely find it.
    groups, labels = np.repeat(np.arange(8), 10), np.repeat([0, 0, 0, 0, 1, 1, 1, 1], 10)
    for seed in range(5):
        folds = group_folds(groups, labels, 4, seed=seed)
        assert all(set(labels[folds == fold]) == {0, 1} for fold in range(4))


def test_rare_classes_count_as_much_as_common_ones() -> None:
    groups = np.repeat(np.arange(6), 101)
    labels = np.zeros(606, int)
    labels[np.arange(3) * 101] = 1  # one tile each in groups 0, 1, 2
    folds = group_folds(groups, labels, 3)
    assert set(folds[labels == 1]) == {0, 1, 2}


def test_the_seed_orders_equal_groups() -> None:
    groups, labels = np.arange(12), np.zeros(12, int)
    assert len({tuple(group_folds(groups, labels, 3, seed=seed)) for seed in range(4)}) > 1


def test_one_group_cannot_be_split() -> None:
    with pytest.raises(SplitError, match="1 group"):
        group_folds(np.zeros(5, int), np.zeros(5, int), 2)


def test_a_shared_group_is_refused_by_name() -> None:
    groups = np.array(["p1", "p1", "p2", "p3", "p3"])
    with pytest.raises(LeakageError, match=r"patient p1, p3 would be in more than one part"):
        refuse_shared_groups(groups, np.array(["train", "test", "test", "train", "test"]), noun="patient")
    refuse_shared_groups(groups, np.array(["train", "train", "test", "test", "test"]))


def test_many_shared_groups_are_counted() -> None:
    groups = np.repeat([f"s{number}" for number in range(9)], 2)
    with pytest.raises(LeakageError, match="s0, s1, s2, s3, s4 and 4 more"):
        refuse_shared_groups(groups, np.tile([0, 1], 9))


def test_a_slide_without_a_patient_is_a_group_and_tears_no_patient_apart() -> None:
    assert groups_of(["a", "b"], ["p", "p"]) == (["p", "p"], "patient")
    assert groups_of(["a", "b", "c"], ["p", "p", None]) == (["p", "p", "c"], "group")
    assert groups_of(["a", "b"], [None, ""]) == (["a", "b"], "slide")
