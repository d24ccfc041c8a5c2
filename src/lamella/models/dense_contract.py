"""What every model offers that gives each pixel a value: classes now, other maps later. The dense engine runs them all.

Shapes: B tiles, C channels, H, W pixels of a tile.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from torch import Tensor


@dataclass(frozen=True)
class DenseContract:
    """What a dense model is shown and what it returns.

    Attributes:
        channels: Names of the C maps, in order. Of classes: channel c is class c, and c is its value in label maps.
        mpp: Micrometres per pixel of the images; None where nobody stated it: slides are then refused.
        tile_px: Side of the square tile it was made for.
        multiple_px: Sides of tiles must be multiples of it.
        stride: Image pixels per pixel of the maps, along each axis.
        kind: classes: the maps are probabilities that add up to 1. values: any numbers, each map by itself.
        background: The channel that is "none of these", which outlines leave out; None where every pixel is something.
        licence: Of the weights.
    """

    channels: tuple[str, ...]
    mpp: float | None
    tile_px: int
    multiple_px: int = 1
    stride: int = 1
    kind: Literal["classes", "values"] = "classes"
    background: str | None = "background"
    licence: str = "not stated by whoever trained it"

    def facts(self) -> dict[str, Any]:
        """As a dictionary for files and fingerprints."""
        return dataclasses.asdict(self)

    @classmethod
    def of_facts(cls, told: Mapping[str, Any]) -> DenseContract:
        """Read back what `facts` gave, from JSON, which knows lists only."""
        return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in told.items()})


@runtime_checkable
class DenseModel(Protocol):
    """Tiles in, maps out. Normalisation happens inside."""

    @property
    def name(self) -> str: ...

    @property
    def contract(self) -> DenseContract: ...

    @property
    def fingerprint(self) -> str:
        """16 hex digits that change with the architecture, the weights or the contract."""

    def maps(self, images: Tensor) -> Tensor:
        """uint8 (B, 3, H, W) at the contract's mpp to float32 (B, C, H / stride, W / stride)."""

    def to(self, device: Any) -> Any:
        """Move the weights; images must be on the same device."""
