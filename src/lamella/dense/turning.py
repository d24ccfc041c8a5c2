"""Test-time augmentation by mirror images and quarter turns: exact, because pixels only change their places.

The maps of each turned copy are turned back before they are averaged. What is averaged are the model's maps
(probabilities, where they are that), never masks or logits.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# (quarter turns, mirrored left to right) of each copy; a half turn is a mirror image both ways.
TURNS: dict[str, tuple[tuple[int, bool], ...]] = {
    "none": ((0, False),),
    "flips": ((0, False), (0, True), (2, False), (2, True)),
    "d4": tuple((quarter, mirrored) for mirrored in (False, True) for quarter in range(4)),
}


def turned(images: Tensor, quarter: int, mirrored: bool) -> Tensor:
    """(..., H, W) mirrored first, then turned anticlockwise."""
    return torch.rot90(images.flip(-1) if mirrored else images, quarter, (-2, -1))


def turned_back(maps: Tensor, quarter: int, mirrored: bool) -> Tensor:
    """The opposite of `turned`."""
    back = torch.rot90(maps, -quarter, (-2, -1))
    return back.flip(-1) if mirrored else back


def averaged_maps(maps: Callable[[Tensor], Tensor], images: Tensor, tta: str) -> Tensor:
    """float32 (B, C, h, w): the mean of the maps of all turned copies of square images.

    Args:
        maps: The model's.
        images: uint8 (B, 3, H, H).
        tta: A key of TURNS.
    """
    turns = TURNS[tta]
    if len(turns) == 1:
        return maps(images).float()
    total: Tensor | None = None
    for quarter, mirrored in turns:
        one = turned_back(maps(turned(images, quarter, mirrored)).float(), quarter, mirrored)
        total = one.clone() if total is None else total.add_(one)
    assert total is not None
    return total.div_(len(turns))
