from __future__ import annotations

import numpy as np
import pytest

from lamella.metrics.representation import per_dimension_std, rankme


@pytest.mark.parametrize("dim", [1, 4, 16])
def test_equal_singular_values_have_full_rank(dim: int) -> None:
    assert rankme(np.eye(dim)) == pytest.approx(dim, rel=1e-4)


def test_a_rank_one_matrix_has_rank_one() -> None:
    assert rankme(np.outer(np.arange(1, 40), np.arange(1, 9))) == pytest.approx(1, abs=1e-3)


def test_two_unequal_singular_values_follow_the_formula() -> None:
    share = np.array([0.75, 0.25])
    assert rankme(np.diag([3.0, 1.0])) == pytest.approx(np.exp(-(share * np.log(share)).sum()), rel=1e-4)


def test_scale_does_not_matter_and_zero_has_no_rank() -> None:
    features = np.random.default_rng(0).normal(size=(50, 8))
    assert rankme(1000 * features) == pytest.approx(rankme(features))
    assert rankme(np.zeros((5, 3))) == 0


def test_collapse_to_one_point_shows_in_both() -> None:
    collapsed = np.tile(np.arange(1.0, 9.0), (50, 1))
    assert rankme(collapsed) == pytest.approx(1, abs=1e-3)
    assert per_dimension_std(collapsed).max() == 0


@pytest.mark.parametrize("features", [np.zeros(3), np.zeros((0, 3)), np.array([[1.0, np.nan]])])
def test_what_has_no_rank_is_refused(features: np.ndarray) -> None:
    with pytest.raises(ValueError, match="finite"):
        rankme(features)
    with pytest.raises(ValueError, match="finite"):
        per_dimension_std(features)
