"""Prompts: what a user gives a promptable model.

Places are image pixels: x to the right, y down, pixel (0, 0) covers [0, 1) x [0, 1), so its centre is (0.5, 0.5).
Shapes: B images, M prompts (objects) on each, P clicks of a prompt, h x w the model's low-resolution mask grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lamella.errors import LamellaError

THIS, NOT_THIS, PADDING = 1, 0, -1
"""Labels of clicks. PADDING fills rows up where prompts have different numbers of clicks; it is no negative click."""


class PromptError(LamellaError):
    """A prompt that asks for nothing, or for something outside the image."""


@dataclass(frozen=True)
class Prompts:
    """M prompts on each of B images; at least one of points, boxes and masks.

    Attributes:
        points_BMP2: float32 x, y of the clicks.
        labels_BMP: int64 THIS, NOT_THIS or PADDING of each click.
        boxes_BM4: float32 x0, y0, x1, y1, half-open, x0 < x1 and y0 < y1. Four NaN: this prompt has no box.
        masks_BMhw: float32 logits of an earlier answer on the model's mask grid.
    """

    points_BMP2: Tensor | None = None
    labels_BMP: Tensor | None = None
    boxes_BM4: Tensor | None = None
    masks_BMhw: Tensor | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """B and M.

        Raises:
            ValueError: There is nothing at all, or the parts are of different numbers of images or prompts.
        """
        parts = [
            part for part in (self.points_BMP2, self.labels_BMP, self.boxes_BM4, self.masks_BMhw) if part is not None
        ]
        if not parts or (self.points_BMP2 is None) != (self.labels_BMP is None):
            raise ValueError("prompts need points with labels, boxes, or masks")
        shapes = {tuple(part.shape[:2]) for part in parts}
        paired = (
            self.points_BMP2 is None or self.labels_BMP is None or self.points_BMP2.shape[:3] == self.labels_BMP.shape
        )
        if len(shapes) != 1 or not paired:
            raise ValueError(f"parts of the prompts have different shapes: {[tuple(part.shape) for part in parts]}")
        return shapes.pop()  # type: ignore[return-value]

    def to(self, device: torch.device | str) -> Prompts:
        """The same prompts on another device."""
        return Prompts(
            *(
                part if part is None else part.to(device)
                for part in (self.points_BMP2, self.labels_BMP, self.boxes_BM4, self.masks_BMhw)
            )
        )


def boxes_given(boxes_BM4: Tensor) -> Tensor:
    """(B, M) bool: which prompts have a box."""
    return ~boxes_BM4.isnan().all(-1)


def check_prompts(prompts: Prompts, size_px: tuple[int, int]) -> None:
    """Refuse prompts that no model should answer.

    Args:
        prompts: Any.
        size_px: Height and width of the images.

    Raises:
        PromptError: A click or a whole box lies outside the image, a box has no area or its corners are exchanged, a
            coordinate is no number, or a prompt has neither click, box nor mask. The prompt is named.
        ValueError: The tensors do not fit together, or a label is none of THIS, NOT_THIS and PADDING.
    """
    B, M = prompts.shape
    asked_BM = torch.full((B, M), prompts.masks_BMhw is not None)
    if prompts.points_BMP2 is not None and prompts.labels_BMP is not None:
        asked_BM |= _check_points(prompts.points_BMP2.cpu(), prompts.labels_BMP.cpu(), size_px)
    if prompts.boxes_BM4 is not None:
        asked_BM |= _check_boxes(prompts.boxes_BM4.cpu(), size_px)
    if prompts.masks_BMhw is not None and not (finite := prompts.masks_BMhw.isfinite().flatten(2).all(2).cpu()).all():
        raise PromptError(_named(~finite), "its mask holds values that are not numbers", "Give logits, finite ones.")
    if not asked_BM.all():
        raise PromptError(_named(~asked_BM), "it has no click, no box and no mask", "Give at least one of them.")


def _check_points(points_BMP2: Tensor, labels_BMP: Tensor, size_px: tuple[int, int]) -> Tensor:
    """Which prompts have a click."""
    if not torch.isin(labels_BMP, torch.tensor([THIS, NOT_THIS, PADDING])).all():
        raise ValueError(f"labels of clicks are {THIS}, {NOT_THIS} or {PADDING} (padding)")
    real_BMP = labels_BMP != PADDING
    side_2 = torch.tensor([size_px[1], size_px[0]])
    inside_BMP = ((points_BMP2 >= 0) & (points_BMP2 <= side_2)).all(-1)  # False of NaN
    wrong_BMP = real_BMP & ~inside_BMP
    if wrong_BMP.any():
        image, prompt, click = wrong_BMP.nonzero()[0].tolist()
        x, y = points_BMP2[image, prompt, click].tolist()
        raise PromptError(
            f"{_named(wrong_BMP.any(-1))}, click {click + 1}",
            f"it is at ({x:g}, {y:g}), outside the image of {size_px[1]} x {size_px[0]} px",
            "Click inside the image; positions are x, y in its pixels.",
        )
    return real_BMP.any(-1)


def _check_boxes(boxes_BM4: Tensor, size_px: tuple[int, int]) -> Tensor:
    """Which prompts have a box."""
    given_BM = boxes_given(boxes_BM4)
    x0, y0, x1, y1 = boxes_BM4.unbind(-1)
    faults = (
        (~boxes_BM4.isfinite().all(-1), "is not four finite numbers", "Give x0, y0, x1, y1."),
        ((x1 < x0) | (y1 < y0), "has its corners exchanged", "Give x0, y0, x1, y1 with x0 < x1 and y0 < y1."),
        ((x1 == x0) | (y1 == y0), "has no area", "Draw a box around the object."),
        (
            (x1 <= 0) | (y1 <= 0) | (x0 >= size_px[1]) | (y0 >= size_px[0]),
            f"lies outside the image of {size_px[1]} x {size_px[0]} px",
            "Draw it around an object in the image; positions are in its pixels.",
        ),
    )
    for fault_BM, cause, remedy in faults:
        if (wrong_BM := given_BM & fault_BM).any():
            image, prompt = wrong_BM.nonzero()[0].tolist()
            box = ", ".join(f"{side:g}" for side in boxes_BM4[image, prompt].tolist())
            raise PromptError(_named(wrong_BM), f"its box ({box}) {cause}", remedy)
    return given_BM


def _named(wrong_BM: Tensor) -> str:
    """The first prompt that is at fault, in words; of several images the image, too."""
    image, prompt = wrong_BM.nonzero()[0].tolist()
    return f"prompt {prompt + 1}" + (f" of image {image + 1}" if len(wrong_BM) > 1 else "")
