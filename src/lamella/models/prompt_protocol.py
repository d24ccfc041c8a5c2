"""Asks a promptable model about known objects, as a simulated user would, and counts how much it got right.

Evaluation and the validation of a training run are this one code: their numbers differ by the weights alone. Every
answer is scored against the object it was asked about, on the image's own pixels, where the truth is known.

Shapes: M objects of an image, Y rows, X columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field

from lamella.config import Settings
from lamella.models.promptable_model import MASK_LOGIT, Decoded, Embedded, PromptableModel
from lamella.models.prompts import NOT_THIS, THIS
from lamella.models.simulated_user import (
    Given,
    TrueObject,
    as_prompts,
    box_of,
    centroid,
    correction,
    deepest,
    negatives,
    noisy_box,
    spread,
)

PromptName = Literal[
    "box", "noisy box", "clicks", "centroid", "multi-point", "box + negatives", "box + negatives + TTA"
]
FIVE: tuple[PromptName, ...] = ("centroid", "multi-point", "box", "box + negatives", "box + negatives + TTA")
"""The five prompts of the source's protocol."""
TTA = "box + negatives + TTA"
# Objects asked about together: their answers on the image's pixels are all held at once (16 of 4 MP: 256 MB).
_OBJECTS_AT_ONCE = 16

# Prompts decoded together. On a CPU more than two fall out of its cache and each takes a third longer.
_AT_ONCE_CPU, _AT_ONCE = 2, 8

Probability = Callable[[Sequence[Given]], np.ndarray]
"""What was given for M objects -> (M, Y, X) probabilities, averaged over exactly invertible changes of the image."""


class PromptProtocol(Settings):
    """Which prompts are given, and for which objects."""

    prompts: tuple[PromptName, ...] = ("noisy box", "clicks", *FIVE)
    """box: tight. noisy box: each corner off by up to 10 % of the side, at most 20 px. clicks: the first into the depth
    of the object, each further one into the largest error. The other four, with box, are the source's five."""
    clicks: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (1, 3, 5, 7)
    """After how many clicks the answer is scored."""
    multi_points: Annotated[int, Field(ge=2)] = 3
    """Clicks of multi-point, all on the object."""
    negatives: Annotated[int, Field(ge=1)] = 3
    """Negative clicks of box + negatives, in the box beside the object."""
    min_area_px: Annotated[int, Field(ge=1)] = 100
    """Objects of fewer pixels are not asked about."""

    @property
    def most_clicks(self) -> int:
        """Clicks tried on each object; 0 where clicks are not asked about."""
        return max(self.clicks) if "clicks" in self.prompts else 0

    def names(self) -> tuple[str, ...]:
        """Of the rows that the protocol gives, in their order."""
        found: list[str] = []
        for prompt in self.prompts:
            found += [clicks_name(count) for count in sorted(self.clicks)] if prompt == "clicks" else [prompt]
        return tuple(found)


def clicks_name(count: int) -> str:
    """`1 click`, `3 clicks`."""
    return f"{count} click{'' if count == 1 else 's'}"


def answers(
    model: PromptableModel,
    embedded: Embedded,
    objects: Sequence[TrueObject],
    known_YX: np.ndarray,
    protocol: PromptProtocol,
    *,
    seed: tuple[int, ...] = (0,),
    averaged: Probability | None = None,
) -> Iterator[tuple[int, str, np.ndarray]]:
    """The model's masks, object by object.

    Args:
        model: On the device of `embedded`.
        embedded: The one image.
        objects: On it.
        known_YX: bool, where the truth is known.
        protocol: What is given.
        seed: Of the noisy boxes of this image.
        averaged: Needed for TTA.

    Yields:
        (number of the object, name of the prompt, (Y, X) bool). Of clicks the answers after every number of them.
    """
    height, width = embedded.size_px
    for first in range(0, len(objects), _OBJECTS_AT_ONCE):
        some = objects[first : first + _OBJECTS_AT_ONCE]
        masks = [each.mask(height, width) for each in some]
        for prompt in protocol.prompts:
            if prompt == "clicks":
                named = _clicked(model, embedded, masks, known_YX, protocol.most_clicks)
            else:
                given = [
                    _given(prompt, mask, known_YX, protocol, np.random.default_rng((*seed, first + row)))
                    for row, mask in enumerate(masks)
                ]
                if prompt == TTA:
                    if averaged is None:
                        raise ValueError(f"{TTA} is asked for without a way to average")
                    named = iter([(prompt, averaged(given) > 0.5)])  # probabilities, where others have logits
                else:
                    named = iter([(prompt, _masks(model, embedded, ask(model, embedded, given)))])
            for name, predicted in named:
                for row, mask in enumerate(predicted):
                    yield first + row, name, mask


def overlap(predicted_YX: np.ndarray, one: TrueObject, known_YX: np.ndarray) -> tuple[int, int, int]:
    """Pixels in both, in the truth and in the answer, where the truth is known."""
    both = int((predicted_YX[one.window] & one.mask_yx).sum())
    return both, one.area_px, int((predicted_YX & known_YX).sum())


def ask(
    model: PromptableModel, embedded: Embedded, given: Sequence[Given], masks: torch.Tensor | None = None
) -> Decoded:
    """One answer (K = 1) for each object of one image; `masks` are logits (1, M, h, w) of the answers before.

    A single click is ambiguous: three masks are asked for, and the one that the model believes in is taken. All other
    prompts get one mask, as SAM 2 was trained.
    """
    device = embedded.features[0].device
    prompts = replace(as_prompts([given], device), masks_BMhw=masks)
    several = all(is_ambiguous(each) for each in given)
    at_once = _AT_ONCE_CPU if device.type == "cpu" else _AT_ONCE
    with torch.inference_mode():
        return model.decode(embedded, prompts, several, at_once).best()


def is_ambiguous(given: Given) -> bool:
    """Whether a prompt is one click and no box."""
    return len(given.points) == 1 and given.box is None


def _clicked(
    model: PromptableModel, embedded: Embedded, masks: Sequence[np.ndarray], known: np.ndarray, most: int
) -> Iterator[tuple[str, np.ndarray]]:
    """The answers after 1, 2, ... clicks; what is right already is not clicked at again."""
    given = [Given().and_click((*deepest(mask), THIS)) for mask in masks]
    decoded = ask(model, embedded, given)
    for count in range(1, most + 1):
        predicted = _masks(model, embedded, decoded)
        yield clicks_name(count), predicted
        if count == most:
            return
        clicks = [correction(mask, answer, known) for mask, answer in zip(masks, predicted, strict=True)]
        wrong = [row for row, click in enumerate(clicks) if click is not None]
        given = [each.and_click(click) for each, click in zip(given, clicks, strict=True)]
        if wrong:
            decoded = _renewed(model, embedded, given, decoded, wrong)


def _renewed(
    model: PromptableModel, embedded: Embedded, given: Sequence[Given], before: Decoded, rows: Sequence[int]
) -> Decoded:
    """`before` with new answers for the objects that were clicked at."""
    logits, iou = before.logits_BMKhw.clone(), before.iou_BMK.clone()
    index = torch.tensor(rows, device=logits.device)
    new = ask(model, embedded, [given[row] for row in rows], logits[:, index, 0])
    logits[:, index], iou[:, index] = new.logits_BMKhw, new.iou_BMK
    return Decoded(logits, iou, None)


def _given(
    prompt: PromptName, mask: np.ndarray, known: np.ndarray, protocol: PromptProtocol, rng: np.random.Generator
) -> Given:
    if prompt == "noisy box":
        return Given(box=noisy_box(mask, rng))
    if prompt == "centroid":
        return Given((centroid(mask),), (THIS,))
    if prompt == "multi-point":
        points = spread(mask, protocol.multi_points)
        return Given(tuple(points), (THIS,) * len(points))
    if prompt == "box":
        return Given(box=box_of(mask))
    outside = negatives(mask, known, protocol.negatives)
    return Given(tuple(outside), (NOT_THIS,) * len(outside), box_of(mask))


def _masks(model: PromptableModel, embedded: Embedded, decoded: Decoded) -> np.ndarray:
    """(M, Y, X) bool on the image's pixels."""
    with torch.inference_mode():
        logits = model.upsample(decoded.logits_BMKhw[0, :, 0], embedded)
    return (logits > MASK_LOGIT).cpu().numpy()
