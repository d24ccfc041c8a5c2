"""SAM 2's image encoder (Hiera and its neck) as a backbone: strides 4, 8, 16 and 32.

The encoder takes images of any size: its windows are padded inside, and its global positions are interpolated. So a
tile is never squashed or padded to 1024 px; `enlarge` shows the tile larger, where structures would be too small.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor

from lamella.models.pyramids.backbone import Normalised

Maps = Literal["stages", "neck"]


class HieraPyramid(Normalised):
    """The image encoder of a Sam2Model.

    Args:
        vision: A `transformers.Sam2VisionModel`.
        maps: stages: what the four stages give, 96 to 768 wide in the tiny model. neck: the maps that SAM 2's own mask
            decoder reads, all 256 wide, strides 4 to 16.
        enlarge: How many times larger than it is a tile is shown to the encoder.
        licence: Of its weights.
    """

    kind = "sam2"

    def __init__(self, vision: Any, maps: Maps = "stages", enlarge: int = 1, licence: str = "apache-2.0") -> None:
        super().__init__()
        self.vision = vision
        self.maps, self.enlarge, self.licence = maps, enlarge, licence
        config = vision.config
        stages = tuple(config.backbone_config.embed_dim_per_stage)
        count = len(stages) if maps == "stages" else config.num_feature_levels
        self.widths = stages if maps == "stages" else (config.fpn_hidden_size,) * count
        self.strides = tuple(4 * 2**level / enlarge for level in range(count))
        # Every stage halves the map, from a stride of 4 on.
        self.multiple_px = max(1, 4 * 2 ** (len(stages) - 1) // enlarge)

    def thaw(self) -> None:
        self.requires_grad_(True)
        if self.maps == "stages":
            self.vision.neck.requires_grad_(False)  # it takes no part

    def levels(self, x_BCHW: Tensor) -> list[Tensor]:
        if self.enlarge > 1:
            x_BCHW = F.interpolate(x_BCHW, scale_factor=self.enlarge, mode="bilinear", align_corners=False)
        if self.maps == "neck":
            return list(self.vision(x_BCHW).fpn_hidden_states)  # finest first
        stages = self.vision.backbone(x_BCHW).intermediate_hidden_states
        return [stage_BHWD.permute(0, 3, 1, 2) for stage_BHWD in stages]

    def description(self) -> Mapping[str, Any]:
        config = self.vision.config.to_dict()
        return {"vision": config, "maps": self.maps, "enlarge": self.enlarge, "licence": self.licence}


def hiera_from(description: Mapping[str, Any]) -> HieraPyramid:
    """The network that `description` told of, with fresh weights."""
    from transformers import Sam2VisionConfig, Sam2VisionModel

    vision = Sam2VisionModel(Sam2VisionConfig.from_dict(dict(description["vision"])))
    return HieraPyramid(vision, description["maps"], description["enlarge"], description["licence"])
