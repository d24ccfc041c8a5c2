from __future__ import annotations

import numpy as np
import pytest

from lamella.errors import LamellaError
from lamella.models.prototype_clusters import cluster_classes, told_apart


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
