from __future__ import annotations

import numpy as np
import pytest

from lamella.errors import LamellaError
from lamella.models.prototype_clusters import cluster_classes, margins, most_distinct, told_apart


def _drawn(n: int, seed: int = 0, dim: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)


def test_clusters_hold_each_exemplar_once_and_the_nearest_first() -> None:
    features = _drawn(40)
    rows_of = {"gland": np.arange(0, 40, 2), "stroma": np.arange(1, 40, 2)}
    clusters = cluster_classes(features, rows_of, (3, 2), restarts=2, seed=0)
    assert [cluster.title for cluster in clusters] == ["gland 1", "gland 2", "gland 3", "stroma 1", "stroma 2"]
    assert sorted(np.concatenate([cluster.rows for cluster in clusters])) == list(range(40))
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    for cluster in clusters:
        assert set(cluster.rows) <= set(rows_of[cluster.name])
        assert (np.diff(cluster.cosines) <= 0).all()
        np.testing.assert_allclose(cluster.cosines, unit[cluster.rows] @ cluster.centre_D, atol=1e-6)
    sizes = [len(cluster.rows) for cluster in clusters]
    assert sizes[:3] == sorted(sizes[:3], reverse=True)


def test_a_class_changes_no_others_prototypes() -> None:
    features = _drawn(30)
    alone = cluster_classes(features, {"a": np.arange(15)}, (2,), restarts=3, seed=4)
    beside = cluster_classes(features, {"b": np.arange(15, 30), "a": np.arange(15)}, (4, 2), restarts=3, seed=4)
    for one, other in zip(alone, beside[4:], strict=True):
        np.testing.assert_array_equal(one.centre_D, other.centre_D)


def test_a_class_without_exemplars_and_features_without_direction_are_refused() -> None:
    features = _drawn(4)
    with pytest.raises(LamellaError, match="stroma: it has no exemplars"):
        cluster_classes(features, {"stroma": np.arange(0)}, (1,), restarts=1, seed=0)
    features[1] = np.inf
    with pytest.raises(LamellaError, match="exemplars of gland: a feature is not finite"):
        cluster_classes(features, {"gland": np.arange(4)}, (2,), restarts=1, seed=0)


def test_told_apart_counts_nearest_prototypes_of_the_class() -> None:
    prototypes, class_of = np.eye(3, dtype=np.float32), np.array([0, 0, 1])
    features = np.array([[5, 1, 0], [0, 2, 1], [0, 1, 2], [1, 0, 9]], np.float32)
    shares = told_apart(features, {"a": np.arange(3), "b": np.array([3])}, prototypes, class_of)
    assert shares == {"a": pytest.approx(2 / 3), "b": 1.0}


def _mixed(seed: int) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]:
    """Exemplars of slides: two thirds of each class's show tissue that both classes' slides hold.

    Returns:
        Features, rows of each class, and which exemplars truly show their class.
    """
    rng = np.random.default_rng(seed)
    directions = np.eye(5, 24)  # two kinds of shared tissue, one of its own for each class, and what all share
    kinds = np.array([0] * 20 + [1] * 20 + [2] * 20 + [0] * 20 + [1] * 20 + [3] * 20)
    features = directions[kinds] + 0.5 * directions[4] + 0.05 * rng.normal(size=(120, 24))
    return features.astype(np.float32), {"a": np.arange(60), "b": np.arange(60, 120)}, kinds >= 2


@pytest.mark.parametrize("seed", range(5))
def test_what_slides_of_other_classes_hold_too_is_left_out(seed: int) -> None:
    features, rows_of, own = _mixed(seed)
    clusters = cluster_classes(features, rows_of, (3, 3), restarts=10, seed=seed)
    found = most_distinct(clusters, features, rows_of, (1, 1))
    assert [(cluster.name, cluster.number, cluster.kept) for cluster in found] == [
        ("a", 0, True), ("a", 1, False), ("a", 2, False), ("b", 0, True), ("b", 1, False), ("b", 2, False)
    ]  # fmt: skip
    for cluster in found:
        assert own[cluster.rows].all() == cluster.kept
        assert len(cluster.rows) == 20
        assert (cluster.margin > 0.5) == cluster.kept


def test_a_margin_is_measured_against_the_nearest_tenth_of_the_nearest_class() -> None:
    angles = np.deg2rad([0, 0, 60, 80, 90, *[90] * 17])
    features = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    rows_of = {"a": np.arange(2), "b": np.array([3]), "c": np.array([2, *range(4, 22)])}
    clusters = cluster_classes(features, rows_of, (1, 1, 1), restarts=1, seed=0)
    # Of c's 19 exemplars one is the nearest tenth: that at 60 degrees.
    assert margins(clusters, features, rows_of)[0] == pytest.approx(1 - np.cos(np.deg2rad(60)), abs=1e-6)


def test_a_class_alone_has_nothing_to_be_told_from() -> None:
    features = _drawn(12)
    clusters = cluster_classes(features, {"a": np.arange(12)}, (3,), restarts=3, seed=0)
    assert margins(clusters, features, {"a": np.arange(12)}) == [float(each.cosines.mean()) for each in clusters]


def test_without_spare_clusters_nothing_is_left_out_or_moved() -> None:
    features, rows_of, _ = _mixed(0)
    clusters = cluster_classes(features, rows_of, (3, 2), restarts=3, seed=0)
    found = most_distinct(clusters, features, rows_of, (3, 2))
    assert all(cluster.kept for cluster in found)
    assert [cluster.rows.tolist() for cluster in found] == [cluster.rows.tolist() for cluster in clusters]
