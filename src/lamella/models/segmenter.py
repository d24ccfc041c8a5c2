"""A segmenter: a backbone and a head that give each pixel of a tile the probability of every class.

Shapes: B tiles, C classes, H, W pixels of a tile, h, w of the finest map.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lamella.models.decoders.building import head_from
from lamella.models.dense_contract import DenseContract
from lamella.models.fingerprint import module_fingerprint
from lamella.models.pyramids.backbone import Backbone


class Segmenter(nn.Module):
    """A dense model of kind `classes`. Made ready to use; `train()` and the backbone's own settings ready it to learn.

    Args:
        backbone: Tiles to feature maps.
        head: Feature maps to logits on the finest grid; has `settings`.
        contract: What it is shown and what its channels mean.
        name: For tables and pictures.

    Raises:
        ValueError: The contract is not one of classes, or its tile does not fit the backbone.
    """

    def __init__(self, backbone: Backbone, head: nn.Module, contract: DenseContract, name: str) -> None:
        super().__init__()
        if contract.kind != "classes" or contract.stride != 1:
            raise ValueError("a segmenter gives classes, one for each pixel")
        if contract.tile_px % backbone.multiple_px or contract.multiple_px % backbone.multiple_px:
            raise ValueError(f"tiles must be multiples of the backbone's {backbone.multiple_px} px")
        self.backbone, self.head = backbone, head
        self.contract, self.name = contract, name
        self.eval()

    def logits(self, images: Tensor) -> Tensor:
        """uint8 (B, 3, H, W) to (B, C, H, W) scores before the softmax; gradients flow."""
        return self.logits_of(self.backbone(images), (images.shape[-2], images.shape[-1]))

    def logits_of(self, levels: list[Tensor], size: tuple[int, int]) -> Tensor:
        """The same of what the backbone made of tiles of this (height, width)."""
        return upsampled_logits(self.head, levels, size)

    @torch.no_grad()
    def maps(self, images: Tensor) -> Tensor:
        """uint8 (B, 3, H, W) at the contract's mpp to float32 (B, C, H, W): probabilities that add up to 1."""
        return self.logits(images).float().softmax(1)

    @property
    def fingerprint(self) -> str:
        return module_fingerprint(self, {**self.description(), "contract": self.contract.facts()})

    def description(self) -> Mapping[str, Any]:
        """What config.json says of the two networks."""
        return {
            "backbone": {"kind": self.backbone.kind, **self.backbone.description()},
            "head": self.head.settings.model_dump(),  # type: ignore[union-attr, operator]
        }


def upsampled_logits(head: nn.Module, levels: list[Tensor], size: tuple[int, int]) -> Tensor:
    """(B, C, *size) logits of a head, bilinear from the finest grid, in 32 bits."""
    return F.interpolate(head(levels).float(), size=size, mode="bilinear", align_corners=False)


def fresh_head(told: Mapping[str, Any], backbone: Backbone, classes: int) -> nn.Module:
    """The head that a description tells of, fitting a backbone."""
    return head_from(dict(told), backbone.widths, classes)
