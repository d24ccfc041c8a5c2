"""Every object that a promptable model sees in an image: a click on each point of a grid, and the answers sifted.

What is sifted, and by which numbers: facebookresearch/sam2, sam2/automatic_mask_generator.py (Apache-2.0), without its
crops. Shapes: B = 1 image, M clicks, K masks of a click, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lamella.models.promptable_model import MASK_LOGIT, Embedded, PromptableModel
from lamella.models.prompts import THIS, Prompts

_CLICKS_AT_ONCE = 8  # three masks each at the image's size: 24 of them in memory


@dataclass(frozen=True)
class Sieve:
    """Which answers are kept.

    Attributes:
        points_per_side: Clicks along each side of the image.
        least_iou: The model must believe more than this of a mask.
        least_stability: IoU of the masks at logits of +offset and -offset.
        offset: In logits.
        largest_overlap: Of the boxes around two masks, as IoU; of a pair beyond it the less believed one goes.
    """

    points_per_side: int = 32
    least_iou: float = 0.8
    least_stability: float = 0.95
    offset: float = 1.0
    largest_overlap: float = 0.7


@dataclass(frozen=True)
class Found:
    """One object.

    Attributes:
        mask: (H, W) bool.
        point: x, y of the click that it answers.
        believed_iou: By the model.
        stability: See Sieve.
    """

    mask: np.ndarray
    point: tuple[float, float]
    believed_iou: float
    stability: float


@torch.no_grad()
def everything(model: PromptableModel, embedded: Embedded, sieve: Sieve | None = None) -> list[Found]:
    """All objects, the most believed first; of equal ones the one further up and left. They may overlap.

    Args:
        model: Any.
        embedded: One image.
        sieve: What is kept; SAM 2's own numbers unless given.

    Raises:
        ValueError: There are several images.
    """
    if len(embedded) != 1:
        raise ValueError(f"one image at a time, not {len(embedded)}")
    sieve = sieve or Sieve()
    found = sorted(_answers(model, embedded, sieve), key=lambda one: -one.believed_iou)  # a stable sort
    boxes = np.array([_box(one.mask) for one in found]).reshape(-1, 4)
    kept: list[int] = []
    for number in range(len(found)):
        if not kept or _overlaps(boxes[number], boxes[kept]).max() <= sieve.largest_overlap:
            kept.append(number)
    return [found[number] for number in kept]


def grid_points(size_px: tuple[int, int], per_side: int) -> Tensor:
    """(per_side^2, 2) x, y: the middles of equal cells, row by row."""
    height, width = size_px
    middle = (torch.arange(per_side) + 0.5) / per_side
    y, x = torch.meshgrid(middle * height, middle * width, indexing="ij")
    return torch.stack([x.reshape(-1), y.reshape(-1)], dim=1)


def _answers(model: PromptableModel, embedded: Embedded, sieve: Sieve) -> Iterator[Found]:
    grid = grid_points(embedded.size_px, sieve.points_per_side)
    for first in range(0, len(grid), _CLICKS_AT_ONCE):
        points = grid[first : first + _CLICKS_AT_ONCE]
        prompts = Prompts(points[None, :, None], torch.full((1, len(points), 1), THIS))
        decoded = model.decode(embedded, prompts, multimask=True)
        believed = decoded.iou_BMK[0]
        for click, kind in (believed > sieve.least_iou).nonzero().tolist():
            logits = model.upsample(decoded.logits_BMKhw[0, click, kind], embedded)
            inner, outer = (logits > sieve.offset).sum(), (logits > -sieve.offset).sum()
            mask = (logits > MASK_LOGIT).cpu().numpy()
            if mask.any() and inner >= sieve.least_stability * outer:
                x, y = points[click].tolist()
                yield Found(mask, (x, y), float(believed[click, kind]), float(inner / outer))


def _box(mask: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _overlaps(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(N,) IoU of a box with N others."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    shared = (high - low).clip(0).prod(axis=1)
    areas = (others[:, 2:] - others[:, :2]).prod(axis=1)
    return np.asarray(shared / ((box[2:] - box[:2]).prod() + areas - shared))
