"""Loess against the same written plainly."""

from __future__ import annotations

import numpy as np
import pytest

from lamella.data.local_regression import local_quadratic


def plainly(x: np.ndarray, y: np.ndarray, span: float) -> np.ndarray:
    """One weighted polynomial fit after the other."""
    near = int(np.floor(span * len(x) + 1e-5))
    fitted = np.empty(len(x))
    for place, at in enumerate(x):
        members = np.argsort(np.abs(x - at), kind="stable")[:near]
        distance = np.abs(x[members] - at)
        weight = (1 - (distance / distance.max()) ** 3) ** 3
        fitted[place] = np.polyval(np.polyfit(x[members] - at, y[members], 2, w=np.sqrt(weight)), 0.0)
    return fitted


def test_against_one_fit_after_the_other() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=150)
    y = np.sin(2 * x) + 0.2 * rng.normal(size=150)
    assert local_quadratic(x, y, 0.3) == pytest.approx(plainly(x, y, 0.3), abs=1e-8)


def test_a_parabola_is_fitted_exactly_and_order_does_not_matter() -> None:
    x = np.random.default_rng(1).uniform(-3, 3, 80)
    y = 2 - x + 0.5 * x**2
    assert local_quadratic(x, y, 0.2) == pytest.approx(y, abs=1e-9)


def test_equal_places_and_few_points() -> None:
    """Genes with one count each all have the same mean."""
    x = np.array([0.0, 0, 0, 0, 0, 1, 1, 2])
    assert np.isfinite(local_quadratic(x, x + 1, 0.3)).all()
    assert local_quadratic(np.zeros(3), np.array([1.0, 2, 3]), 0.3) == pytest.approx([2, 2, 2])
