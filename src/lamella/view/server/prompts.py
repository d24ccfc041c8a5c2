"""Asks a promptable model about the region in view. The model itself is handed in by the verb."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from lamella.geometry import Box
from lamella.slides.slide import Slide


@dataclass(frozen=True)
class PromptAnswer:
    """What the model outlined.

    Attributes:
        features: GeoJSON features in level-0 pixels, one an object; may be empty.
        believed_iou: The model's own belief in the mask.
        known_view: Whether the view's embedding was known already.
        seconds: Of the answer.
    """

    features: Sequence[dict[str, Any]]
    believed_iou: float
    known_view: bool
    seconds: float


class Prompter(Protocol):
    """A promptable model for one object at a time."""

    name: str

    def ask(
        self,
        slide: Slide,
        region_px0: Box,
        boxes_px0: Sequence[Box],
        positives_px0: Sequence[tuple[float, float]],
        negatives_px0: Sequence[tuple[float, float]],
    ) -> PromptAnswer:
        """Outline one object in a region.

        Raises:
            LamellaError: The prompt lies outside the region, or the slide cannot be read there.
        """
        ...


def prompt(request: Request) -> JSONResponse:
    """POST api/slides/{slide}/prompt."""
    raise NotImplementedError


ROUTES = [Route("/api/slides/{slide}/prompt", prompt, methods=["POST"])]
