"""What weakly supervised models offer beside the maps of a dense model: bounded evidence and image-level logits.

Shapes: B tiles, N tiles of a slide, C channels (the classes, then the background where there is one), M classes,
D numbers of a tile's feature, H, W pixels of a tile.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from lamella.models.dense_contract import DenseModel


@runtime_checkable
class WeakModel(DenseModel, Protocol):
    """A dense model that was trained with labels of whole images or slides."""

    def tile_logits(self, images: Tensor) -> Tensor:
        """uint8 (B, 3, H, W) to (B, M) logits: does the tile hold any of the class? Fused over the scales."""

    def tile_answers(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The same, and float32 (B, D) features that pooling by attention reads, in one pass."""

    def bag_logits(self, tile_logits_NM: Tensor, features_ND: Tensor | None = None) -> Tensor:
        """(N, M) logits of a bag's tiles to (M,) of the bag, pooled as in training; attention needs the features."""

    @property
    def facts(self) -> dict[str, Any]:
        """How it was trained: `labels` (patch or slide), `pooling`, `background`, ...; written into its folder."""
