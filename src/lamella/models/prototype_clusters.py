"""Prototypes from exemplars: the groups of each class, what is typical of each, and whether they tell classes apart.

Shapes: N exemplars, K prototypes, D numbers of a feature.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from lamella.errors import LamellaError
from lamella.models.cosine_kmeans import cosine_kmeans
from lamella.models.prototypes import unit_length


@dataclass(frozen=True)
class Cluster:
    """A group of exemplars of one class.

    Attributes:
        name: The class.
        number: Of the group within its class, the largest first.
        rows: Its exemplars, the one nearest to the centre first.
        cosines: Of these with the centre.
        centre_D: float32, of unit length.
        margin: How much nearer it is to its own exemplars than to those of other classes; see `margins`.
        kept: Whether it is made a prototype.
    """

    name: str
    number: int
    rows: np.ndarray
    cosines: np.ndarray
    centre_D: np.ndarray
    margin: float = float("nan")
    kept: bool = True

    @property
    def title(self) -> str:
        """`gland 1`, as people count."""
        return f"{self.name} {self.number + 1}"


def cluster_classes(
    features_ND: np.ndarray,
    rows_of: Mapping[str, np.ndarray],
    k_list: Sequence[int],
    *,
    restarts: int,
    seed: int,
) -> list[Cluster]:
    """k-means of each class by itself, so that a class changes no other's prototypes.

    Args:
        features_ND: Of all exemplars.
        rows_of: Class -> its exemplars, in the order of the channels.
        k_list: How many groups of each.
        restarts: Starts of each k-means.
        seed: Of the starts.

    Returns:
        Class by class, the largest group first.

    Raises:
        LamellaError: A class has no exemplars, or fewer different ones than groups; or a feature has no direction.
    """
    clusters = []
    for (name, rows), k in zip(rows_of.items(), k_list, strict=True):
        if not len(rows):
            raise LamellaError(name, "it has no exemplars", "Label training slides with it, or leave it out.")
        try:
            found = cosine_kmeans(features_ND[rows], k, restarts=restarts, seed=seed, name=f"exemplars of {name}")
            unit_ND = np.asarray(unit_length(torch.from_numpy(features_ND[rows])))
        except ValueError as error:
            raise LamellaError(
                f"exemplars of {name}", str(error), "Check the encoder; run `lamella weak features` again."
            ) from error
        for number, centre_D in enumerate(found.centres_KD):
            members = np.flatnonzero(found.cluster_N == number)
            cosines = unit_ND[members] @ centre_D
            nearest_first = np.argsort(-cosines, kind="stable")
            clusters.append(Cluster(name, number, rows[members[nearest_first]], cosines[nearest_first], centre_D))
    return clusters


def most_distinct(
    clusters: Sequence[Cluster], features_ND: np.ndarray, rows_of: Mapping[str, np.ndarray], k_list: Sequence[int]
) -> list[Cluster]:
    """The clusters with their margins; of each class the k of the widest are kept and come first, by size.

    A label of a slide holds for few of its tiles: what surrounds tumours fills clusters of its own among the tiles of
    tumour slides, but tiles of other slides are like it, too.
    """
    found = margins(clusters, features_ND, rows_of)
    judged = [replace(cluster, margin=margin) for cluster, margin in zip(clusters, found, strict=True)]
    result: list[Cluster] = []
    for name, k in zip(rows_of, k_list, strict=True):
        own = [cluster for cluster in judged if cluster.name == name]
        kept = {cluster.number for cluster in sorted(own, key=lambda cluster: -cluster.margin)[:k]}
        ordered = sorted(own, key=lambda cluster: (cluster.number not in kept, cluster.number))
        result += [replace(each, number=at, kept=each.number in kept) for at, each in enumerate(ordered)]
    return result


def margins(clusters: Sequence[Cluster], features_ND: np.ndarray, rows_of: Mapping[str, np.ndarray]) -> list[float]:
    """The mean cosine of a centre with its members, less that with the nearest tenth of the exemplars of another class.

    Of the other classes the nearest one counts. 0 and less: another class shows the same. One class alone has nothing
    to be told from; its margins are those to nothing, the mean cosine.
    """
    unit_ND = np.asarray(unit_length(torch.from_numpy(features_ND)))
    found = []
    for cluster in clusters:
        cosines_N = unit_ND @ cluster.centre_D
        others = [_nearest_tenth(cosines_N[rows]) for name, rows in rows_of.items() if name != cluster.name]
        found.append(float(cluster.cosines.mean()) - max(others, default=0.0))
    return found


def _nearest_tenth(cosines: np.ndarray) -> float:
    """A tenth: what a class is as a rule of a slide that holds it; one exemplar may be anything."""
    return float(np.sort(cosines)[-max(1, len(cosines) // 10) :].mean())


def told_apart(
    features_ND: np.ndarray, rows_of: Mapping[str, np.ndarray], prototypes_KD: np.ndarray, class_of_K: np.ndarray
) -> dict[str, float]:
    """Class -> share of its exemplars whose nearest prototype is one of the class.

    1 / number of classes is what prototypes that mean nothing would reach. The prototypes were made from the same
    exemplars, and exemplars of slides may be wrong: a share tells whether something is amiss, not how well it works.
    """
    shares = {}
    for number, (name, rows) in enumerate(rows_of.items()):
        nearest = (np.asarray(unit_length(torch.from_numpy(features_ND[rows]))) @ prototypes_KD.T).argmax(1)
        shares[name] = float((class_of_K[nearest] == number).mean())
    return shares
