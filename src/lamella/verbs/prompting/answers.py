"""A promptable model's answers to what was asked on a slide."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from lamella.models.embedding_cache import EmbeddingCache
from lamella.models.everything import Sieve, everything
from lamella.models.prompt_tta import D4, FLIPS, decode_turned
from lamella.models.promptable_model import MASK_LOGIT, PromptableModel
from lamella.models.prompts import Prompts
from lamella.slides.slide import Slide
from lamella.verbs.prompting.asked import Asked, Question
from lamella.verbs.prompting.tidy import tidied
from lamella.verbs.prompting.views import ShownView, prompts_in

_TURNS = {"flips": FLIPS, "d4": D4}
_OBJECTS_AT_ONCE = 16  # their masks at the view's size are in memory together: 64 MB at 1024 px


@dataclass(frozen=True)
class Answer:
    """What the model made of one object.

    Attributes:
        asked: The object.
        view: That it was seen in.
        mask: (H, W) bool, on the view's pixels.
        believed_iou: By the model.
        object_probability: That there is an object at all; None of a model that does not say.
    """

    asked: Asked
    view: ShownView
    mask: np.ndarray
    believed_iou: float
    object_probability: float | None


@dataclass(frozen=True)
class Asking:
    """How the model is asked.

    Attributes:
        multimask: Take the most believed of three masks; None: of single clicks.
        tta: Turned views to average over.
        tidy: See `tidied`.
    """

    multimask: bool | None
    tta: Literal["none", "flips", "d4"]
    tidy: float


def answers_of(
    asked: Question,
    views: Sequence[ShownView],
    slide: Slide,
    model: PromptableModel,
    how: Asking,
    *,
    cache: EmbeddingCache | None = None,
) -> list[Answer]:
    """In the order of the objects. Objects that share a view share one pass of the encoder, and nothing else.

    Args:
        asked: The objects.
        views: What the model is shown for each.
        slide: That they lie on.
        model: Asked.
        how: It is asked.
        cache: The model's, for who asks again about the same views; else embeddings are kept for one view.
    """
    answers: dict[int, Answer] = {}
    for view in dict.fromkeys(views):
        numbers = [number for number, own in enumerate(views) if own == view]
        images = read_view(slide, view)[None].to(next(model.parameters()).device)
        known = EmbeddingCache(model) if cache is None else cache
        for group, multimask in _alike(asked, view, numbers, how.multimask):
            prompts = prompts_in(
                view,
                [asked.objects[number] for number in group],
                asked.negatives_px0,
                model.mask_px,
                model.canvas((view.height_px, view.width_px)).scale_xy,
                model.image_px,
            )
            masks, iou, seen = _answered(model, known, images, prompts, multimask, how.tta)
            for row, number in enumerate(group):
                mask = tidied(masks[row].cpu().numpy(), how.tidy)
                probability = None if seen is None else float(seen[row])
                answers[number] = Answer(asked.objects[number], view, mask, float(iou[row]), probability)
    return [answers[number] for number in range(len(views))]


def everything_in(
    view: ShownView, slide: Slide, model: PromptableModel, sieve: Sieve, *, tidy: float, class_name: str
) -> list[Answer]:
    """What a grid of clicks finds, named in the order of belief."""
    images = read_view(slide, view)[None].to(next(model.parameters()).device)
    with torch.no_grad():
        found = everything(model, model.embed(images), sieve)
    return [
        Answer(
            Asked(f"found {number}", points_px0=view.to_px0(np.array([one.point])), class_name=class_name),
            view,
            tidied(one.mask, tidy),
            one.believed_iou,
            None,
        )
        for number, one in enumerate(found, 1)
    ]


def read_view(slide: Slide, view: ShownView) -> Tensor:
    """uint8 (3, H, W)."""
    pixels = slide.read(view.box_px0, view.mpp).pixels
    if pixels.shape[:2] != (view.height_px, view.width_px):  # both round the same sides
        raise ValueError(f"read {pixels.shape[:2]} px instead of {(view.height_px, view.width_px)}")
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


@torch.no_grad()
def _answered(
    model: PromptableModel,
    cache: EmbeddingCache,
    images: Tensor,
    prompts: Prompts,
    multimask: bool,
    tta: Literal["none", "flips", "d4"],
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Masks (M, H, W), believed IoU (M,) and probabilities of an object (M,)."""
    if tta != "none":
        turned = decode_turned(model, images, prompts, turns=_TURNS[tta], multimask=multimask, embed=cache.embed)
        return turned.masks_BMHW[0], turned.iou_BM[0], None
    embedded = cache.embed(images)
    decoded = model.decode(embedded, prompts, multimask).best()
    masks = model.upsample(decoded.logits_BMKhw[0, :, 0], embedded) > MASK_LOGIT
    return masks, decoded.iou_BMK[0, :, 0], None if decoded.object_BM is None else decoded.object_BM[0].sigmoid()


def _alike(
    asked: Question, view: ShownView, numbers: Sequence[int], multimask: bool | None
) -> Iterator[tuple[list[int], bool]]:
    """Objects that one call can answer: with or without a mask prompt, with three masks or one. A few at once."""
    negatives = int(view.holds(asked.negatives_px0).sum())
    kinds: dict[tuple[bool, bool], list[int]] = {}
    for number in numbers:
        one = asked.objects[number]
        # A single click may mean a part or the whole; anything more says which.
        single = one.box_px0 is None and not one.polygons and len(one.points_px0) + negatives == 1
        kinds.setdefault((bool(one.polygons), single if multimask is None else multimask), []).append(number)
    for (_, several), group in kinds.items():
        for first in range(0, len(group), _OBJECTS_AT_ONCE):
            yield group[first : first + _OBJECTS_AT_ONCE], several
