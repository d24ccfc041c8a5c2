"""Prototypes from exemplars: the groups of each class, what is typical of each, and whether they tell classes apart.

Shapes: N exemplars, K prototypes, D numbers of a feature.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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
    """

    name: str
    number: int
    rows: np.ndarray
    cosines: np.ndarray
    centre_D: np.ndarray

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
