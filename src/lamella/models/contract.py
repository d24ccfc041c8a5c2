"""What every encoder offers, and what each expects to be shown.

Shapes: B images, C = 3 channels, N tokens, D width of a token, F width of a feature.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor


@dataclass(frozen=True)
class InputContract:
    """What an encoder expects and returns.

    Attributes:
        mpp: Micrometres per pixel; None for an encoder of images without a spacing, whose positions count pixels.
        size_px: Side of the square image.
        mean: Mean of red, green and blue (0 to 1) that the encoder subtracts itself.
        std: Standard deviation that it divides by.
        patch_px: Side of a patch; an image side is a multiple of it.
        dim: Width of a pooled feature, F.
        prefix_tokens: Tokens before the patch tokens (class, registers), not part of `tokens`.
        licence: Of the weights.
        token_dim: Width of a token, D, where it is not that of a feature.
    """

    mpp: float | None
    size_px: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    patch_px: int
    dim: int
    prefix_tokens: int = 0
    licence: str = "not stated by whoever trained it"
    token_dim: int | None = None

    @property
    def usage(self) -> str:
        """A line of Python for the model card."""
        return "features = encoder.pooled(images)  # uint8 (B, 3, H, W) -> float (B, D)"

    def described(self) -> dict[str, str]:
        """Rows of the model card."""
        spacing = "none: positions count pixels" if self.mpp is None else f"{self.mpp:g} micrometres per pixel"
        return {
            "spacing": spacing,
            "image": f"{self.size_px} x {self.size_px} px, uint8 RGB; normalisation is inside",
            "patch": f"{self.patch_px} px",
            "width": f"{self.dim}",
        }

    def facts(self) -> dict[str, Any]:
        """As a dictionary for files and fingerprints; without `token_dim` if unset: older models keep theirs."""
        facts = dataclasses.asdict(self)
        if self.token_dim is None:
            del facts["token_dim"]
        return facts


@runtime_checkable
class Encoder(Protocol):
    """Images in, features out. Normalisation happens inside.

    `mpp` is the images' micrometres per pixel, the contract's unless given; encoders without a spacing ignore it.
    """

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
        """uint8 (B, 3, H, W) at `mpp` (the contract's unless given) to float (B, F)."""

    def to(self, device: Any) -> Any:
        """Move the weights; images must be on the same device."""


def check_images(images: Tensor) -> None:
    """Refuse anything but uint8 (B, 3, H, W): floats would be normalised twice."""
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"images must be uint8 (B, 3, H, W), not {images.dtype} {tuple(images.shape)}")
