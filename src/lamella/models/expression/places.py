"""Where tokens and bins lie: all scales of a sample have one centre, and places are in micrometres from it.

Shapes: B tiles, C channels, n bins or tokens along a side asked for, t tokens along a view's side.
"""

from __future__ import annotations

import torch
from torch import Tensor


def places_um(count: int, step_um: float, device: torch.device | str | None = None) -> Tensor:
    """(count,) places of the centres along one axis, relative to the sample's: (i - (count - 1) / 2) * step."""
    return (torch.arange(count, device=device, dtype=torch.float32) - (count - 1) / 2) * step_um


def interpolation(asked_um: Tensor, tokens: int, token_um: float) -> Tensor:
    """float32 (n, t): linear interpolation along one axis from tokens to places; beyond the last token, its value.

    Args:
        asked_um: (n,) places relative to the sample's centre.
        tokens: Of the view, along its side.
        token_um: Their spacing.
    """
    index = (asked_um / token_um + (tokens - 1) / 2).clamp(0, tokens - 1)
    every = torch.arange(tokens, device=asked_um.device, dtype=torch.float32)
    return (1 - (index[:, None] - every).abs()).clamp_min(0)


def registered(x_BCtt: Tensor, seen_Btt: Tensor, token_um: float, asked_um: Tensor) -> tuple[Tensor, Tensor]:
    """A coarse view at the places of a finer grid with the same centre.

    Bilinear over the tokens that are seen, by physical place. Mistake of the source: crops of coarse views were taken
    by counting tokens, and lay beside what they were laid under.

    Args:
        x_BCtt: The view.
        seen_Btt: bool.
        token_um: Its spacing.
        asked_um: (n,) places along either axis.

    Returns:
        (B, C, n, n), 0 where no token around is seen, and bool (B, n, n): where one is.
    """
    weight_nt = interpolation(asked_um, x_BCtt.shape[-1], token_um)
    known = seen_Btt[:, None].float()
    with torch.autocast(x_BCtt.device.type, enabled=False):  # bf16 would shift places by a hundredth of a token
        share = weight_nt @ known @ weight_nt.T
        values = weight_nt @ (x_BCtt.float() * known) @ weight_nt.T
    there = share > 1e-6  # less is rounding: shares of whole tokens are 0 or far above it
    return torch.where(there, values / share.clamp_min(1e-6), 0.0), there[:, 0]
