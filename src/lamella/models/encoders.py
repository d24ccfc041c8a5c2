"""Encoders: what turns images into features. Our own is here; the rest of the package imports the others from here too.

Shapes: B images, C = 3 channels, N tokens, D width.
"""

from __future__ import annotations

from typing import Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from lamella.errors import LamellaError
from lamella.models.colour_statistics import COLOUR_STATS, ColourStatistics
from lamella.models.contract import Encoder, InputContract, check_images
from lamella.models.fingerprint import module_fingerprint
from lamella.models.vit import Normalise, TransformerSettings, ViT, patchify, token_centres_um

__all__ = [
    "COLOUR_STATS",
    "ColourStatistics",
    "Encoder",
    "InputContract",
    "Twinned",
    "ViTEncoder",
    "check_images",
    "fresh_vit",
    "random_twin",
]

EncoderT = TypeVar("EncoderT", bound=Encoder)


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
                another spacing must say so. Ignored where the contract states none: positions then count pixels.

        Returns:
            (B, N, D) float.

        Raises:
            ValueError: The images are not uint8, or not whole patches.
        """
        return self.vit(*self.patches_and_places(images, mpp))

    def patches_and_places(self, images: Tensor, mpp: float | None = None) -> tuple[Tensor, Tensor]:
        """What the network is given: (B, N, P) normalised patches and (1, N, 2) places. As for `tokens`."""
        check_images(images)
        patch_px = self.contract.patch_px
        rows, columns = images.shape[-2] // patch_px, images.shape[-1] // patch_px
        pixel = 1.0 if self.contract.mpp is None else mpp or self.contract.mpp
        places_N2 = token_centres_um(rows, columns, patch_px * pixel, images.device)
        return self.normalise(patchify(images, patch_px)), places_N2[None]

    def pooled(self, images: Tensor, mpp: float | None = None) -> Tensor:
        """Mean patch token, (B, D): what the pretraining predicts, and what probes read. Arguments as for `tokens`."""
        return self.tokens(images, mpp).mean(1)

    @property
    def fingerprint(self) -> str:
        return module_fingerprint(
            self.vit, {"vit": self.vit.settings.model_dump(), "contract": self.contract.facts()}
        )  # fmt: skip

    def random_twin(self, seed: int) -> ViTEncoder:
        """The same settings with weights drawn from this seed, on the same device."""
        twin = ViTEncoder(fresh_vit(self.vit.settings, seed), self.contract, f"{self.name}-random")
        return twin.to(next(self.parameters()).device)


@runtime_checkable
class Twinned(Protocol):
    """An encoder with weights, that can therefore be compared with itself untrained."""

    def random_twin(self, seed: int) -> Encoder: ...


def random_twin(encoder: EncoderT, seed: int = 0) -> EncoderT:
    """The same architecture and contract with fresh weights: the control that no training is needed to beat.

    Leaves torch's random state as it was.

    Raises:
        LamellaError: The encoder has no weights.
    """
    if not isinstance(encoder, Twinned):
        raise LamellaError(
            encoder.name, "it has no weights to draw afresh", "Ask for the random twin of a trained model."
        )
    return encoder.random_twin(seed)  # type: ignore[return-value]


def fresh_vit(settings: TransformerSettings, seed: int) -> ViT:
    """A ViT initialised from this seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ViT(settings)
