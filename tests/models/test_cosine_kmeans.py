from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lamella.errors import LamellaError
from lamella.models.cosine_kmeans import cosine_kmeans


def _drawn(seed: int, n: int, dim: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)


def _unit(features: np.ndarray) -> np.ndarray:
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def _best_by_trying_all(unit: np.ndarray, k: int) -> float:
    """The largest sum of cosines over all partitions: for one of them it is the sum of the lengths of its sums."""
    partitions = (p for p in itertools.product(range(k), repeat=len(unit)) if len(set(p)) == k)
    return max(
        sum(np.linalg.norm(unit[np.array(p) == number].sum(0)) for number in range(k)) for p in partitions
    )  # fmt: skip


@pytest.mark.parametrize("k", [1, 2, 3])
def test_it_finds_what_trying_all_partitions_finds(k: int) -> None:
    unit = _unit(_drawn(0, 7, 5))
    found = cosine_kmeans(unit, k, restarts=30, seed=1)
    reached = (unit * found.centres_KD[found.cluster_N]).sum()
    assert reached == pytest.approx(_best_by_trying_all(unit, k), abs=1e-4)


def test_k_of_one_is_the_mean_direction() -> None:
    # A mistake of the source: k = 1 crashed.
    unit = _unit(_drawn(3, 20, 7))
    found = cosine_kmeans(unit, 1)
    mean = unit.sum(0) / np.linalg.norm(unit.sum(0))
    np.testing.assert_allclose(found.centres_KD, mean[None], atol=1e-6)
    assert not found.cluster_N.any()


@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(6, 40), st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_the_objective_never_falls_and_no_cluster_is_empty(seed: int, k: int, n: int, dim: int) -> None:
    features = _drawn(seed, n, dim)
    if dim == 1:
        k = min(k, len(np.unique(np.sign(features))))  # a line has two directions
    told: list[float] = []
    found = cosine_kmeans(features, k, restarts=1, seed=seed, watch=told.append)
    assert (np.diff(told) >= -1e-4).all()
    assert (np.bincount(found.cluster_N, minlength=k) > 0).all()
    np.testing.assert_allclose(np.linalg.norm(found.centres_KD, axis=1), 1, atol=1e-5)


def test_groups_far_apart_are_found_and_the_largest_is_first() -> None:
    directions = np.eye(3, 50)
    labels = np.array([0] * 5 + [1] * 30 + [2] * 12)
    features = 7 * directions[labels] + 0.1 * _drawn(0, 47, 50)
    found = cosine_kmeans(torch.from_numpy(features), 3, seed=5)
    assert np.bincount(found.cluster_N).tolist() == [30, 12, 5]
    assert [len(set(found.cluster_N[labels == label])) for label in range(3)] == [1, 1, 1]


def test_length_does_not_matter_and_neither_huge_nor_tiny_features_overflow() -> None:
    features = _unit(_drawn(2, 30, 6))
    lengths = np.float32(10.0) ** np.linspace(-30, 30, 30, dtype=np.float32)[:, None]
    plain, scaled = cosine_kmeans(features, 3, seed=1), cosine_kmeans(features * lengths, 3, seed=1)
    np.testing.assert_array_equal(plain.cluster_N, scaled.cluster_N)
    np.testing.assert_allclose(plain.centres_KD, scaled.centres_KD, atol=1e-5)


def test_the_seed_decides_and_more_starts_are_never_worse() -> None:
    features = _drawn(4, 60, 4)
    first, again = (cosine_kmeans(features, 5, restarts=3, seed=8) for _ in range(2))
    np.testing.assert_array_equal(first.cluster_N, again.cluster_N)

    def reached(restarts: int) -> float:
        found = cosine_kmeans(features, 5, restarts=restarts, seed=8)
        return float((_unit(features) * found.centres_KD[found.cluster_N]).sum())

    assert reached(20) >= reached(3) >= reached(1)


def test_more_clusters_than_features_is_refused() -> None:
    with pytest.raises(LamellaError, match=r"gland: 4 clusters are asked for, but there are 3 features.*3 or fewer"):
        cosine_kmeans(_drawn(0, 3, 4), 4, name="gland")


def test_features_that_are_all_the_same_do_not_make_several_clusters() -> None:
    same = np.repeat(_drawn(0, 2, 4), 5, axis=0) * np.arange(1, 11, dtype=np.float32)[:, None]
    rounded = _unit(same).round(3)  # lengths differ, directions do not
    with pytest.raises(LamellaError, match="2 different ones among 10 features"):
        cosine_kmeans(np.repeat(rounded[[0, 9]], 5, axis=0), 3)


def test_as_many_clusters_as_features_gives_each_its_own() -> None:
    features = _drawn(6, 5, 3)
    found = cosine_kmeans(features, 5, restarts=4)
    assert sorted(found.cluster_N.tolist()) == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(found.centres_KD[found.cluster_N], _unit(features), atol=1e-6)


def test_opposite_features_that_cancel_have_a_defined_centre() -> None:
    features = np.array([[1, 0], [-1, 0]], np.float32)
    centre = cosine_kmeans(features, 1).centres_KD[0]
    assert np.isfinite(centre).all()
    assert np.linalg.norm(centre) == pytest.approx(1)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, 0.0])
def test_features_without_a_direction_are_refused(wrong: float) -> None:
    # fp16 that overflowed is infinite: it must not become a prototype.
    features = _drawn(0, 4, 3)
    features[2] = wrong
    with pytest.raises(ValueError, match=r"not finite|no direction"):
        cosine_kmeans(features, 2)


@pytest.mark.parametrize(("k", "restarts"), [(0, 1), (2, 0)])
def test_no_clusters_or_no_starts_are_refused(k: int, restarts: int) -> None:
    with pytest.raises(ValueError, match="clusters from"):
        cosine_kmeans(_drawn(0, 4, 3), k, restarts=restarts)
