"""Prompts: what a user gives a promptable model. Places are image pixels: x to the right, y down, pixel (0, 0) covers
[0, 1) x [0, 1), so its centre is (0.5, 0.5).

Shapes: B images, M prompts (objects) on each, P clicks of a prompt, h x w the model's low-resolution mask grid.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

THIS, NOT_THIS, PADDING = 1, 0, -1
"""Labels of clicks. PADDING fills rows up where prompts have different numbers of clicks; it is no negative click."""


@dataclass(frozen=True)
class Prompts:
    """M prompts on each of B images; at least one of points, boxes and masks.

    Attributes:
        points_BMP2: float32 x, y of the clicks.
        labels_BMP: int64 THIS, NOT_THIS or PADDING of each click.
        boxes_BM4: float32 x0, y0, x1, y1, half-open, x0 < x1 and y0 < y1.
        masks_BMhw: float32 logits of an earlier answer on the model's mask grid.
    """

    points_BMP2: Tensor | None = None
    labels_BMP: Tensor | None = None
    boxes_BM4: Tensor | None = None
    masks_BMhw: Tensor | None = None
