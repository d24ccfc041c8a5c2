import copy

import numpy as np

from lamella.data.kept import Kept

MB = 2**20


def test_what_is_kept_is_made_once_and_the_least_used_goes_first():
    kept: Kept[np.ndarray] = Kept(limit_mb=2)
    made = []

    def value(name: str) -> np.ndarray:
        return kept.get(name, lambda: made.append(name) or np.zeros(MB, np.uint8))

    for name in "abab":
        value(name)
    assert made == ["a", "b"]
    value("a")
    value("c")  # b was used longest ago
    value("a")
    assert made == ["a", "b", "c"]
    value("b")
    assert made == ["a", "b", "c", "b"]
    assert len(kept) == 2


def test_what_is_too_large_is_given_out_and_not_kept():
    kept: Kept[np.ndarray] = Kept(limit_mb=1)
    assert kept.get("large", lambda: np.ones(2 * MB, np.uint8)).sum() == 2 * MB
    assert len(kept) == 0


def test_another_process_begins_empty():
    kept: Kept[np.ndarray] = Kept(limit_mb=1)
    kept.get("a", lambda: np.zeros(8, np.uint8))
    assert len(copy.copy(kept)) == 0  # made of what pickling would send
    assert len(kept) == 1
