"""Colour and texture of every token, without weights: features that need no download and whose meaning is known.

What a token says comes from its own pixels and from a few around it, so it is where it says it is.

Shapes: B images, Y x X pixels, C = 3 channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lamella.models.pyramids.backbone import Backbone

# Ruifrok and Johnston 2001 (Anal Quant Cytol Histol 23:291), table of stains: optical densities of haematoxylin and
# eosin in red, green and blue, each of length 1.
_HAEMATOXYLIN, _EOSIN = (0.650, 0.704, 0.286), (0.072, 0.990, 0.105)
# Density of haematoxylin from which a pixel counts as nucleus, softly over a tenth: darker than stroma's on H&E.
_NUCLEUS, _SOFT = 0.35, 0.1
# Sides of the means whose differences are bands of texture: detail of about 1 to 8 pixels.
_BANDS = (1, 3, 9)
# Shares of a token's pixels that are darker in a channel. The mean says little of a mixture: of H&E's dark nuclei and
# pale stroma the tails say most (her2st: docs/results).
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
NAMES = (
    *(f"mean_{name}" for name in ("red", "green", "blue")),
    *(f"density_{name}" for name in ("red", "green", "blue")),
    *(f"deviation_{name}" for name in ("red", "green", "blue")),
    "haematoxylin",
    "haematoxylin_deviation",
    "haematoxylin_most",
    "eosin",
    "eosin_deviation",
    "nuclei",
    "gradient",
    "band_fine",
    "band_coarse",
    *(f"{name}_{share:.0%}" for name in ("red", "green", "blue") for share in QUANTILES),
)


class ColourPyramid(Backbone):
    """Statistics of the pixels of each token (`NAMES`), at strides 4, 8, 16 and 32.

    The first three are the mean red, green and blue from 0 to 1; densities are -log10 of the light that is left.
    """

    kind = "colour"
    strides = (4.0, 8.0, 16.0, 32.0)
    widths = (len(NAMES),) * 4
    multiple_px = 32
    licence = "no weights"

    def __init__(self) -> None:
        super().__init__()
        stains_SC = torch.tensor([_HAEMATOXYLIN, _EOSIN])
        self.register_buffer("unmix_SC", torch.linalg.pinv(stains_SC.T), persistent=False)

    def forward(self, images: Tensor) -> list[Tensor]:
        self.check(images)
        return [self._level(images, int(stride)) for stride in self.strides]

    def level(self, images: Tensor, number: int) -> Tensor:
        self.check(images)
        return self._level(images, int(self.strides[number]))

    def description(self) -> Mapping[str, Any]:
        return {"version": 2}

    def _level(self, images: Tensor, stride: int) -> Tensor:
        light_BCYX = images.float() / 255
        density_BCYX = -torch.log10((images.float() + 1) / 256)
        stains_BSYX = torch.einsum("sc,bcyx->bsyx", self.unmix_SC, density_BCYX)
        haematoxylin, eosin = stains_BSYX[:, :1], stains_BSYX[:, 1:]

        def mean(values: Tensor) -> Tensor:
            return F.avg_pool2d(values, stride)

        def deviation(values: Tensor) -> Tensor:
            return (mean(values**2) - mean(values) ** 2).clamp(min=0).sqrt()

        grey = density_BCYX.mean(1, keepdim=True)
        parts = [
            mean(light_BCYX),
            mean(density_BCYX),
            deviation(density_BCYX),
            mean(haematoxylin),
            deviation(haematoxylin),
            F.max_pool2d(haematoxylin, stride),
            mean(eosin),
            deviation(eosin),
            mean(torch.sigmoid((haematoxylin - _NUCLEUS) / _SOFT)),
            mean(_gradient(grey)),
            *(mean(band.abs()) for band in _bands(grey)),
            _quantiles(images, stride) / 255,
        ]
        return torch.cat(parts, dim=1)


def _quantiles(images: Tensor, stride: int) -> Tensor:
    """(B, 3 x QUANTILES, Y / stride, X / stride) of each token's own pixels, between two of them linearly (numpy's)."""
    batch, channels, height, width = images.shape
    down, across = height // stride, width // stride
    tokens = images.reshape(batch, channels, down, stride, across, stride).permute(0, 1, 2, 4, 3, 5).flatten(-2)
    ordered = tokens.sort(dim=-1).values
    at = torch.tensor(QUANTILES, dtype=torch.float64) * (stride**2 - 1)
    below = at.floor().long()
    above, share = (below + 1).clamp(max=stride**2 - 1), (at - below).float().to(images.device)
    found = torch.lerp(ordered[..., below].float(), ordered[..., above].float(), share)
    return found.permute(0, 1, 4, 2, 3).reshape(batch, channels * len(QUANTILES), down, across)


def _gradient(grey_B1YX: Tensor) -> Tensor:
    """Length of the central differences; the image goes on unchanged beyond its edge."""
    padded = F.pad(grey_B1YX, (1, 1, 1, 1), mode="replicate")
    across = padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]
    down = padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]
    return 0.5 * (across**2 + down**2).sqrt()


def _bands(grey_B1YX: Tensor) -> list[Tensor]:
    """Differences of means over ever larger squares."""
    blurred = []
    for side in _BANDS:
        padded = F.pad(grey_B1YX, (side // 2,) * 4, mode="replicate")
        blurred.append(F.avg_pool2d(padded, side, stride=1))
    return [one - other for one, other in pairwise(blurred)]
