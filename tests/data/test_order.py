from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamella.data.order import Order, StratifiedOrder


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 700), st.integers(0, 2**64), st.integers(0, 50))
def test_every_row_comes_once_per_pass(n: int, seed: int, first_pass: int) -> None:
    order = Order(n, seed)
    drawn = [order.at(position) for position in range(first_pass * n, (first_pass + 1) * n)]
    assert sorted(row for _, row in drawn) == list(range(n))
    assert {pass_index for pass_index, _ in drawn} == {first_pass}


def test_passes_and_seeds_differ() -> None:
    first = [Order(50, 0).at(position)[1] for position in range(50)]
    second = [Order(50, 0).at(position)[1] for position in range(50, 100)]
    other = [Order(50, 1).at(position)[1] for position in range(50)]
    assert first != list(range(50))
    assert first != second
    assert first != other
    assert second != other


@pytest.mark.parametrize("n", [2, 3, 7, 24])
def test_every_row_is_equally_likely_at_a_position(n: int) -> None:
    passes = 3000
    order = Order(n, 7)
    for within in (0, n - 1):
        counts = np.bincount([order.at(turn * n + within)[1] for turn in range(passes)], minlength=n)
        deviation = np.sqrt(passes / n * (1 - 1 / n))
        assert (np.abs(counts - passes / n) < 5 * deviation).all()


def test_neighbours_of_the_catalogue_are_not_neighbours_of_the_order() -> None:
    rows = np.array([Order(10_000, 3).at(position)[1] for position in range(2000)])
    assert np.mean(np.abs(np.diff(rows)) <= 1) < 0.01
    assert abs(np.corrcoef(rows[:-1], rows[1:])[0, 1]) < 0.1


def test_virtual_epochs_see_the_whole_catalogue() -> None:
    """The source's virtual epochs saw only the first N rows, again and again."""
    order, epoch = Order(103, 0), 10
    seen = [order.at(epoch * number + within)[1] for number in range(10) for within in range(epoch)]
    assert len(set(seen)) == 100
    assert max(seen) > 90


def test_a_position_does_not_depend_on_what_was_asked_before() -> None:
    """The source's persistent workers kept a stale pass index."""
    forth = Order(37, 5)
    expected = [forth.at(position) for position in range(200)]
    back = Order(37, 5)
    assert [back.at(position) for position in reversed(range(200))] == expected[::-1]


def test_memory_does_not_grow_with_the_rows() -> None:
    small, large = Order(10, 0), Order(10**12, 0)
    assert 0 <= large.at(123_456_789)[1] < 10**12
    size = [sys.getsizeof(order.__dict__) + sum(map(sys.getsizeof, vars(order).values())) for order in (small, large)]
    assert size[1] <= size[0] + 32


@pytest.mark.parametrize(("n", "position", "words"), [(0, 0, "at least one row"), (3, -1, "start at 0")])
def test_nonsense_is_refused(n: int, position: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Order(n, 0).at(position)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=3), min_size=1, max_size=5), st.integers(0, 1000))
def test_strata_come_equally_often_and_each_sees_all_its_rows(sizes: list[list[int]], seed: int) -> None:
    strata, first = [], 0
    for stratum in sizes:
        strata.append([])
        for rows in stratum:
            strata[-1].append(range(first, first + rows))
            first += rows + 2  # rows of no stratum lie between
    order = StratifiedOrder(strata, seed)
    assert len(order) == sum(map(sum, sizes))
    turns = max(map(sum, sizes))
    rows = [order.at(position)[1] for position in range(turns * len(strata))]
    stratum_of = {row: number for number, ranges in enumerate(strata) for span in ranges for row in span}
    assert np.bincount([stratum_of[row] for row in rows]).tolist() == [turns] * len(strata)
    assert set(rows) == set(stratum_of)


def test_one_stratum_is_a_permutation_per_pass() -> None:
    order = StratifiedOrder([[range(5, 9), range(20, 23)]], 1)
    for pass_index in range(3):
        drawn = [order.at(position) for position in range(pass_index * 7, pass_index * 7 + 7)]
        assert sorted(row for _, row in drawn) == [5, 6, 7, 8, 20, 21, 22]
        assert {number for number, _ in drawn} == {pass_index}
