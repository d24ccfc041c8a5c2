"""Counted random numbers."""

from __future__ import annotations

import numpy as np
import pytest

from lamella.data.masks.draws import Draws, mixed
from lamella.data.order import _mix


def test_it_is_the_mixer_of_the_order() -> None:
    words = np.array([0, 1, 2**63, 2**64 - 1], np.uint64)
    assert mixed(words).tolist() == [_mix(int(word)) for word in words]


def test_numbers_depend_on_seed_use_position_and_count_alone() -> None:
    first = Draws(7, [3, 4])
    early, late = first.uniform(5), first.uniform(2, 2)
    other = Draws(7, [4, 3])
    assert np.array_equal(other.uniform(5), early[::-1])
    assert np.array_equal(other.uniform(4).reshape(2, 2, 2), late[::-1])
    for changed in (Draws(8, [3, 4]), Draws(7, [3, 4], use=1), Draws(7, [13, 14])):
        assert not np.isin(changed.uniform(9), np.concatenate([early, late.reshape(2, 4)], 1)).any()


def test_they_are_uniform_and_unrelated() -> None:
    x = Draws(0, range(20000)).uniform(3)
    counts = np.histogram(x[:, 0], 20, (0, 1))[0]
    assert ((counts - 1000) ** 2 / 1000).sum() < 43.8  # chi-squared with 19 degrees of freedom, one in 1,000
    # Neighbouring numbers, neighbouring samples, neighbouring seeds: 4 deviations of a correlation of 20,000 pairs.
    pairs = [(x[:, 0], x[:, 1]), (x[:-1, 0], x[1:, 0]), (x[:, 0], Draws(1, range(20000)).uniform(1)[:, 0])]
    assert all(abs(np.corrcoef(a, b)[0, 1]) < 0.0283 for a, b in pairs)


def test_new_attempts_get_new_numbers_that_neighbours_do_not_change() -> None:
    draws = Draws(0, range(10))
    again = draws.again(1, np.array([2, 7]))
    assert len(again) == 2
    assert np.array_equal(Draws(0, [7]).again(1, np.array([0])).uniform(3)[0], again.uniform(3)[1])
    assert not np.array_equal(draws.again(2, np.array([2])).uniform(3), draws.again(1, np.array([2])).uniform(3))


@pytest.mark.parametrize("limit", [1, 2, 7])
def test_integers_lie_below_their_limit(limit: int) -> None:
    drawn = Draws(0, range(2000)).below(np.full((2000, 1), limit))
    assert np.unique(drawn).tolist() == list(range(limit))
