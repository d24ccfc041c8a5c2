"""Weakly taught models of a few thousand random weights."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F

from lamella.models.bag_pool import BagPoolSettings
from lamella.models.prototype_segmenter import PrototypeSegmenter
from lamella.models.prototypes import Prototypes
from lamella.models.pyramids import mix_transformer
from lamella.models.weak_building import make_weak_model
from lamella.models.weak_settings import WeakModelSettings

CLASSES = ("tumour", "stroma")
SCRATCH: dict[str, Any] = {"backbone": {"name": "segformer"}, "from_scratch": True}


def prototypes(
    classes: tuple[str, ...] = (*CLASSES, "background"), k_list: tuple[int, ...] = (2, 1, 3), dim: int = 20
) -> Prototypes:
    features = torch.randn(sum(k_list), dim, generator=torch.Generator().manual_seed(5))
    return Prototypes(F.normalize(features, dim=1), classes, k_list, "tiny", "0" * 16)


def tiny_weak(
    told: Prototypes | None = None,
    *,
    background: str | None = "background",
    pooling: str = "topk",
    facts: dict[str, Any] | None = None,
    **settings: Any,
) -> PrototypeSegmenter:
    """A model on a tiny MiT, unless the settings name another backbone."""
    with patch.dict(mix_transformer._SIZES, b0=((8, 16, 40, 64), (1, 1, 1, 1))):
        return make_weak_model(
            WeakModelSettings(**{**SCRATCH, **settings}),
            told or prototypes(),
            classes=CLASSES,
            background=background,
            mpp=0.5,
            tile_px=64,
            pooling=BagPoolSettings(kind=pooling),  # type: ignore[arg-type]
            facts=facts,
        )


def tiles(count: int = 2, height: int = 64, width: int = 64, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, height, width), generator=generator).to(torch.uint8)
