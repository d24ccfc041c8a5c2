"""A vision transformer over the patches it is given, at positions in micrometres.

It takes patch vectors and where each lies, not an image: tokens that are dropped are never embedded or encoded, and
views of any spacing share one coordinate system.

Shapes: B samples, N tokens, D width, P = 3 * patch_px**2 values of a patch, H heads, E = D / H.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from lamella.config import Settings

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]

# Standard deviation of fresh weights: BERT's, kept by ViT, MAE and I-JEPA.
INIT_STD = 0.02


class ViTSettings(Settings):
    """Size of a vision transformer. The defaults are ViT-small."""

    patch_px: Annotated[int, Field(ge=2)] = 16
    """Side of a patch in pixels; the same as the sampling's."""
    dim: Count = 384
    """Width of a token."""
    depth: Count = 12
    """Transformer blocks."""
    heads: Count = 6
    """Attention heads; they divide the width."""
    mlp_ratio: Positive = 4.0
    """Hidden width of a block's MLP over the token width."""
    position_min_um: Positive = 32.0
    """Shortest wavelength of the positions: two 16 um tokens, the finest that coarse tokens sample without aliasing."""
    position_max_um: Positive = 2048.0
    """Longest wavelength of the positions: four 512 um views, so that no two places of a view look alike."""

    @model_validator(mode="after")
    def _sizes_agree(self) -> ViTSettings:
        check_width(self.dim, self.heads, "dim")
        if self.position_max_um <= self.position_min_um:
            raise ValueError(
                f"position_max_um ({self.position_max_um:g}) must exceed position_min_um ({self.position_min_um:g})"
            )
        return self

    @classmethod
    def sized(cls, size: Literal["tiny", "small", "base"]) -> ViTSettings:
        """The shipped sizes, those of DeiT: heads are 64 wide in all."""
        return cls(**SIZES[size])


SIZES = {
    "tiny": {"dim": 192, "depth": 12, "heads": 3},
    "small": {"dim": 384, "depth": 12, "heads": 6},
    "base": {"dim": 768, "depth": 12, "heads": 12},
}


def check_width(width: int, heads: int, name: str) -> None:
    """Refuse a width that its heads, or the four parts of a position (sine and cosine of x and y), do not divide."""
    if width % heads or width % 4:
        raise ValueError(f"{name} ({width}) must be a multiple of 4 and of the {heads} heads")


# ---- images to patches ----------------------------------------------------------------------------------------------


def patchify(images_BCYX: Tensor, patch_px: int) -> Tensor:
    """Cut images into patches, row by row.

    Args:
        images_BCYX: (B, 3, H, W) of any dtype; H and W are multiples of the patch.
        patch_px: Side of a patch.

    Returns:
        (B, N, P) of the same dtype; the values of a patch are ordered channel, row, column.

    Raises:
        ValueError: A side is not a whole number of patches.
    """
    B, C, height, width = images_BCYX.shape
    if height % patch_px or width % patch_px:
        raise ValueError(f"images of {height} x {width} px are not whole patches of {patch_px} px")
    grid = images_BCYX.reshape(B, C, height // patch_px, patch_px, width // patch_px, patch_px)
    return grid.permute(0, 2, 4, 1, 3, 5).reshape(B, -1, C * patch_px**2)


class Normalise(nn.Module):
    """uint8 patches to floats of about zero mean and unit deviation per channel."""

    def __init__(self, mean: Sequence[float], std: Sequence[float], patch_px: int) -> None:
        super().__init__()
        repeats = patch_px**2  # patch vectors hold one channel after the other
        # Not in the checkpoint: these are settings, not weights.
        self.register_buffer("mean_P", 255 * torch.tensor(mean).repeat_interleave(repeats), persistent=False)
        self.register_buffer("std_P", 255 * torch.tensor(std).repeat_interleave(repeats), persistent=False)

    def forward(self, patches_BNP: Tensor) -> Tensor:
        return (patches_BNP.float() - self.mean_P) / self.std_P


# ---- places ---------------------------------------------------------------------------------------------------------


def token_centres_um(
    rows: int, columns: int, patch_um: float | Tensor, device: torch.device | str | None = None
) -> Tensor:
    """Centres of a grid's tokens relative to the grid's centre.

    Args:
        rows: Tokens down.
        columns: Tokens across.
        patch_um: Side of a token in micrometres; a (B,) tensor gives one grid per sample.
        device: Where to make the tensor; that of `patch_um` if it is a tensor.

    Returns:
        (N, 2) float32 x, y in micrometres, row by row; (B, N, 2) for a tensor of patch sides.
    """
    if isinstance(patch_um, Tensor):
        return token_centres_um(rows, columns, 1.0, patch_um.device) * patch_um.float()[:, None, None]
    y = torch.arange(rows, dtype=torch.float32, device=device) - (rows - 1) / 2
    x = torch.arange(columns, dtype=torch.float32, device=device) - (columns - 1) / 2
    y_grid, x_grid = torch.meshgrid(y, x, indexing="ij")
    return torch.stack([x_grid, y_grid], dim=-1).reshape(-1, 2) * patch_um


class Waves(nn.Module):
    """Sine and cosine of each coordinate at wavelengths in geometric steps (Vaswani et al. 2017, in micrometres).

    Args:
        dim: Values returned per place; a multiple of twice the number of coordinates.
        coordinates: 2 for x and y, 1 for a scale.
        shortest: Shortest wavelength, in the unit of the coordinates.
        longest: Longest wavelength.
    """

    def __init__(self, dim: int, coordinates: int, shortest: float, longest: float) -> None:
        super().__init__()
        steps = torch.linspace(math.log(shortest), math.log(longest), dim // (2 * coordinates))
        self.register_buffer("frequency", 2 * math.pi * torch.exp(-steps), persistent=False)

    def forward(self, places: Tensor) -> Tensor:
        """(..., coordinates) to (..., dim), float32."""
        angles = places.float()[..., None] * self.frequency
        return torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(-2)


# ---- the transformer ------------------------------------------------------------------------------------------------


class Block(nn.Module):
    """Pre-norm attention and MLP. Its two halves can be called apart, for attention over tokens of several origins."""

    def __init__(self, dim: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        hidden = int(dim * mlp_ratio)
        self.heads = heads
        self.norm_attention = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.attention_out = nn.Linear(dim, dim)
        self.norm_mlp = nn.LayerNorm(dim)
        self.mlp_in = nn.Linear(dim, hidden)
        self.mlp_out = nn.Linear(hidden, dim)

    def queries_keys_values(self, x_BND: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Three (B, H, N, E)."""
        B, N, D = x_BND.shape
        qkv = self.qkv(self.norm_attention(x_BND)).reshape(B, N, 3, self.heads, D // self.heads)
        queries, keys, values = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        return queries, keys, values

    def finish(self, x_BND: Tensor, attended_BHNE: Tensor) -> Tensor:
        """Add what attention found, then the MLP."""
        x_BND = x_BND + self.attention_out(attended_BHNE.transpose(1, 2).flatten(2))
        return x_BND + self.mlp_out(F.gelu(self.mlp_in(self.norm_mlp(x_BND))))

    def forward(self, x_BND: Tensor, seen_B11N: Tensor | None = None) -> Tensor:
        """One step; keys where `seen` is False are attended by nobody."""
        queries, keys, values = self.queries_keys_values(x_BND)
        return self.finish(x_BND, F.scaled_dot_product_attention(queries, keys, values, attn_mask=seen_B11N))


def initialise(module: nn.Module, blocks: Sequence[Block]) -> None:
    """Fresh weights: truncated normal, zero biases, and what block i adds to the residual divided by sqrt(2 i).

    The division (BEiT, I-JEPA) keeps the residual's size over depth. Call once, last: a second initialisation would
    undo it.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.trunc_normal_(part.weight, std=INIT_STD)
            nn.init.zeros_(part.bias)
    with torch.no_grad():
        for number, block in enumerate(blocks, start=1):
            block.attention_out.weight.div_(math.sqrt(2 * number))
            block.mlp_out.weight.div_(math.sqrt(2 * number))


def key_mask(pad_BN: Tensor | None) -> Tensor | None:
    """(B, 1, 1, N) True where a key may be seen; None where nothing is padded, which keeps attention's fast path.

    Asking whether anything is padded makes a GPU wait for the mask, once per encoded batch.
    """
    if pad_BN is None or not pad_BN.any():
        return None
    return ~pad_BN[:, None, None, :]


class ViT(nn.Module):
    """Encodes exactly the tokens it is given."""

    def __init__(self, settings: ViTSettings) -> None:
        super().__init__()
        self.settings = settings
        self.embed = nn.Linear(3 * settings.patch_px**2, settings.dim)
        self.position = Waves(settings.dim, 2, settings.position_min_um, settings.position_max_um)
        self.blocks = nn.ModuleList(
            Block(settings.dim, settings.heads, settings.mlp_ratio) for _ in range(settings.depth)
        )
        self.norm = nn.LayerNorm(settings.dim)
        initialise(self, list(self.blocks))

    def forward(self, patches_BNP: Tensor, xy_um_BN2: Tensor, pad_BN: Tensor | None = None) -> Tensor:
        """Encode tokens.

        Args:
            patches_BNP: Normalised patch vectors (see `patchify`, `Normalise`).
            xy_um_BN2: Centre of each patch in micrometres, from any origin; a batch dimension of 1 is shared.
            pad_BN: bool, True marks padding. No other token sees it; what is returned in its place means nothing.

        Returns:
            (B, N, D) tokens after the last norm.
        """
        x_BND = self.embed(patches_BNP) + self.position(xy_um_BN2)
        seen_B11N = key_mask(pad_BN)
        for block in self.blocks:
            x_BND = block(x_BND, seen_B11N)
        return self.norm(x_BND)
