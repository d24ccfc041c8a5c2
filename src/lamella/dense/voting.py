"""Overlapping tiles vote for the class of a pixel, instead of having their probabilities averaged.

Shapes: B tiles, C channels, H, W pixels of a tile.
"""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor

from lamella.errors import LamellaError
from lamella.models.dense_contract import DenseModel


class Voting:
    """A dense model whose maps are 1 at a tile's most probable class and 0 at the others.

    What the engine blends of them are shares of the votes, weighted as the blending's window weights a tile's pixels;
    turned copies (TTA) vote one by one too. The class with most votes wins, the first of equal ones. Members of an
    ensemble are averaged before the tile votes.

    Args:
        model: Whose tiles vote.

    Raises:
        LamellaError: Its maps are no probabilities of classes.
    """

    def __init__(self, model: DenseModel) -> None:
        if model.contract.kind != "classes":
            raise LamellaError(model.name, "its maps are values, and only classes can be voted on", "Use averaging.")
        self._model = model
        self.name, self.contract = model.name, model.contract

    @property
    def fingerprint(self) -> str:
        """16 hex digits; other than the model's own."""
        return hashlib.sha256(f"voting {self._model.fingerprint}".encode()).hexdigest()[:16]

    def maps(self, images: Tensor) -> Tensor:
        """uint8 (B, 3, H, W) to float32 (B, C, H, W), one 1 along C."""
        shares = self._model.maps(images)
        votes = torch.zeros(shares.shape, dtype=torch.float32, device=shares.device)
        return votes.scatter_(1, shares.argmax(1, keepdim=True), 1.0)  # torch documents that it takes the first

    def to(self, device: Any) -> Voting:
        self._model.to(device)
        return self
