"""k-means on the sphere: groups of features by their angle.

Each feature has length 1 and each centre is the direction of its members' sum, so that the sum of the cosines between
features and their centres never falls from one round to the next (Dhillon and Modha, Machine Learning 42:143, 2001,
"spherical k-means"). Starts are drawn as in k-means++ (Arthur and Vassilvitskii, SODA 2007), with 1 - cosine as the
squared distance, which on the sphere it is half of.

Shapes: N features, D numbers each, K clusters.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from torch import Tensor

from lamella.errors import LamellaError
from lamella.models.prototypes import unit_length

# Rounds after which a start is taken as it is. Assignments of a few thousand features settle within some tens.
_MOST_ROUNDS = 300


class Clusters(NamedTuple):
    """What was found."""

    centres_KD: np.ndarray
    """float32, of unit length; the largest cluster first."""
    cluster_N: np.ndarray
    """int64, each feature's cluster; none is empty."""


def cosine_kmeans(
    features_ND: Tensor | np.ndarray,
    k: int,
    *,
    restarts: int = 10,
    seed: int = 0,
    name: object = "exemplars",
    watch: Callable[[float], None] | None = None,
) -> Clusters:
    """The best of several starts; the same features and seed give the same clusters.

    Args:
        features_ND: Any length but zero.
        k: How many clusters. 1 gives the mean direction.
        restarts: Starts.
        seed: Of the starts.
        name: What the features are of, for an error.
        watch: Is told the objective, the sum of all cosines, after every round of every start.

    Raises:
        LamellaError: There are fewer different features than clusters.
        ValueError: A feature is zero or not finite, or there are no clusters or starts to make.
    """
    if k < 1 or restarts < 1:
        raise ValueError(f"{k} clusters from {restarts} starts")
    unit_ND = np.asarray(unit_length(_tensor(features_ND)))
    _refuse_too_many(unit_ND, k, name)
    draws = np.random.default_rng([seed, k])
    found = [_from_start(unit_ND, _start(unit_ND, k, draws), watch) for _ in range(1 if k == 1 else restarts)]
    centres_KD, cluster_N, _ = max(found, key=lambda result: result[2])  # the first of equals
    order_K = np.argsort(-np.bincount(cluster_N, minlength=k), kind="stable")
    rank_K = np.empty(k, np.int64)
    rank_K[order_K] = np.arange(k)
    return Clusters(centres_KD[order_K], rank_K[cluster_N])


def _tensor(features_ND: Tensor | np.ndarray) -> Tensor:
    return features_ND if isinstance(features_ND, Tensor) else Tensor(np.asarray(features_ND, np.float32))


def _refuse_too_many(unit_ND: np.ndarray, k: int, name: object) -> None:
    different = len(unit_ND) if len(unit_ND) < k else len(np.unique(unit_ND, axis=0))
    if different < k:
        what = "features" if different == len(unit_ND) else f"different ones among {len(unit_ND)} features"
        raise LamellaError(
            name,
            f"{k} clusters are asked for, but there are {different} {what}",
            f"Ask for {max(different, 1)} or fewer prototypes (prototypes.k or k_list), or sample more exemplars.",
        )


def _start(unit_ND: np.ndarray, k: int, draws: np.random.Generator) -> np.ndarray:
    """(K, D) features far from each other: each is drawn with a chance that grows with its distance from the others."""
    chosen = [int(draws.integers(len(unit_ND)))]
    apart_N = np.full(len(unit_ND), np.inf)
    while len(chosen) < k:
        apart_N = np.minimum(apart_N, 1.0 - unit_ND @ unit_ND[chosen[-1]]).clip(min=0)
        apart_N[chosen] = 0
        total = apart_N.sum()
        if total > 0:
            chosen.append(int(draws.choice(len(unit_ND), p=apart_N / total)))
        else:  # the rest differ from those chosen by rounding alone
            chosen.append(int(draws.choice(np.setdiff1d(np.arange(len(unit_ND)), chosen))))
    return unit_ND[chosen].copy()


def _from_start(
    unit_ND: np.ndarray, centres_KD: np.ndarray, watch: Callable[[float], None] | None
) -> tuple[np.ndarray, np.ndarray, float]:
    """Centres, clusters and the sum of cosines."""
    cluster_N, objective = np.full(len(unit_ND), -1), -np.inf
    for _ in range(_MOST_ROUNDS):
        cosines_NK = unit_ND @ centres_KD.T
        new_N = _filled(cosines_NK.argmax(1), cosines_NK)
        if np.array_equal(new_N, cluster_N):
            break
        cluster_N = new_N
        centres_KD = _centres(unit_ND, cluster_N, centres_KD)
        objective = float(np.einsum("nd,nd->n", unit_ND, centres_KD[cluster_N]).sum(dtype=np.float64))
        if watch is not None:
            watch(objective)
    return centres_KD, cluster_N, objective


def _filled(cluster_N: np.ndarray, cosines_NK: np.ndarray) -> np.ndarray:
    """Every cluster has a member: an empty one gets the feature that is farthest from its own centre.

    That feature then is its own centre, with a cosine of 1, so the objective does not fall.
    """
    cluster_N, count = cluster_N.copy(), cosines_NK.shape[1]
    own_N = cosines_NK[np.arange(len(cluster_N)), cluster_N]
    sizes_K = np.bincount(cluster_N, minlength=count)
    for empty in np.flatnonzero(sizes_K == 0):
        spare_N = np.where(sizes_K[cluster_N] > 1, own_N, np.inf)  # the last of a cluster stays
        farthest = int(spare_N.argmin())
        sizes_K[cluster_N[farthest]] -= 1
        cluster_N[farthest], sizes_K[empty], own_N[farthest] = empty, 1, np.inf
    return cluster_N


def _centres(unit_ND: np.ndarray, cluster_N: np.ndarray, before_KD: np.ndarray) -> np.ndarray:
    """(K, D) directions of the clusters' sums; where a sum is zero every direction is as good: the old one stays."""
    member_KN = np.zeros((len(before_KD), len(unit_ND)), np.float32)
    member_KN[cluster_N, np.arange(len(unit_ND))] = 1
    sums_KD = (member_KN @ unit_ND).astype(np.float64)
    lengths_K = np.linalg.norm(sums_KD, axis=1)
    # Opposite features cancel but for rounding, whose direction means nothing.
    lost_K = lengths_K <= np.finfo(np.float32).eps * member_KN.sum(1)
    return np.where(lost_K[:, None], before_KD, sums_KD / np.where(lost_K, 1.0, lengths_K)[:, None]).astype(np.float32)
