"""Swin (arXiv 2103.14030) through transformers, the backbone of Mask2Former: strides 4, 8, 16 and 32."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from lamella.models.mask2former_folder import local_folder, whole_network
from lamella.models.pyramids.backbone import Normalised
from lamella.models.transformers_folder import model_type_of, network_from

_STAGES = 4
_OUT = [f"stage{number}" for number in range(1, _STAGES + 1)]
# Layers that no map is made of: a classifier, and the norm before it. The maps have norms of their own.
_UNUSED = (r"classifier\.", r"swin\.layernorm\.", r"layernorm\.", r"pooler\.")


class Swin(Normalised):
    """The four stages of a Swin transformer, each with a norm.

    Args:
        network: A `transformers.SwinBackbone` that gives all four.
        licence: Of its weights.
    """

    kind = "swin"
    strides = (4.0, 8.0, 16.0, 32.0)
    multiple_px = 32

    def __init__(self, network: Any, licence: str = "no weights of others") -> None:
        super().__init__()
        self.network, self.licence = network, licence
        self.widths = tuple(int(width) for width in network.channels)

    def levels(self, x_BCHW: Tensor) -> list[Tensor]:
        return list(self.network(x_BCHW).feature_maps)

    def description(self) -> Mapping[str, Any]:
        return {"config": json.loads(self.network.config.to_json_string(use_diff=False)), "licence": self.licence}


def fresh_swin(**sizes: Any) -> Swin:
    """A network with weights drawn from torch's random state.

    Args:
        **sizes: Of `transformers.SwinConfig`, such as embed_dim and depths; Swin-T unless given.
    """
    from transformers import SwinBackbone, SwinConfig

    return Swin(SwinBackbone(SwinConfig(**sizes, out_features=_OUT)))


def swin_from(description: Mapping[str, Any]) -> Swin:
    """The network that `description` told of, with fresh weights."""
    from transformers import SwinBackbone, SwinConfig

    return Swin(SwinBackbone(SwinConfig.from_dict(dict(description["config"]))), description["licence"])


def pretrained_swin(place: str) -> Swin:
    """The backbone of a Mask2Former checkpoint, or a Swin checkpoint (its maps' norms then begin as ones and zeros).

    Args:
        place: A folder with config.json and weights, or a hub id such as microsoft/swin-tiny-patch4-window7-224.

    Raises:
        CheckpointError: It is none of them, is damaged, or weights are missing.
    """
    from transformers import SwinBackbone

    folder = local_folder(place)
    licence = f"that of {Path(place).name if Path(place).is_dir() else place}"
    if model_type_of(folder) == "mask2former":
        return Swin(whole_network(place).model.pixel_level_module.encoder, licence)
    network = network_from(
        folder,
        SwinBackbone,
        model_types=("swin",),
        unused=_UNUSED,
        replaced=(r"hidden_states_norms\.",),
        out_features=_OUT,
    )
    return Swin(network, licence)
