"""The cycles of a permutation, walked without a loop in Python."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components, depth_first_order


def cycles(following: np.ndarray, preferred: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Walk every cycle from its smallest number, or from a preferred one.

    Args:
        following: (N,) int64 permutation: what comes after each.
        preferred: (K,) numbers that a cycle begins with if it has one.

    Returns:
        (N,) the numbers in the order of walking, cycle by cycle; and (M,) where in it each cycle begins.
    """
    count = len(following)
    if not count:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    number = np.arange(count)
    cycles_count, cycle = connected_components(_graph(following), connection="strong")
    first = np.empty(cycles_count, np.int64)
    first[cycle[::-1]] = number[::-1]  # of equal places the last assignment stays: the smallest number
    first[cycle[preferred]] = preferred
    before = np.empty(count, np.int64)
    before[following] = number
    # The end of each cycle is led on to the beginning of the next: one way through all, which a search walks in C.
    way = following.copy()
    way[before[first]] = np.roll(first, -1)
    order = depth_first_order(_graph(way), first[0], return_predecessors=False)
    sizes = np.bincount(cycle, minlength=cycles_count)
    return order.astype(np.int64), np.cumsum(sizes) - sizes


def _graph(following: np.ndarray) -> csr_array:
    count = len(following)
    return csr_array((np.ones(count), following, np.arange(count + 1)), shape=(count, count))
