from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from lamella.metrics.ranking import auc, average_precision


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 40), st.integers(1, 8))
def test_both_are_scikit_learns_on_weighted_rows_with_ties(seed: int, rows: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    positive = rng.permutation(np.arange(rows) % 2 == 0)
    scores = rng.integers(levels, size=rows) / 7
    weights = rng.integers(1, 4, size=(3, rows)).astype(float)
    for found, reference in ((auc, roc_auc_score), (average_precision, average_precision_score)):
        expected = [reference(positive, scores, sample_weight=weight) for weight in weights]
        np.testing.assert_allclose(found(scores, positive, weights), expected, atol=1e-12)


def test_the_order_of_the_rows_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    scores, positive, weights = rng.normal(size=30), rng.random(30) > 0.5, rng.random((4, 30))
    mixed = rng.permutation(30)
    for found in (auc, average_precision):
        np.testing.assert_allclose(
            found(scores, positive, weights), found(scores[mixed], positive[mixed], weights[:, mixed])
        )


def test_a_class_that_is_missing_is_undefined_not_a_half_and_no_error_is_swallowed() -> None:
    ones = np.ones((1, 4))
    assert np.isnan(auc(np.arange(4), np.zeros(4, bool), ones)).all()
    assert np.isnan(auc(np.arange(4), np.ones(4, bool), ones)).all()
    assert np.isnan(average_precision(np.arange(4), np.zeros(4, bool), ones)).all()
    with pytest.raises(ValueError, match="finite"):
        auc(np.array([0.0, np.nan, 1.0, 2.0]), np.array([True, False, True, False]), ones)
