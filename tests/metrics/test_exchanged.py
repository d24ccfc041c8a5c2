from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.metrics.image_studies import several_labels, study

from lamella.metrics.ask_classes import ask_classes
from lamella.metrics.exchanged import exchanged_classes, exchanged_marks
from lamella.metrics.image_study import ImageStudy, Part


def unbalanced() -> ImageStudy:
    """Items of one each group: nine in ten training items are of class 1, half of the test items."""
    base = study(items=240)
    train, val, test = np.arange(120), np.arange(120, 160), np.arange(160, 240)
    labels = np.ones(240, np.int64)
    labels[train[:12]] = labels[val[:4]] = labels[test[::2]] = 0
    return replace(base, labels=labels, groups=np.arange(240), parts=(Part(train, val, test),))


def test_each_part_keeps_its_own_class_balance() -> None:
    base = unbalanced()
    (part,) = base.parts
    for draw in range(3):
        lie = exchanged_classes(base, draw)
        for rows in (part.train, part.val, part.test):
            assert np.bincount(lie[rows]).tolist() == np.bincount(base.labels[rows]).tolist()
        assert 0.4 < (lie[part.test] == base.labels[part.test]).mean() < 0.6
    assert not np.array_equal(exchanged_classes(base, 0), exchanged_classes(base, 1))


def test_the_control_of_accuracy_is_no_better_than_the_majority_rate_beside_it() -> None:
    answer = ask_classes(unbalanced(), ["knn"])
    (control,) = [row for row in answer.rows if row.measure == "accuracy" and "exchanged" in row.encoder]
    assert control.baseline.value == 0.5  # with the balance of the training part it would be 0.9
    assert control.estimate.value == pytest.approx(0.5, abs=0.12)


def test_folds_exchange_among_all_judged_items_and_a_lonely_group_finds_others() -> None:
    folded = study(split=False)
    lie = exchanged_classes(folded, 0)
    assert not np.array_equal(lie, folded.labels)
    one = replace(folded, parts=(Part(np.arange(2, 180), np.zeros(0, np.int64), np.arange(2)),))
    assert np.unique(one.groups[:2]).size == 1
    assert sorted(exchanged_classes(one, 0)) == sorted(one.labels)


def test_marks_of_several_labels_stay_in_their_part() -> None:
    base = several_labels()
    lie = exchanged_marks(base, base.labels, 0)
    (part,) = base.parts
    assert not np.array_equal(lie[part.test], base.labels[part.test])
    for rows in (part.train, part.test):  # groups are of one size: whole rows only change their owner
        assert sorted(map(tuple, lie[rows])) == sorted(map(tuple, base.labels[rows]))
