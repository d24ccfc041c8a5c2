"""From the logits of a bag's tiles to those of the bag: the step that lets labels of whole slides teach tiles.

Shapes: N tiles, M classes, D numbers of a tile's feature, A = hidden numbers of the attention.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from lamella.config import Settings

Pooling = Literal["attention", "topk", "mean", "max", "none"]

_HIDDEN = 64  # of the attention; Ilse et al. took 128 for features of 512, those here are of 24 to 1280


class BagPoolSettings(Settings):
    """How tiles speak for their slide."""

    kind: Pooling = "topk"
    """attention: a learnt weighted mean. topk: the mean of a class's strongest tiles. mean, max: of all. none: every
    tile is given the slide's label (the mean speaks for the slide where one answer is needed)."""
    top_fraction: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of the tiles that topk takes the mean of; one at least. A quarter was too few where slides hold
    two or three of four classes (docs/LOG.md)."""


class BagPool(nn.Module):
    """Pools the logits of tiles.

    The bag's logit is a weighted mean of its tiles' own, class by class. So a tile's logit, and the map it comes from,
    mean the same as the bag's: what attention over features followed by a classifier would lose.

    Attention is gated (Ilse et al. 2018, arXiv 1802.04712, eq. 9), with weights of its own for each class.

    Args:
        settings: Which.
        dim: Numbers D of a tile's feature.
        classes: M.
    """

    def __init__(self, settings: BagPoolSettings, dim: int, classes: int) -> None:
        super().__init__()
        self.settings = settings
        if settings.kind == "attention":
            self.content, self.gate = nn.Linear(dim, _HIDDEN), nn.Linear(dim, _HIDDEN)
            self.attend = nn.Linear(_HIDDEN, classes, bias=False)  # a bias would add the same to every tile

    def forward(self, logits_NM: Tensor, features_ND: Tensor | None = None) -> Tensor:
        """(M,) logits of one bag.

        Args:
            logits_NM: Of its tiles.
            features_ND: Of its tiles, for attention.

        Raises:
            ValueError: The bag is empty, or attention is given no features.
        """
        if not len(logits_NM):
            raise ValueError("a bag without tiles has no label to predict")
        kind = self.settings.kind
        if kind == "attention":
            return (self.weights(features_ND) * logits_NM).sum(0)
        if kind == "max":
            return logits_NM.amax(0)
        if kind == "topk":
            return logits_NM.topk(math.ceil(self.settings.top_fraction * len(logits_NM)), dim=0).values.mean(0)
        return logits_NM.mean(0)

    def weights(self, features_ND: Tensor | None) -> Tensor:
        """(N, M) how much each tile counts; each class's add up to 1."""
        if features_ND is None:
            raise ValueError("attention needs the features of the tiles")
        hidden_NA = torch.tanh(self.content(features_ND)) * torch.sigmoid(self.gate(features_ND))
        return self.attend(hidden_NA).softmax(0)

    def of_bags(self, logits_NM: Tensor, features_ND: Tensor | None, bag_N: Tensor, bags: int) -> Tensor:
        """(bags, M) logits of the bags of a batch.

        Args:
            logits_NM: Of all tiles.
            features_ND: Of all tiles, for attention.
            bag_N: int64, number of each tile's bag, 0 to bags - 1.
            bags: How many there are; each has a tile at least.
        """
        pooled = []
        for bag in range(bags):
            own = bag_N == bag
            pooled.append(self(logits_NM[own], None if features_ND is None else features_ND[own]))
        return torch.stack(pooled)
