from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics

from lamella.metrics.classes import accuracy, balanced_accuracy, confusions, macro_f1, majority_rate


def test_always_saying_the_majority_is_accurate_but_not_balanced() -> None:
    truth = np.array([0] * 9 + [1])
    confusion = confusions(truth, np.zeros(10, int), 2).sum(axis=0)
    assert accuracy(confusion) == majority_rate(confusion) == pytest.approx(0.9)
    assert balanced_accuracy(confusion) == pytest.approx(0.5)
    assert macro_f1(confusion) == pytest.approx((2 * 9 / 19) / 2)


@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = np.concatenate([np.arange(4), rng.integers(0, 4, 60)])
    predicted = np.where(rng.random(64) < 0.5, truth, rng.integers(0, 4, 64))
    confusion = confusions(truth, predicted, 4).sum(axis=0)
    assert accuracy(confusion) == pytest.approx(metrics.accuracy_score(truth, predicted))
    assert balanced_accuracy(confusion) == pytest.approx(metrics.balanced_accuracy_score(truth, predicted))
    assert macro_f1(confusion) == pytest.approx(metrics.f1_score(truth, predicted, average="macro"))


def test_classes_that_do_not_occur_are_not_counted_as_missed() -> None:
    confusion = confusions(np.array([0, 0, 1]), np.array([0, 0, 1]), 5).sum(axis=0)
    assert balanced_accuracy(confusion) == macro_f1(confusion) == 1


def test_leading_axes_are_kept_and_nothing_is_nan_silently() -> None:
    one = confusions(np.array([0, 1]), np.array([0, 0]), 2).sum(axis=0)
    stacked = np.stack([one, 0 * one])
    assert balanced_accuracy(stacked)[0] == 0.5
    assert np.isnan([measure(stacked)[1] for measure in (accuracy, balanced_accuracy, macro_f1, majority_rate)]).all()
