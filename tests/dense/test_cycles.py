from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lamella.dense.cycles import cycles


@given(st.permutations(range(12)))
def test_every_cycle_is_walked_from_its_smallest_number(following: list[int]) -> None:
    order, begins = cycles(np.array(following), np.empty(0, np.int64))
    assert sorted(order.tolist()) == list(range(12))
    for cycle in np.split(order, begins[1:]):
        assert cycle[0] == cycle.min()
        assert [following[number] for number in cycle] == np.roll(cycle, -1).tolist()


def test_a_cycle_begins_with_the_preferred_number() -> None:
    order, begins = cycles(np.array([1, 2, 0, 4, 3]), np.array([2]))
    assert [part.tolist() for part in np.split(order, begins[1:])] == [[2, 0, 1], [3, 4]]


def test_nothing_has_no_cycles() -> None:
    order, begins = cycles(np.empty(0, np.int64), np.empty(0, np.int64))
    assert len(order) == len(begins) == 0
