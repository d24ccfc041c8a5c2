"""GradCAM (arXiv 1610.02391): which places of a feature map raise a class's logit, by gradients; no layer is special.

Of a linear classifier of a mean it is the class activation map, divided by the number of places.

Shapes: B tiles, M classes, C channels of a level, h, w its places, N = h w.
"""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor

from lamella.models.dense_contract import DenseContract
from lamella.models.prototype_segmenter import PrototypeSegmenter


def gradcam(level_BChw: Tensor, logits_BM: Tensor, *, only_positive: bool = True) -> Tensor:
    """(B, M, h, w) float32: channels weighted by the mean of the logit's gradient, without what lowers it.

    Args:
        level_BChw: What the logits were made of; requires a gradient.
        logits_BM: Of the tiles, each of its own tile alone.
        only_positive: Cut at 0, as the paper does.
    """
    maps = []
    for number in range(logits_BM.shape[1]):
        (slope,) = torch.autograd.grad(logits_BM[:, number].sum(), level_BChw, retain_graph=True)
        maps.append(torch.einsum("bc,bchw->bhw", slope.float().mean((2, 3)), level_BChw.detach().float()))
    cam_BMhw = torch.stack(maps, dim=1)
    return cam_BMhw.relu() if only_positive else cam_BMhw


def gradcam_logits(level_BChw: Tensor, logits_BM: Tensor) -> Tensor:
    """(B, M, h, w) logits of places whose mean is the tile's logit: GradCAM times N, before the cut, and a constant.

    Of a linear classifier of the mean they are its own logits at each place. So they can be bounded by a sigmoid,
    where GradCAM is usually divided by a tile's largest value, and then differs from the next tile's.
    """
    cam_BMhw = gradcam(level_BChw, logits_BM, only_positive=False) * level_BChw[0, 0].numel()
    rest_BM = logits_BM.detach().float() - cam_BMhw.mean((2, 3))
    return cam_BMhw + rest_BM[:, :, None, None]


class GradCam:
    """A dense model that labels pixels by the GradCAM of a weakly taught model's image-level logits.

    Args:
        model: Whose.
        level: Number of the level whose places are asked; the last by default.
    """

    def __init__(self, model: PrototypeSegmenter, level: int = -1) -> None:
        self._model, self._level = model, level % model.scales
        self.name = f"GradCAM of {model.name}"

    @property
    def contract(self) -> DenseContract:
        return self._model.contract

    @property
    def fingerprint(self) -> str:
        """16 hex digits."""
        return hashlib.sha256(f"gradcam {self._level} {self._model.fingerprint}".encode()).hexdigest()[:16]

    @property
    def facts(self) -> dict[str, Any]:
        return {**self._model.facts, "maps": f"GradCAM of level {self._level}"}

    def maps(self, images: Tensor) -> Tensor:
        """uint8 (B, 3, H, W) to float32 (B, C, H, W): probabilities that add up to 1."""
        with torch.no_grad():
            levels = self._model.backbone(images)
        levels[self._level] = levels[self._level].detach().requires_grad_()
        with torch.enable_grad():
            logits = self._model.scored_logits(self._model.used_scales(levels, self._model.counted))
            places = gradcam_logits(levels[self._level], logits)
        return self._model.probabilities_of(places.sigmoid(), images).detach()

    def tile_logits(self, images: Tensor) -> Tensor:
        """As the model's."""
        return self._model.tile_logits(images)

    def tile_answers(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """As the model's."""
        return self._model.tile_answers(images)

    def bag_logits(self, tile_logits_NM: Tensor, features_ND: Tensor | None = None) -> Tensor:
        """As the model's."""
        return self._model.bag_logits(tile_logits_NM, features_ND)

    def to(self, device: Any) -> GradCam:
        self._model.to(device)
        return self
