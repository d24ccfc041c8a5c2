"""Several dense models of the same channels, whose maps are averaged: the folds of one training, say.

Shapes: B tiles, C channels, H, W pixels of a tile.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from lamella.errors import LamellaError
from lamella.models.dense_contract import DenseContract, DenseModel


class Ensemble:
    """A dense model whose maps are the mean of its members' (of probabilities, where they are that).

    Args:
        members: Two or more models that see and return the same.
        name: For tables and pictures.

    Raises:
        LamellaError: The members' contracts differ.
    """

    def __init__(self, members: Sequence[DenseModel], name: str) -> None:
        self.name, self.contract, self._members = name, members[0].contract, tuple(members)
        for member in members[1:]:
            if differing := _differences(self.contract, member.contract):
                raise LamellaError(
                    name,
                    f"{members[0].name} and {member.name} cannot be averaged: they differ in {', '.join(differing)}",
                    "Average models of one training, or predict with each of them alone.",
                )

    @property
    def members(self) -> tuple[DenseModel, ...]:
        """The models, as they were given."""
        return self._members

    @property
    def fingerprint(self) -> str:
        """16 hex digits; the same for the same members in any order."""
        text = " ".join(sorted(member.fingerprint for member in self._members))
        return hashlib.sha256(f"ensemble {text}".encode()).hexdigest()[:16]

    def maps(self, images: Tensor) -> Tensor:
        """uint8 (B, 3, H, W) to float32 (B, C, H, W)."""
        total = self._members[0].maps(images).float().clone()
        for member in self._members[1:]:
            total += member.maps(images)
        return total / len(self._members)

    def to(self, device: Any) -> Ensemble:
        for member in self._members:
            member.to(device)
        return self


def _differences(one: DenseContract, other: DenseContract) -> list[str]:
    first, second = one.facts(), other.facts()
    return [key for key in first if key != "licence" and first[key] != second[key]]
