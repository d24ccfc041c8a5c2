"""Encoders that others trained: one wrapper around every library's networks, which checks them before they are used.

Shapes: B images, C = 3 channels, Y rows and X columns of pixels, S tokens in all, N patch tokens, D width of a token,
F width of a feature.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lamella.errors import CheckpointError
from lamella.models.contract import InputContract, check_images
from lamella.models.fingerprint import module_fingerprint
from lamella.models.registry import EncoderEntry

# Patches of the image that a loaded network is tried with: not square, so that rows and columns are told apart.
_TRIED_ROWS, _TRIED_COLUMNS = 2, 3


class Tokens(NamedTuple):
    """What a trunk makes of images."""

    all_BSD: Tensor
    """Prefix tokens, then the patch tokens row by row."""
    projected_BF: Tensor | None = None
    """The class token in the space of the texts, of networks that have one."""


class Trunk(nn.Module):
    """A network of some library behind one call."""

    @abstractmethod
    def forward(self, x_BCYX: Tensor) -> Tokens:
        """Tokens of normalised images."""

    @abstractmethod
    def fresh(self) -> Trunk:
        """The same architecture with weights drawn from torch's random state."""

    @abstractmethod
    def architecture(self) -> Mapping[str, Any]:
        """Everything but the weights that decides the features, as JSON."""


class PretrainedEncoder(nn.Module):
    """A trunk with what the registry says of it. Weights are frozen; `requires_grad_(True)` thaws them.

    Images are normalised, and tokens are pooled, in 32 bits, also under autocast.
    """

    def __init__(self, entry: EncoderEntry, trunk: Trunk, name: str | None = None) -> None:
        super().__init__()
        self.entry, self.trunk = entry, trunk
        self.name = name or entry.name
        self.contract = contract_of(entry)
        # Not in the checkpoint: these are settings, not weights.
        self.register_buffer("mean_C11", 255 * torch.tensor(entry.mean)[:, None, None], persistent=False)
        self.register_buffer("std_C11", 255 * torch.tensor(entry.std)[:, None, None], persistent=False)
        self.requires_grad_(False).eval()

    def tokens(self, images: Tensor, mpp: float | None = None) -> Tensor:
        """Patch tokens row by row; class tokens and registers are left out.

        Args:
            images: (B, 3, H, W) uint8, whole patches. Learnt positions are interpolated to other sizes than the usual.
            mpp: Their micrometres per pixel. These networks number their patches: features of images at another spacing
                are what the network makes of coarser or finer pictures.

        Returns:
            (B, N, D) float32.

        Raises:
            ValueError: The images are not uint8, or not whole patches.
        """
        return self._run(images).all_BSD[:, self.entry.prefix_tokens :].float()

    def pooled(self, images: Tensor, mpp: float | None = None) -> Tensor:
        """The feature of an image by its entry's pooling, (B, F) float32. Arguments as for `tokens`."""
        return pool(self._run(images), self.entry)

    @property
    def fingerprint(self) -> str:
        settings = {"trunk": dict(self.trunk.architecture()), "contract": self.contract.facts()}
        return module_fingerprint(self.trunk, {**settings, "pooling": self.entry.pooling})

    def random_twin(self, seed: int) -> PretrainedEncoder:
        """The same architecture with weights drawn from this seed, on the same device."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            twin = PretrainedEncoder(self.entry, self.trunk.fresh(), f"{self.name}-random")
        return twin.to(self.mean_C11.device)

    def _run(self, images: Tensor) -> Tokens:
        check_images(images)
        patch_px, (height, width) = self.entry.patch_px, images.shape[-2:]
        if height % patch_px or width % patch_px:
            raise ValueError(
                f"images of {height} x {width} px are not whole patches of {patch_px} px, which {self.name} needs"
            )
        tokens: Tokens = self.trunk((images.float() - self.mean_C11) / self.std_C11)
        return tokens


def pool(tokens: Tokens, entry: EncoderEntry) -> Tensor:
    """Tokens to one feature an image, (B, F) float32."""
    all_BSD = tokens.all_BSD.float()
    if entry.pooling == "projection":
        if tokens.projected_BF is None:
            raise ValueError(f"{entry.name} has no projection to pool by")
        return tokens.projected_BF.float()
    if entry.pooling == "cls":
        return all_BSD[:, 0]
    mean_BD = all_BSD[:, entry.prefix_tokens :].mean(1)
    return mean_BD if entry.pooling == "mean" else torch.cat([all_BSD[:, 0], mean_BD], dim=1)


def contract_of(entry: EncoderEntry) -> InputContract:
    """The contract that an entry of the registry states."""
    return InputContract(
        mpp=entry.shown_mpp,
        size_px=entry.size_px,
        mean=entry.mean,
        std=entry.std,
        patch_px=entry.patch_px,
        dim=entry.dim,
        prefix_tokens=entry.prefix_tokens,
        licence=entry.licence,
        token_dim=None if entry.token_dim == entry.dim else entry.token_dim,
    )


@torch.no_grad()
def check_trunk(trunk: Trunk, entry: EncoderEntry, place: object) -> None:
    """Try a network on one small image and compare what comes out with the registry.

    Args:
        trunk: The network with its weights.
        entry: What it should be.
        place: Where the weights came from, for the message.

    Raises:
        CheckpointError: The number of tokens, a width, or the pooled feature is another; each is named.
    """
    trunk.eval()
    x_BCYX = torch.zeros(1, 3, _TRIED_ROWS * entry.patch_px, _TRIED_COLUMNS * entry.patch_px)
    tokens = trunk(x_BCYX)
    _, S, D = tokens.all_BSD.shape
    found = {"prefix tokens": S - _TRIED_ROWS * _TRIED_COLUMNS, "token width": D}
    expected = {"prefix tokens": entry.prefix_tokens, "token width": entry.token_dim}
    if found == expected:
        feature = pool(tokens, entry)
        found, expected = {"feature width": feature.shape[1]}, {"feature width": entry.dim}
        if not feature.isfinite().all():
            raise CheckpointError(
                place, f"{entry.name} makes features that are not numbers of it", "Copy the weights again."
            )
    refuse_differences(place, entry, expected, found)


def refuse_differences(
    place: object, entry: EncoderEntry, expected: Mapping[str, object], found: Mapping[str, object]
) -> None:
    """Refuse a network whose facts are not the registry's.

    Raises:
        CheckpointError: Naming every fact, as expected and as found.
    """
    differing = [
        f"{fact} is {found[fact]}, expected {expected[fact]}" for fact in found if found[fact] != expected[fact]
    ]
    if differing:
        raise CheckpointError(
            place,
            f"it is not {entry.name}: {', '.join(differing)}",
            f"Give the weights of {entry.hub_id or entry.name}; `lamella encoders {entry.name}` says where they are.",
        )
