"""Colour without morphology, as an encoder.

Shapes: B images, C = 3 channels, D width, L = 256 levels, M pixels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lamella.models.contract import InputContract, check_images
from lamella.models.fingerprint import fingerprint_of

COLOUR_STATS = "colour-stats"


class ColourStatistics:
    """Colour without morphology: the encoder that a model must beat to have learned more than stain.

    Per channel the mean, deviation and five percentiles; histograms of optical density, hue, saturation and value; and
    the mean and covariance of the optical densities, in which the two stains are directions. Shuffling an image's
    pixels changes nothing.

    Args:
        like: Take over this contract's spacing and size, so that both encoders are shown the same tiles.
    """

    name = COLOUR_STATS

    def __init__(self, like: InputContract | None = None) -> None:
        # Without a model to compare with: 256 px at 0.5 mpp, the most common tile.
        mpp, size_px = (like.mpp, like.size_px) if like else (0.5, 256)
        width = self.pooled(torch.zeros(1, 3, 1, 1, dtype=torch.uint8)).shape[1]
        self.contract = InputContract(
            mpp, size_px, (0.0,) * 3, (1.0,) * 3, patch_px=size_px, dim=width, licence="no weights"
        )

    def tokens(self, images: Tensor, mpp: float | None = None) -> Tensor:
        """One token for the whole image: (B, 1, D)."""
        return self.pooled(images, mpp)[:, None]

    def pooled(self, images: Tensor, mpp: float | None = None) -> Tensor:
        """(B, D) float32 from uint8 (B, 3, H, W) images; colours do not depend on their spacing."""
        check_images(images)
        return torch.cat([_colour_statistics(part) for part in images.split(_COLOUR_CHUNK)])

    def to(self, device: Any) -> ColourStatistics:
        """Nothing to move: it works where the images are."""
        return self

    @property
    def fingerprint(self) -> str:
        return fingerprint_of({"name": self.name, "version": 1, "contract": self.contract.facts()}, {})


# Images at a time: 32 of 256 px need about 100 MB for hue and densities.
_COLOUR_CHUNK = 32
_PERCENTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
# Bins: enough to tell haematoxylin from eosin and pale from dark, few enough for small data sets to probe.
_DENSITY_BINS, _HUE_BINS, _SATURATION_BINS, _VALUE_BINS = 16, 16, 8, 8
# Optical density of the darkest byte, -log10(1 / 256); the upper edge of its histogram.
_DENSITY_MAX = 2.4083


def _colour_statistics(images: Tensor) -> Tensor:
    """(B, D) float32. What depends on one channel alone comes exactly from its 256 counts."""
    levels = torch.arange(256, device=images.device)
    share_BCL = _histogram(images.flatten(2).long(), 256)
    value_L = levels / 255
    mean = share_BCL @ value_L
    std = (share_BCL @ value_L**2 - mean**2).clamp(min=0).sqrt()
    cumulative = share_BCL.cumsum(-1)
    percentiles = [(cumulative < q - 1e-6).sum(-1) / 255 for q in _PERCENTILES]  # 1e-6: rounding of the sums
    density_L = -torch.log10((levels + 1) / 256)
    density_bin_L = (density_L / _DENSITY_MAX * _DENSITY_BINS).long().clamp(max=_DENSITY_BINS - 1)
    densities = torch.zeros(*share_BCL.shape[:2], _DENSITY_BINS, device=images.device)
    densities.index_add_(2, density_bin_L, share_BCL)
    channels = torch.stack([mean, std, *percentiles], dim=-1)
    parts = [channels, densities, *_hsv_histograms(images), *_density_moments(density_L, images)]
    return torch.cat([part.flatten(1) for part in parts], dim=1)


def _histogram(bins: Tensor, count: int, weight: Tensor | None = None) -> Tensor:
    """Shares of each bin over the last dimension: (..., M) int64 to (..., count), weighted if asked."""
    counts = torch.zeros(*bins.shape[:-1], count, device=bins.device)
    ones = torch.ones_like(bins, dtype=torch.float32) if weight is None else weight
    return counts.scatter_add_(-1, bins, ones) / bins.shape[-1]


def _hsv_histograms(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Hue (weighted by chroma, so that grey has none), saturation and value."""
    red, green, blue = images.flatten(2).float().unbind(1)  # whole numbers, so that ratios at a bin's edge are exact
    value = torch.maximum(torch.maximum(red, green), blue)
    chroma = value - torch.minimum(torch.minimum(red, green), blue)
    safe = chroma.clamp(min=1)
    sixth = torch.where(
        value == red,
        ((green - blue) / safe) % 6,
        torch.where(value == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    hue_bin = (sixth / 6 * _HUE_BINS).long() % _HUE_BINS
    saturation_bin = (chroma / value.clamp(min=1) * _SATURATION_BINS).long().clamp(max=_SATURATION_BINS - 1)
    value_bin = (value * _VALUE_BINS / 256).long()
    return (
        _histogram(hue_bin, _HUE_BINS, chroma / 255),
        _histogram(saturation_bin, _SATURATION_BINS),
        _histogram(value_bin, _VALUE_BINS),
    )


def _density_moments(density_L: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (B, 3) and the six covariances (B, 6) of the optical densities."""
    density_BCM = density_L[images.flatten(2).long()]
    mean_BC = density_BCM.mean(-1)
    centred = density_BCM - mean_BC[..., None]
    covariance = centred @ centred.transpose(1, 2) / density_BCM.shape[-1]
    row, column = torch.triu_indices(3, 3, device=images.device)
    return mean_BC, covariance[:, row, column]
