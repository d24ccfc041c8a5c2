"""A vision transformer over the patches it is given, each at its place.

It takes patch vectors and where each lies, not an image: tokens that are dropped are never embedded or encoded, and
views of any spacing share one coordinate system. Places have any number of coordinates, in whatever unit the caller
keeps to: micrometres on slides, millimetres in volumes, pixels of images without a spacing.

Shapes: B samples, N tokens, D width, P values of a patch (3 * patch_px**2 of an image), C coordinates of a place,
H heads, E = D / H.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Annotated, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lamella.config import Settings

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]

# Standard deviation of fresh weights: BERT's, kept by ViT, MAE and I-JEPA.
INIT_STD = 0.02
# For the patches it was chosen for, of 16 x 16 RGB pixels, it makes content about as large as the positions that are
# added to it. Smaller patches would drown in their positions, larger ones drown them: their weights are scaled.
_USUAL_PATCH_VALUES = 768


class TransformerSettings(Settings):
    """Size of a transformer over patches; what a patch is, its subclasses say. The defaults are ViT-small."""

    dim: Count = 384
    """Width of a token."""
    depth: Count = 12
    """Transformer blocks."""
    heads: Count = 6
    """Attention heads; they divide the width."""
    mlp_ratio: Positive = 4.0
    """Hidden width of a block's MLP over the token width."""
    wave_min: Positive = 32.0
    """Shortest wavelength of the positions, in their unit: two 16 um tokens, the finest that coarse tokens sample
    without aliasing."""
    wave_max: Positive = 2048.0
    """Longest wavelength of the positions: four 512 um views, so that no two places of a view look alike."""

    @property
    def patch_values(self) -> int:
        """Values of a patch, P."""
        raise NotImplementedError

    @property
    def coordinates(self) -> int:
        """Coordinates of a place, C."""
        raise NotImplementedError

    @model_validator(mode="after")
    def _sizes_agree(self) -> Self:
        check_width(self.dim, self.heads, "dim", self.coordinates)
        if self.wave_max <= self.wave_min:
            raise ValueError(f"wave_max ({self.wave_max:g}) must exceed wave_min ({self.wave_min:g})")
        return self


class ViTSettings(TransformerSettings):
    """Size of a transformer over RGB images. The defaults are ViT-small."""

    patch_px: Annotated[int, Field(ge=2)] = 16
    """Side of a patch in pixels; the same as the sampling's."""

    @property
    def patch_values(self) -> int:
        return 3 * self.patch_px**2

    @property
    def coordinates(self) -> int:
        return 2

    @classmethod
    def sized(cls, size: Literal["tiny", "small", "base"]) -> ViTSettings:
        """The shipped sizes, those of DeiT: heads are 64 wide in all."""
        return cls(**SIZES[size])


SIZES = {
    "tiny": {"dim": 192, "depth": 12, "heads": 3},
    "small": {"dim": 384, "depth": 12, "heads": 6},
    "base": {"dim": 768, "depth": 12, "heads": 12},
}


def check_width(width: int, heads: int, name: str, coordinates: int = 2) -> None:
    """Refuse a width that its heads, or the parts of a position (sine and cosine of each coordinate), do not divide."""
    parts = 2 * coordinates
    if width % heads or width % parts:
        raise ValueError(f"{name} ({width}) must be a multiple of {parts} and of the {heads} heads")


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
    """Encodes exactly the tokens it is given.

    Args:
        settings: Its size.
        checkpointing: Keep no activations inside blocks while training, and compute them again in the backward pass:
            memory of one block instead of all, for a third more time.
    """

    def __init__(self, settings: TransformerSettings, *, checkpointing: bool = False) -> None:
        super().__init__()
        self.settings, self.checkpointing = settings, checkpointing
        self.embed = nn.Linear(settings.patch_values, settings.dim)
        self.position = Waves(settings.dim, settings.coordinates, settings.wave_min, settings.wave_max)
        self.blocks = nn.ModuleList(
            Block(settings.dim, settings.heads, settings.mlp_ratio) for _ in range(settings.depth)
        )
        self.norm = nn.LayerNorm(settings.dim)
        initialise(self, list(self.blocks))
        with torch.no_grad():
            self.embed.weight.mul_(math.sqrt(_USUAL_PATCH_VALUES / settings.patch_values))

    def forward(self, patches_BNP: Tensor, places_BNC: Tensor, pad_BN: Tensor | None = None) -> Tensor:
        """Encode tokens.

        Args:
            patches_BNP: Normalised patch vectors (see `patchify`, `Normalise`).
            places_BNC: Centre of each patch, from any origin; a batch dimension of 1 is shared.
            pad_BN: bool, True marks padding. No other token sees it; what is returned in its place means nothing.

        Returns:
            (B, N, D) tokens after the last norm.
        """
        x_BND = self._embedded(patches_BNP, places_BNC)
        seen_B11N = key_mask(pad_BN)
        for block in self.blocks:
            x_BND = self._through(block, x_BND, seen_B11N)
        return self.norm(x_BND)

    def layers(self, patches_BNP: Tensor, places_BNC: Tensor, last: int) -> list[Tensor]:
        """Tokens after each of the last blocks, all through the last norm, deepest last; each (B, N, D).

        Raises:
            ValueError: The network has fewer blocks.
        """
        if not 1 <= last <= len(self.blocks):
            raise ValueError(f"the last {last} of {len(self.blocks)} blocks were asked for")
        x_BND, kept = self._embedded(patches_BNP, places_BNC), []
        for number, block in enumerate(self.blocks):
            x_BND = self._through(block, x_BND, None)
            if number >= len(self.blocks) - last:
                kept.append(self.norm(x_BND))
        return kept

    @torch.no_grad()
    def attentions(self, patches_BNP: Tensor, places_BNC: Tensor) -> Iterator[Tensor]:
        """Yield each block's attention, first block first: (B, H, N, N) float32, rows are queries and sum to 1.

        The very numbers that `forward` uses; it never holds the matrix, so here they are computed beside it.
        """
        x_BND = self._embedded(patches_BNP, places_BNC)
        for block in self.blocks:
            queries, keys, _ = block.queries_keys_values(x_BND)
            yield (queries.float() @ keys.float().transpose(-1, -2) / queries.shape[-1] ** 0.5).softmax(-1)
            x_BND = block(x_BND)

    def _embedded(self, patches_BNP: Tensor, places_BNC: Tensor) -> Tensor:
        return self.embed(patches_BNP) + self.position(places_BNC)

    def _through(self, block: nn.Module, x_BND: Tensor, seen_B11N: Tensor | None) -> Tensor:
        if self.checkpointing and self.training and torch.is_grad_enabled():
            return checkpoint(block, x_BND, seen_B11N, use_reentrant=False)
        return block(x_BND, seen_B11N)
