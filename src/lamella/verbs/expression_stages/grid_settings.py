"""The ablation grid: which cells are trained beside the study's own settings."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from lamella.config import Settings

Control = Literal["shuffled_labels", "random_encoder"]
# A variant by its name alone, with its own defaults, or with settings of its own: {name: focal, gamma: 3}.
Variant = str | dict[str, Any]


class GridSettings(Settings):
    """Lists of what to try instead of the study's own setting, which is always trained as the cell `base`.

    A value that is the study's own makes no second cell. Combinations that make no sense (one view with a fusion of
    several, a loss of counts of values) are refused before anything is trained.
    """

    mode: Literal["one_at_a_time", "product"] = "one_at_a_time"
    """one_at_a_time: each cell differs from the study's own settings in one thing. product: all combinations."""
    encoder: tuple[str, ...] = ()
    """Of features.encoder."""
    views: tuple[Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)], ...] = ()
    """Of features.views, as lists of token_um, finest first: [[2], [2, 8], [2, 8, 32]]. A scale that the study has
    keeps its field of view. One scale alone is trained with fusion=none: there is nothing to fuse."""
    fusion: tuple[Variant, ...] = ()
    """Of train.model.fusion."""
    decoder: tuple[Variant, ...] = ()
    """Of train.model.decoder."""
    loss: tuple[Variant, ...] = ()
    """Of train.loss."""
    controls: tuple[Control, ...] = ()
    """Trained beside the study's own settings, never combined with others. shuffled_labels: every training sample has
    the labels of another. random_encoder: the encoder has random weights."""
    only: tuple[str, ...] = ()
    """Train these cells alone, by name; empty: all. The others can be trained later."""
