"""Test-time augmentation of prompted segmentation: the eight turns and mirrorings of the image and its prompts.

Shapes: B images, M prompts on each, P clicks of a prompt, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lamella.models.promptable_model import Embedded, PromptableModel
from lamella.models.prompts import Prompts


class Turn(NamedTuple):
    """An exact, invertible change of a pixel grid: exchange of rows and columns first, then mirroring.

    Attributes:
        exchange: Rows become columns.
        mirror_x: Left becomes right, after the exchange.
        mirror_y: Top becomes bottom, after the exchange.
    """

    exchange: bool = False
    mirror_x: bool = False
    mirror_y: bool = False

    def images(self, images: Tensor) -> Tensor:
        """(..., H, W) turned."""
        turned = images.transpose(-2, -1) if self.exchange else images
        return turned.flip([axis for axis, mirrored in ((-2, self.mirror_y), (-1, self.mirror_x)) if mirrored])

    def back(self, maps: Tensor) -> Tensor:
        """The inverse of `images`."""
        turned = maps.flip([axis for axis, mirrored in ((-2, self.mirror_y), (-1, self.mirror_x)) if mirrored])
        return turned.transpose(-2, -1) if self.exchange else turned

    def places(self, xy: Tensor, size_px: tuple[int, int]) -> Tensor:
        """x, y (..., 2) of an image of this height and width, in the turned image."""
        height, width = size_px[::-1] if self.exchange else size_px
        x, y = (xy.flip(-1) if self.exchange else xy).unbind(-1)
        # Places are measured from the corner, so a mirrored x is the width less x: no pixel is lost or added.
        return torch.stack([width - x if self.mirror_x else x, height - y if self.mirror_y else y], dim=-1)

    def prompts(self, prompts: Prompts, size_px: tuple[int, int]) -> Prompts:
        """Clicks and boxes in the turned image; corners of boxes in order again.

        Raises:
            ValueError: There are mask prompts: their grid covers the padded canvas, which does not turn exactly.
        """
        if prompts.masks_BMhw is not None:
            raise ValueError("mask prompts cannot be turned exactly; give clicks or boxes")
        points, boxes = prompts.points_BMP2, prompts.boxes_BM4
        if boxes is not None:
            corners = self.places(boxes.reshape(*boxes.shape[:-1], 2, 2), size_px)
            boxes = torch.cat([corners.amin(-2), corners.amax(-2)], dim=-1)
        return Prompts(None if points is None else self.places(points, size_px), prompts.labels_BMP, boxes)


D4 = tuple(
    Turn(exchange, mirror_x, mirror_y) for exchange in (False, True) for mirror_x in (False, True)
    for mirror_y in (False, True)
)  # fmt: skip
"""All eight; the first changes nothing."""
FLIPS = D4[:4]
"""Without exchange of rows and columns."""


class Averaged(NamedTuple):
    """Answers averaged over turns.

    Attributes:
        probability_BMHW: Mean of the probabilities, not of masks. A pixel is of the object where it is above 1/2, so
            a tie is no object, as a logit of 0 is.
        iou_BM: Mean of the believed IoU.
    """

    probability_BMHW: Tensor
    iou_BM: Tensor

    @property
    def masks_BMHW(self) -> Tensor:
        """Bool."""
        return self.probability_BMHW > 0.5


def decode_turned(
    model: PromptableModel,
    images: Tensor,
    prompts: Prompts,
    *,
    turns: Sequence[Turn] = D4,
    multimask: bool = False,
    embed: Callable[[Tensor], Embedded] | None = None,
) -> Averaged:
    """Answer prompts on every turn of the images, turn the answers back, and average their probabilities.

    Args:
        model: Any.
        images: uint8 (B, 3, H, W).
        prompts: Clicks and boxes.
        turns: Each costs one pass of the encoder.
        multimask: Of each turn the mask of three that the model believes in most.
        embed: Instead of `model.embed`, such as that of an EmbeddingCache.
    """
    size_px = (images.shape[-2], images.shape[-1])
    total, iou = None, None
    for turn in turns:
        embedded = (embed or model.embed)(turn.images(images))
        decoded = model.decode(embedded, turn.prompts(prompts, size_px), multimask).best()
        probability = turn.back(model.upsample(decoded.logits_BMKhw[:, :, 0], embedded).sigmoid())
        total = probability if total is None else total + probability
        iou = decoded.iou_BMK[..., 0] if iou is None else iou + decoded.iou_BMK[..., 0]
    if total is None or iou is None:
        raise ValueError("at least one turn is needed")
    return Averaged(total / len(turns), iou / len(turns))
