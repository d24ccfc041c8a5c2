"""What a file format must offer to be read as a slide."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np


class Reader(Protocol):
    """What a file format must offer. Opening a file it cannot read raises SlideError with the cause."""

    name: str
    properties: Mapping[str, str]
    """Everything the file states, with OpenSlide's key names where they exist."""

    @property
    def level_sizes(self) -> list[tuple[int, int]]:
        """(width, height) in pixels of each level, level 0 first and finest."""
        ...

    def read_level(self, level: int, x: int, y: int, width: int, height: int) -> np.ndarray:
        """(height, width, 3) uint8 of a rectangle that lies wholly inside the level, in that level's pixels.

        Raises:
            SlideError: A tile is corrupt; the message names slide, level and tile.
        """
        ...

    def close(self) -> None: ...
