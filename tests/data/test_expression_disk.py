"""The share of each bin under a spot's disk."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamella.data.expression_disk import disk_shares


@given(bins=st.integers(4, 60), part=st.floats(0.1, 1.0))
def test_the_shares_add_up_to_the_disk(bins: int, part: float) -> None:
    diameter_um = 2.0 * bins * part
    shares = disk_shares(bins, 2.0, diameter_um)
    assert shares.sum() == pytest.approx(math.pi * (diameter_um / 4) ** 2, rel=1e-5)
    assert np.allclose(shares, shares.T, atol=1e-6)
    assert np.allclose(shares, shares[::-1], atol=1e-6)
    assert shares.min() >= 0
    assert shares.max() <= 1


@pytest.mark.parametrize(("bins", "diameter_um"), [(4, 55), (7, 55), (8, 100.0), (5, 300.0)])
def test_against_counting_fine_points(bins: int, diameter_um: float) -> None:
    fine = 200
    axis = ((np.arange(bins * fine) + 0.5) / fine - bins / 2) * 12.5
    inside = axis[:, None] ** 2 + axis[None, :] ** 2 <= (diameter_um / 2) ** 2
    counted = inside.reshape(bins, fine, bins, fine).mean(axis=(1, 3))
    assert disk_shares(bins, 12.5, diameter_um) == pytest.approx(counted, abs=2e-3)
