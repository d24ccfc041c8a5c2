"""Encoders: what turns images into features, and what each expects to be shown.

Shapes: B images, C = 3 channels, N tokens, D width, M pixels.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from lamella.errors import LamellaError
from lamella.models.vit import Normalise, ViT, ViTSettings, patchify, token_centres_um

COLOUR_STATS = "colour-stats"


@dataclass(frozen=True)
class InputContract:
    """What an encoder expects and returns.

    Attributes:
        mpp: Micrometres per pixel.
        size_px: Side of the square image.
        mean: Mean of red, green and blue (0 to 1) that the encoder subtracts itself.
        std: Standard deviation that it divides by.
        patch_px: Side of a patch; an image side is a multiple of it.
        dim: Width of a token.
        prefix_tokens: Tokens before the patch tokens (class, registers), not part of `tokens`.
        licence: Of the weights.
    """

    mpp: float
    size_px: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    patch_px: int
    dim: int
    prefix_tokens: int = 0
    licence: str = "not stated by whoever trained it"


@runtime_checkable
class Encoder(Protocol):
    """Images in, features out. Normalisation happens inside."""

    @property
    def name(self) -> str: ...

    @property
    def contract(self) -> InputContract: ...

    @property
    def fingerprint(self) -> str:
        """16 hex digits that change with the architecture, the weights or the contract."""

    def tokens(self, images: Tensor, mpp: float | None = None) -> Tensor:
        """uint8 (B, 3, H, W) at `mpp` (the contract's unless given) to float (B, N, D), row by row."""

    def pooled(self, images: Tensor, mpp: float | None = None) -> Tensor:
        """uint8 (B, 3, H, W) at `mpp` (the contract's unless given) to float (B, D)."""

    def to(self, device: Any) -> Any:
        """Move the weights; images must be on the same device."""


class ViTEncoder(nn.Module):
    """Our own vision transformer with its contract. Weights are frozen; `requires_grad_(True)` thaws them."""

    def __init__(self, vit: ViT, contract: InputContract, name: str) -> None:
        super().__init__()
        if (vit.settings.patch_px, vit.settings.dim) != (contract.patch_px, contract.dim):
            raise ValueError("the contract's patch_px and dim must be the network's")
        self.vit = vit
        self.normalise = Normalise(contract.mean, contract.std, contract.patch_px)
        self.contract, self.name = contract, name
        self.requires_grad_(False).eval()

    def tokens(self, images: Tensor, mpp: float | None = None) -> Tensor:
        """All patch tokens of images of any size in whole patches; positions are from the image's centre.

        Args:
            images: (B, 3, H, W) uint8.
            mpp: Their micrometres per pixel; the contract's unless given. Positions are in micrometres, so images at
                another spacing must say so.

        Returns:
            (B, N, D) float.

        Raises:
            ValueError: The images are not uint8, or not whole patches.
        """
        check_images(images)
        patch_px = self.contract.patch_px
        rows, columns = images.shape[-2] // patch_px, images.shape[-1] // patch_px
        xy_um_N2 = token_centres_um(rows, columns, patch_px * (mpp or self.contract.mpp), images.device)
        return self.vit(self.normalise(patchify(images, patch_px)), xy_um_N2[None])

    def pooled(self, images: Tensor, mpp: float | None = None) -> Tensor:
        """Mean patch token, (B, D): what the pretraining predicts, and what probes read. Arguments as for `tokens`."""
        return self.tokens(images, mpp).mean(1)

    @property
    def fingerprint(self) -> str:
        settings = {"vit": self.vit.settings.model_dump(), "contract": dataclasses.asdict(self.contract)}
        return _fingerprint(settings, self.vit.state_dict())


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
        return _fingerprint({"name": self.name, "version": 1, "contract": dataclasses.asdict(self.contract)}, {})


def check_images(images: Tensor) -> None:
    """Refuse anything but uint8 (B, 3, H, W): floats would be normalised twice."""
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"images must be uint8 (B, 3, H, W), not {images.dtype} {tuple(images.shape)}")


def random_twin(encoder: Encoder, seed: int = 0) -> ViTEncoder:
    """The same architecture and contract with fresh weights: the control that no training is needed to beat.

    Leaves torch's random state as it was.

    Raises:
        LamellaError: The encoder has no weights.
    """
    if not isinstance(encoder, ViTEncoder):
        raise LamellaError(
            encoder.name, "it has no weights to draw afresh", "Ask for the random twin of a trained model."
        )
    device = next(encoder.parameters()).device
    return ViTEncoder(fresh_vit(encoder.vit.settings, seed), encoder.contract, f"{encoder.name}-random").to(device)


def fresh_vit(settings: ViTSettings, seed: int) -> ViT:
    """A ViT initialised from this seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ViT(settings)


def _fingerprint(settings: dict[str, Any], weights: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(weights[name].detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


# ---- colour statistics ----------------------------------------------------------------------------------------------

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
