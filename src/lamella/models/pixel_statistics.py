"""Grey values without learning, as an encoder: what a network must beat to have learned more than where it is bright.

Shapes: B images, C = 3 channels, Y rows, X columns, D width.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lamella.models.contract import InputContract, check_images
from lamella.models.fingerprint import fingerprint_of

PIXEL_STATS = "pixel-stats"
# The image reduced to 16 x 16 shows where it is bright, as a thumbnail does; more pixels only add noise to a probe.
_SIDE = 16
# Twentieths: enough for the shape of a histogram.
_QUANTILES = 21
# Images at a time: sorting 32 of 512 px needs about 70 MB.
_CHUNK = 32


class PixelStatistics:
    """A 16 x 16 thumbnail of the grey image, 21 quantiles of its grey values, their mean and deviation.

    Args:
        like: Take over this contract's spacing and size, so that both encoders are shown the same views.
    """

    name = PIXEL_STATS

    def __init__(self, like: InputContract | None = None) -> None:
        mpp, size_px = (like.mpp, like.size_px) if like else (None, 224)
        width = _SIDE**2 + _QUANTILES + 2
        self.contract = InputContract(
            mpp, size_px, (0.0,) * 3, (1.0,) * 3, patch_px=size_px, dim=width, licence="no weights"
        )

    def tokens(self, images: Tensor, mpp: float | None = None) -> Tensor:
        """One token for the whole image: (B, 1, D)."""
        return self.pooled(images, mpp)[:, None]

    def pooled(self, images: Tensor, mpp: float | None = None) -> Tensor:
        """(B, D) float32 in 0..1 from uint8 (B, 3, H, W) images."""
        check_images(images)
        return torch.cat([_statistics(part) for part in images.split(_CHUNK)])

    def to(self, device: Any) -> PixelStatistics:
        """Nothing to move: it works where the images are."""
        return self

    @property
    def fingerprint(self) -> str:
        return fingerprint_of({"name": self.name, "version": 1, "contract": self.contract.facts()}, {})


def _statistics(images: Tensor) -> Tensor:
    grey_BYX = images.float().mean(1) / 255
    thumbnail = F.adaptive_avg_pool2d(grey_BYX[:, None], _SIDE).flatten(1)
    flat = grey_BYX.flatten(1)
    at = torch.linspace(0, flat.shape[1] - 1, _QUANTILES, device=flat.device).round().long()
    ranked = flat.sort(dim=1).values[:, at]  # torch.quantile refuses more than 16 million values
    return torch.cat([thumbnail, ranked, flat.mean(1, keepdim=True), flat.std(1, keepdim=True)], dim=1)
