"""The mask sets of volumes and films: several masks of each sample, for one teacher's pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from lamella.config import Settings
from lamella.data.masks.kinds import Mask3dSettings, draw_masks
from lamella.data.masks.mask import Grid, stacked
from lamella.data.masks.tube import LONG_RANGE, SHORT_RANGE


class MaskSetsSettings(Settings):
    """Which masks each sample gets, side by side."""

    sets: Annotated[tuple[Mask3dSettings, ...], Field(min_length=1)] = (SHORT_RANGE, LONG_RANGE)
    """One learnt token of the predictor belongs to each. The default is V-JEPA's: 8 small tubes, and 2 large ones."""


def mask_batch(settings: MaskSetsSettings, grid: Grid, seed: int, positions: Sequence[int]) -> dict[str, Tensor]:
    """The masks of some samples, as the method reads them.

    Returns:
        `context` int64 (B, S, N), `context_pad` bool, `targets` (B, S, Q), `targets_pad`, for S sets; True marks
        padding.

    Raises:
        LamellaError: Such masks cannot leave anything to see on this grid.
    """
    drawn = [draw_masks(each, grid, seed, positions, number=number) for number, each in enumerate(settings.sets)]
    return {key: torch.from_numpy(values) for key, values in stacked(drawn).items()}
