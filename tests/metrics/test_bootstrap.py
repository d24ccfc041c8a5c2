from __future__ import annotations

import numpy as np
import pytest

from lamella.metrics.bootstrap import group_bootstrap, group_sums


def mean(sums: np.ndarray) -> np.ndarray:
    """Sums of (values, counts) to their mean."""
    return sums[..., 0] / sums[..., 1]


def sums_of(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    return group_sums(np.stack([values, np.ones_like(values)], axis=-1), groups)[:, None]


def test_sums_are_by_group_in_sorted_order() -> None:
    sums = group_sums(np.array([1.0, 2.0, 4.0]), np.array(["b", "a", "b"]))
    assert sums.tolist() == [2.0, 5.0]


def test_the_interval_covers_the_truth_as_often_as_it_says_although_tiles_of_a_group_are_alike() -> None:
    covered = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        groups = np.repeat(np.arange(8), 50)
        values = rng.normal(size=8)[groups] + 0.3 * rng.normal(size=400)
        found = group_bootstrap(sums_of(values, groups), mean, n=400, bounds=(-9, 9), draws=1000, seed=seed)
        covered += found.low <= 0 <= found.high
    # 95 % of 200 are 190; the interval of tiles taken as independent covers about 60.
    assert 178 <= covered <= 200


def test_it_is_repeatable_and_depends_on_the_seed() -> None:
    rng = np.random.default_rng(0)
    sums = sums_of(rng.random(60), np.repeat(np.arange(6), 10))
    first, again, other = (group_bootstrap(sums, mean, n=60, bounds=(0, 1), seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert (first.low, first.high) != (other.low, other.high)
    assert first.low < first.value < first.high
    assert (first.n, first.groups, first.note) == (60, 6, "")


@pytest.mark.parametrize("groups", [1, 2])
def test_fewer_than_three_groups_get_the_whole_range_and_a_reason(groups: int) -> None:
    values, names = np.full(20, 0.9), np.arange(20) % groups
    found = group_bootstrap(sums_of(values, names), mean, n=20, bounds=(0, 1))
    assert (found.value, found.low, found.high) == (pytest.approx(0.9), 0, 1)
    assert found.note.startswith(f"{groups} group(s): too few")


def test_a_statistic_that_is_mostly_undefined_gets_the_whole_range_and_a_reason() -> None:
    sums = np.zeros((4, 1, 2))
    sums[0] = (3, 4)  # a resample without group 0 (about 32 % of them) has no tries
    with np.errstate(invalid="ignore"):
        found = group_bootstrap(sums, mean, n=4, bounds=(0, 1))
    assert (found.low, found.high) == (0, 1)
    assert "undefined" in found.note


def test_replicates_are_averaged_and_their_spread_is_in_the_interval() -> None:
    groups = np.repeat(np.arange(12), 5)
    alike = sums_of(np.full(60, 0.5), groups)
    spread = np.concatenate([0.6 * alike, 1.4 * alike], axis=1)
    spread[..., 1] = alike[..., 1]
    found = group_bootstrap(spread, mean, n=60, bounds=(0, 1))
    assert found.value == pytest.approx(0.5)
    assert (found.low, found.high) == (pytest.approx(0.3), pytest.approx(0.7))
