"""The transformer over volumes and films: blocks of voxels as patches, each at its place in space (and time).

A volume's places are millimetres, so that a network knows how far apart two patches are whatever the slices' distance.
A film has no length along time that could be compared with its pixels; its places are pixels, and a tubelet counts as
being as long as a patch is wide (neighbours in time are as near as neighbours in space).

Shapes: B samples, C channels, Z slices (frames of a film), Y rows, X columns, N tokens, P values of a patch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from lamella.models.vit import Count, Positive, TransformerSettings

Sides = tuple[Count, Count, Count]


class VolumeViTSettings(TransformerSettings):
    """Size of a transformer over volumes or films. The defaults are ViT-small over volumes."""

    channels: Count = 1
    """Values of a voxel: MRI sequences, or the three colours of a film."""
    patch: Sides = (8, 16, 16)
    """Voxels of a patch along (z, y, x); of a film, frames and pixels."""
    wave_max: Positive = 1024.0
    """Longest wavelength of the positions: four views of 256 mm (or pixels), so that no two places of a view look
    alike."""

    @property
    def patch_values(self) -> int:
        depth, height, width = self.patch
        return self.channels * depth * height * width

    @property
    def coordinates(self) -> int:
        return 3


# V-JEPA's tubelets: two frames of 16 x 16 px in colour.
VIDEO_PATCH: Sides = (2, 16, 16)


class FilmViTSettings(VolumeViTSettings):
    """Size of a transformer over films. The defaults are ViT-small over tubelets."""

    channels: Annotated[int, Field(ge=3, le=3)] = 3
    """Red, green and blue."""
    patch: Sides = VIDEO_PATCH
    """Frames of a tubelet, and pixels of its rows and columns."""


def patchify3d(voxels_BCZYX: Tensor, patch: Sequence[int]) -> Tensor:
    """Cut volumes into patches, slice by slice, row by row.

    Args:
        voxels_BCZYX: (B, C, Z, Y, X) of any dtype, whole patches.
        patch: Voxels of a patch along (z, y, x).

    Returns:
        (B, N, P) of the same dtype; the values of a patch are ordered channel, slice, row, column.

    Raises:
        ValueError: A side is not a whole number of patches.
    """
    B, C, *_ = voxels_BCZYX.shape
    (nz, pz), (ny, py), (nx, px) = zip(grid_of(voxels_BCZYX.shape[2:], patch), patch, strict=True)
    blocks = voxels_BCZYX.reshape(B, C, nz, pz, ny, py, nx, px)
    return blocks.permute(0, 2, 4, 6, 1, 3, 5, 7).reshape(B, nz * ny * nx, C * pz * py * px)


def grid_of(size: Sequence[int], patch: Sequence[int]) -> tuple[int, int, int]:
    """Patches along (z, y, x) of a volume of this size.

    Raises:
        ValueError: A side is not a whole number of patches, or is nothing.
    """
    if any(side < part or side % part for side, part in zip(size, patch, strict=True)):
        raise ValueError(f"volumes of {_by(size)} voxels are not whole patches of {_by(patch)}")
    z, y, x = (side // part for side, part in zip(size, patch, strict=True))
    return z, y, x


def token_places(
    grid: Sequence[int],
    patch: Sequence[int],
    spacing: Sequence[float] | Tensor,
    device: torch.device | str | None = None,
) -> Tensor:
    """Centres of a grid's patches relative to the grid's centre.

    Args:
        grid: Patches along (z, y, x).
        patch: Voxels of a patch.
        spacing: Length of a voxel along (z, y, x), in millimetres; of a film see `film_spacing`. A (B, 3) tensor gives
            one grid per sample.
        device: Where to make the tensor; that of `spacing` if it is a tensor.

    Returns:
        (N, 3) float32 x, y, z, slice by slice and row by row; (B, N, 3) for a tensor of spacings.
    """
    device = spacing.device if isinstance(spacing, Tensor) else device
    along = [torch.arange(count, dtype=torch.float32, device=device) - (count - 1) / 2 for count in grid]
    places_N3 = torch.stack(torch.meshgrid(*along, indexing="ij"), dim=-1).reshape(-1, 3)
    length = torch.as_tensor(spacing, dtype=torch.float32, device=device) * torch.tensor(patch, device=device)
    # Computed as z, y, x like every size here; told as x, y, z like every place.
    return (places_N3 * length[..., None, :]).flip(-1)


def film_spacing(patch: Sequence[int]) -> tuple[float, float, float]:
    """Length of a frame and of a pixel in pixels, such that a tubelet is as long as it is wide."""
    return patch[2] / patch[0], 1.0, 1.0


class NormaliseBytes(nn.Module):
    """uint8 patches of films to floats of about zero mean and unit deviation per channel."""

    def __init__(self, mean: Sequence[float], std: Sequence[float], patch: Sequence[int]) -> None:
        super().__init__()
        repeats = patch[0] * patch[1] * patch[2]  # patch vectors hold one channel after the other
        # Not in the checkpoint: these are settings, not weights.
        self.register_buffer("mean_P", 255 * torch.tensor(mean).repeat_interleave(repeats), persistent=False)
        self.register_buffer("std_P", 255 * torch.tensor(std).repeat_interleave(repeats), persistent=False)

    def forward(self, patches_BNP: Tensor) -> Tensor:
        return (patches_BNP.float() - self.mean_P) / self.std_P


def _by(sides: Sequence[int]) -> str:
    return " x ".join(map(str, sides))
