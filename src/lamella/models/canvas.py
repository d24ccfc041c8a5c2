"""The square canvas on which a promptable model sees an image: where each pixel lies on it, and the way back.

Shapes: B images, M prompts, K masks of a prompt, H x W pixels of the image, h x w cells of the model's mask grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Canvas:
    """An image at the upper left of a square.

    Its longest side fills the square and its sides keep their ratio, so that nothing is squashed; `squash` stretches
    both sides to the square, as SAM 2's own predictor does.

    Attributes:
        size_px: Height and width of the image.
        side_px: Side of the square.
        squash: Whether the image fills the square.
    """

    size_px: tuple[int, int]
    side_px: int
    squash: bool = False

    @property
    def filled_px(self) -> tuple[int, int]:
        """Height and width of the image on the canvas, in whole pixels."""
        if self.squash:
            return self.side_px, self.side_px
        longest = max(self.size_px)
        height, width = (max(1, round(side * self.side_px / longest)) for side in self.size_px)
        return height, width

    @property
    def scale_xy(self) -> tuple[float, float]:
        """Canvas pixels per image pixel, along x and along y: they differ by rounding, or by squashing."""
        (height, width), (filled_height, filled_width) = self.size_px, self.filled_px
        return filled_width / width, filled_height / height

    def place(self, images_BCHW: Tensor, fill: Tensor) -> Tensor:
        """Resample images onto canvases, bilinear, averaging where they shrink.

        Args:
            images_BCHW: Float.
            fill: (C, 1, 1), the colour below and to the right of the image.
        """
        height, width = self.filled_px
        placed = images_BCHW
        if (height, width) != tuple(images_BCHW.shape[-2:]):
            placed = F.interpolate(placed, (height, width), mode="bilinear", align_corners=False, antialias=True)
        if height == width == self.side_px:
            return placed
        canvas = fill.expand(len(placed), -1, self.side_px, self.side_px).clone()
        canvas[..., :height, :width] = placed
        return canvas

    def to_canvas(self, xy: Tensor) -> Tensor:
        """Places of the image, (..., 2) x and y, on the canvas: no shift, the corners of both lie together."""
        return xy * xy.new_tensor(self.scale_xy)

    def to_image(self, maps: Tensor) -> Tensor:
        """Resample maps that cover the canvas to the image's pixels, bilinear; differentiable.

        Args:
            maps: (..., h, w) over the whole canvas.

        Returns:
            (..., H, W): each pixel's centre read between the centres of the cells around it. On an image that fills
            the canvas this is torch's `interpolate` with align_corners=False.
        """
        scale_x, scale_y = self.scale_xy
        height, width = self.size_px
        rows = _read(maps, -2, height, scale_y * maps.shape[-2] / self.side_px)
        return _read(rows, -1, width, scale_x * maps.shape[-1] / self.side_px)


def _read(maps: Tensor, axis: int, count: int, cells_per_px: float) -> Tensor:
    """Linear interpolation along one axis at the centres of `count` pixels; the outermost cells reach to the edge."""
    last = maps.shape[axis] - 1
    at = ((torch.arange(count, device=maps.device, dtype=torch.float64) + 0.5) * cells_per_px - 0.5).clamp(0, last)
    before = at.floor().long()
    after = (before + 1).clamp(max=last)
    part = (at - before).to(maps.dtype).reshape(-1, *(1,) * (-1 - axis))
    return torch.lerp(maps.index_select(axis, before), maps.index_select(axis, after), part)
