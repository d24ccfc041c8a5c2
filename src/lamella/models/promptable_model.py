"""Models that answer prompts: an image is encoded once, and every prompt on it is decoded from that embedding.

Shapes: B images, M prompts on each, N = B x M prompts in a row, P clicks of a prompt, K masks of a prompt, H x W
pixels of the image, h x w cells of the mask grid, D channels of a feature map.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lamella.models.canvas import Canvas
from lamella.models.contract import check_images
from lamella.models.prompts import PADDING, Prompts, boxes_given, check_prompts

MASK_LOGIT = 0.0
"""A pixel belongs to the object where its logit is greater: probability 1/2. (0.5 on logits would be 0.62.)"""

# Colours of ImageNet, 0 to 255: what SAM and SAM 2 subtract and divide by.
_MEAN, _STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
# SAM clips logits to this before they are shown to it again as a prompt.
_LARGEST_LOGIT = 32.0
# One prompt of SAM 2 takes about 60 MB to decode: half a GiB at once.
_PROMPTS_AT_ONCE = 8


@dataclass(frozen=True)
class Embedded:
    """Images as the decoder needs them.

    Attributes:
        features: (B, D, h, w) maps, coarse to fine.
        canvas: Where the images lie on the square that the encoder saw.
    """

    features: tuple[Tensor, ...]
    canvas: Canvas

    @property
    def size_px(self) -> tuple[int, int]:
        """Height and width of the images."""
        return self.canvas.size_px

    @property
    def scale(self) -> tuple[float, float]:
        """Canvas pixels per image pixel, along x and along y."""
        return self.canvas.scale_xy

    def __len__(self) -> int:
        return len(self.features[0])

    def of(self, index: slice | Tensor) -> Embedded:
        """Some of the images."""
        return Embedded(tuple(feature[index] for feature in self.features), self.canvas)

    def to(self, *args: Any) -> Embedded:
        """Move or convert the features, as `Tensor.to`."""
        return Embedded(tuple(feature.to(*args) for feature in self.features), self.canvas)


@dataclass(frozen=True)
class Decoded:
    """Answers to prompts.

    Attributes:
        logits_BMKhw: On the mask grid, which covers the canvas; greater than MASK_LOGIT: of the object.
        iou_BMK: How much of the object the model believes each mask to match.
        object_BM: Logits of an object being there at all; None of a model that does not say.
    """

    logits_BMKhw: Tensor
    iou_BMK: Tensor
    object_BM: Tensor | None

    def best(self) -> Decoded:
        """The mask of each prompt that the model believes in most, K = 1; the first of equal ones."""
        best_BM11 = self.iou_BMK.argmax(-1)[..., None, None, None]
        chosen = self.logits_BMKhw.gather(2, best_BM11.expand(-1, -1, 1, *self.logits_BMKhw.shape[-2:]))
        return Decoded(chosen, self.iou_BMK.gather(2, best_BM11[..., 0, 0]), self.object_BM)


class PromptableModel(nn.Module):
    """A network behind `embed`, `decode` and `upsample`. Weights are frozen; `requires_grad_(True)` thaws them.

    Attributes:
        name: What users call it.
        licence: Of the weights.
        image_px: Side of the canvas that the encoder sees.
        mask_px: Side of the mask grid.
        squash: Stretch images to the canvas instead of padding them, as SAM 2's own predictor does.
        absent: Parts that the weights lack, each as a sentence for the user.
    """

    def __init__(
        self, network: Any, name: str, licence: str, *, squash: bool = False, absent: tuple[str, ...] = ()
    ) -> None:
        super().__init__()
        self.network = network
        self.name, self.licence, self.squash, self.absent = name, licence, squash, absent
        # Not in the checkpoint: these are settings, not weights.
        self.register_buffer("mean_C11", torch.tensor(_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std_C11", torch.tensor(_STD)[:, None, None], persistent=False)
        self.requires_grad_(False).eval()

    image_px: int
    mask_px: int
    mean_C11: Tensor
    std_C11: Tensor

    @property
    @abstractmethod
    def architecture(self) -> dict[str, Any]:
        """Everything but the weights that decides the answers, as JSON."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """16 hex digits that change with the architecture, the weights or the preprocessing."""

    @property
    @abstractmethod
    def encoder_fingerprint(self) -> str:
        """16 hex digits of what decides an embedding: training the decoder alone keeps it."""

    @property
    @abstractmethod
    def encoder_trained(self) -> bool:
        """Whether any weight that an embedding depends on is thawed."""

    @property
    @abstractmethod
    def pyramid_dim(self) -> int:
        """Channels of the maps of `pyramid`."""

    @abstractmethod
    def pyramid(self, images: Tensor) -> list[Tensor]:
        """Feature maps for heads that need no prompt, fine to coarse, each (B, pyramid_dim, h, w); differentiable.

        Args:
            images: uint8 (B, 3, H, W). They are shown on the canvas like everywhere else, so 512 px tiles are enlarged
                to 1024 px; the maps cover the whole canvas, of SAM 2 at a quarter, an eighth, 1/16 and 1/32 of its
                pixels, of SAM at 1/16.
        """

    @abstractmethod
    def _features(self, canvases_BCYX: Tensor) -> tuple[Tensor, ...]:
        """Feature maps of normalised canvases, coarse to fine."""

    @abstractmethod
    def _answer(
        self,
        features: tuple[Tensor, ...],
        clicks: tuple[Tensor, Tensor] | None,
        boxes_N4: Tensor | None,
        masks_N1hw: Tensor | None,
        multimask: bool,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Logits (N, K, h, w), believed IoU (N, K) and object logits (N,) of N prompts, each with its own features.

        Clicks are (N, P, 2) and labels (N, P) without padding, boxes (N, 4) half-open; both in canvas pixels.
        """

    def canvas(self, size_px: tuple[int, int]) -> Canvas:
        """Where images of this height and width lie."""
        return Canvas(size_px, self.image_px, self.squash)

    def pixels(self, images: Tensor) -> Tensor:
        """uint8 images (B, 3, H, W) to normalised canvases (B, 3, image_px, image_px).

        The images are not written to. Below and to the right of them is the mean colour, zero after normalisation.
        """
        check_images(images)
        canvas = self.canvas((images.shape[-2], images.shape[-1]))
        # Torch writes on the tensor's copy alone; resampled as numbers from 0 to 255, as it makes no difference.
        return (canvas.place(images.float(), self.mean_C11) - self.mean_C11) / self.std_C11

    def embed(self, images: Tensor) -> Embedded:
        """Run the encoder, which is nearly all of the work, once for any number of prompts.

        Args:
            images: uint8 (B, 3, H, W), of any size.
        """
        return Embedded(self._features(self.pixels(images)), self.canvas((images.shape[-2], images.shape[-1])))

    def decode(
        self, embedded: Embedded, prompts: Prompts, multimask: bool = False, at_once: int = _PROMPTS_AT_ONCE
    ) -> Decoded:
        """Answer prompts. Each answer depends on its own prompt alone: padding and neighbours change nothing.

        Args:
            embedded: B images.
            prompts: M prompts on each, in pixels of the images.
            multimask: Three masks a prompt (whole, part, part of a part), for prompts of one click; else one.
            at_once: Prompts decoded together; bounds the memory where no gradients are kept.

        Raises:
            PromptError: As for `check_prompts`.
        """
        B, M = prompts.shape
        if len(embedded) != B:
            raise ValueError(f"prompts for {B} images, but {len(embedded)} are embedded")
        check_prompts(prompts, embedded.size_px)
        rows = _Rows.of(prompts.to(embedded.features[0].device), embedded.canvas)
        if rows.masks_N1hw is not None and rows.masks_N1hw.shape[-2:] != (self.mask_px, self.mask_px):
            raise ValueError(f"mask prompts are logits on the grid of {self.mask_px} x {self.mask_px} cells")
        order, answers = [], []
        for index, clicks, boxes_N4, masks_N1hw in rows.alike(at_once):
            features = tuple(feature[index // M] for feature in embedded.features)
            answers.append(self._answer(features, clicks, boxes_N4, masks_N1hw, multimask))
            order.append(index)
        back = torch.cat(order).argsort()
        logits, iou, seen = (
            None if part[0] is None else torch.cat(part)[back].reshape(B, M, *part[0].shape[1:])
            for part in zip(*answers, strict=True)
        )
        return Decoded(logits, iou, seen)  # type: ignore[arg-type]

    def upsample(self, logits: Tensor, embedded: Embedded) -> Tensor:
        """Logits (..., h, w) of `decode` at the images' own pixels, (..., H, W)."""
        return embedded.canvas.to_image(logits)


@dataclass(frozen=True)
class _Rows:
    """Prompts of all images one after the other, in canvas pixels; real clicks before padding."""

    points_NP2: Tensor
    labels_NP: Tensor
    boxes_N4: Tensor | None
    masks_N1hw: Tensor | None

    @classmethod
    def of(cls, prompts: Prompts, canvas: Canvas) -> _Rows:
        B, M = prompts.shape
        boxes = None
        if prompts.boxes_BM4 is not None:
            boxes = canvas.to_canvas(prompts.boxes_BM4.float().reshape(B * M, 2, 2)).reshape(B * M, 4)
        given = next(part for part in (prompts.points_BMP2, prompts.boxes_BM4, prompts.masks_BMhw) if part is not None)
        points, labels = given.new_zeros(B * M, 0, 2), given.new_zeros(B * M, 0, dtype=torch.long)
        if prompts.points_BMP2 is not None and prompts.labels_BMP is not None:
            labels = prompts.labels_BMP.flatten(0, 1).long()
            order = (labels == PADDING).long().argsort(dim=1, stable=True)
            labels = labels.gather(1, order)
            points = canvas.to_canvas(prompts.points_BMP2.float().flatten(0, 1))
            points = points.gather(1, order[..., None].expand(-1, -1, 2))
        masks = None if prompts.masks_BMhw is None else prompts.masks_BMhw.float().flatten(0, 1)[:, None]
        if masks is not None:
            masks = masks.clamp(-_LARGEST_LOGIT, _LARGEST_LOGIT)
        return cls(points, labels, boxes, masks)

    def alike(
        self, at_once: int
    ) -> Iterator[tuple[Tensor, tuple[Tensor, Tensor] | None, Tensor | None, Tensor | None]]:
        """Groups of at most `at_once` prompts with the same number of clicks, all with a box or all without.

        A padded click would be a token that the others attend to: answers would depend on the longest neighbour.
        """
        clicks_N = (self.labels_NP != PADDING).sum(1)
        boxed_N = torch.zeros_like(clicks_N, dtype=torch.bool)
        if self.boxes_N4 is not None:
            boxed_N = boxes_given(self.boxes_N4)
        for kind in torch.unique(clicks_N * 2 + boxed_N).tolist():
            count, boxed = divmod(kind, 2)
            for index in (clicks_N * 2 + boxed_N == kind).nonzero()[:, 0].split(at_once):
                yield (
                    index,
                    (self.points_NP2[index, :count], self.labels_NP[index, :count]) if count else None,
                    self.boxes_N4[index] if boxed and self.boxes_N4 is not None else None,
                    None if self.masks_N1hw is None else self.masks_N1hw[index],
                )


def corner_pixels(boxes_N4: Tensor) -> Tensor:
    """Indices of the pixels in the corners of half-open boxes, as SAM and SAM 2 were trained to read boxes.

    Their training boxes hold the first and the last row and column of the mask. A box narrower than a pixel becomes its
    middle.
    """
    centre_N2, side_N2 = (boxes_N4[:, :2] + boxes_N4[:, 2:]) / 2, boxes_N4[:, 2:] - boxes_N4[:, :2]
    reach_N2 = (side_N2 - 1).clamp(min=0) / 2
    return torch.cat([centre_N2 - reach_N2, centre_N2 + reach_N2], dim=1) - 0.5
