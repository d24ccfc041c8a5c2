"""A promptable model for the viewer: one model for all who look, and views that it knows again."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lamella.engine.world import DeviceName, choose_device
from lamella.errors import LamellaError
from lamella.formats.geojson import GeoObject, as_feature
from lamella.geometry import Box, Frame
from lamella.models.embedding_cache import EmbeddingCache
from lamella.models.promptable import load_promptable
from lamella.models.promptable_model import PromptableModel
from lamella.models.prompts import PromptError
from lamella.slides.polygons import trace_mask
from lamella.slides.slide import Slide
from lamella.verbs.prompting.answers import Answer, Asking, answers_of, read_view
from lamella.verbs.prompting.asked import Asked, Question
from lamella.verbs.prompting.views import ShownView, view_of
from lamella.view.server.prompts import PromptAnswer

# Specks and pinholes below a hundredth of the mask are tidied away, ten times what `lamella segment` takes: a person
# goes on to edit the outline, and every speck is a ring of its own.
_HOW = Asking(multimask=None, tta="none", tidy=0.01)
# Views lie on a grid of a quarter of their side, and their sides are steps of the square root of 2. A side of 4/3 of
# what is in view then always holds it, and a pan or zoom that moves less than a step meets the same view again.
_STEPS, _GROWTH = 4, 2**0.5
_MOST_ENLARGED = 4  # the slide's pixels; more would show the model no more (as in verbs/prompting/views.py)


class SamPrompter:
    """Answers prompts on slides. Threads take turns: a model works on one prompt at a time.

    Args:
        model: Frozen, where it shall run.
        memory_mb: Of embeddings of views; one of SAM 2 takes 16 MB.

    Attributes:
        name: Of the model.
        cache: The views that it knows.
    """

    def __init__(self, model: PromptableModel, memory_mb: int = 1024) -> None:
        self.model, self.name = model, model.name
        self.cache = EmbeddingCache(model, memory_bytes=memory_mb << 20)
        self._lock = threading.Lock()

    def ask(
        self,
        slide: Slide,
        region_px0: Box,
        boxes_px0: Sequence[Box],
        positives_px0: Sequence[tuple[float, float]],
        negatives_px0: Sequence[tuple[float, float]],
    ) -> PromptAnswer:
        """Outline one object in a region. Without a box and a click on it the view is only made ready.

        Raises:
            LamellaError: The prompt is none or lies outside the region, or the slide cannot be read there.
        """
        start = time.monotonic()
        view = snapped_view(region_px0, slide.frame, self.model.image_px)
        asked = _question(boxes_px0, positives_px0, negatives_px0, view)
        with self._lock:
            passes = self.cache.passes
            if asked is None:
                self.cache.embed(read_view(slide, view)[None].to(next(self.model.parameters()).device))
                answer = None
            else:
                (answer,) = answers_of(asked, [view], slide, self.model, _HOW, cache=self.cache)
            known = self.cache.passes == passes
        outlined = [] if answer is None or not answer.mask.any() else [as_feature(_outline(answer), "the answer")]
        box = view.box_px0
        return PromptAnswer(
            features=outlined,
            believed_iou=0.0 if answer is None else answer.believed_iou,
            known_view=known,
            seconds=time.monotonic() - start,
            view_px0=(box.x0, box.y0, box.x1, box.y1),
        )


def make_prompter(spec: str | Path, device: DeviceName = "auto", memory_mb: int = 1024) -> SamPrompter:
    """Load a promptable model for the viewer.

    Args:
        spec: As for `lamella segment model=`: a name, a name with @ and the place of its weights, or a folder.
        device: Where it runs.
        memory_mb: See `SamPrompter`.

    Raises:
        CheckpointError: There is no such model.
    """
    model = load_promptable(spec)
    chosen, _ = choose_device(device)
    return SamPrompter(model.to(chosen), memory_mb)


def snapped_view(region_px0: Box, slide: Frame, image_px: int) -> ShownView:
    """What the model is shown of a region: a square around it that regions near by share.

    Args:
        region_px0: What the user sees; the part outside the slide is passed over.
        slide: The slide's level-0 frame.
        image_px: Side of the model's canvas.

    Raises:
        LamellaError: The region holds nothing of the slide.
    """
    region_um = slide.box_um(region_px0.intersection(slide.bounds_px))
    if region_um.width <= 0 or region_um.height <= 0:
        raise LamellaError("the region in view", "it holds nothing of the slide", "Move the slide into view.")
    least_um = max(region_um.width, region_um.height) * _STEPS / (_STEPS - 1)
    side_um = image_px * slide.mpp / _MOST_ENLARGED
    while side_um < least_um:
        side_um *= _GROWTH
    step_um = side_um / _STEPS
    x0_um, y0_um = (np.floor(low_um / step_um) * step_um for low_um in (region_um.x0, region_um.y0))
    return view_of(slide.box_px(Box(x0_um, y0_um, x0_um + side_um, y0_um + side_um)), slide, image_px)


def _question(
    boxes_px0: Sequence[Box],
    positives_px0: Sequence[tuple[float, float]],
    negatives_px0: Sequence[tuple[float, float]],
    view: ShownView,
) -> Question | None:
    """What is asked about the object; None where nothing is.

    Raises:
        PromptError: A prompt cannot be answered.
    """
    if not boxes_px0 and not positives_px0:
        if negatives_px0:
            raise PromptError(
                "the prompt", "it says only what is not the object", "Draw a box around it, or click on it first."
            )
        return None
    if len(boxes_px0) > 1:
        raise PromptError("the prompt", f"it has {len(boxes_px0)} boxes", "Ask for one object at a time.")
    positives, negatives = (np.asarray(clicks, np.float64).reshape(-1, 2) for clicks in (positives_px0, negatives_px0))
    box = boxes_px0[0] if boxes_px0 else None
    if not view.holds(np.concatenate([positives, negatives])).all():
        raise PromptError("a click", "it lies outside the slide or the region in view", "Click in view, on the slide.")
    if box is not None and (box.width <= 0 or box.height <= 0 or box.intersection(view.box_px0).area == 0):
        raise PromptError("the box", "it has no area on the slide in view", "Draw it in view, on the slide.")
    return Question((Asked("the object", box, positives),), negatives)


def _outline(answer: Answer) -> GeoObject:
    polygons = tuple(tuple(answer.view.to_px0(ring) for ring in rings) for rings in trace_mask(answer.mask))
    return GeoObject(polygons=polygons, measurements={"believed IoU": answer.believed_iou})
