"""Asks a promptable model about the region in view. The model itself is handed in by the verb."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from lamella.errors import LamellaError, first_line
from lamella.geometry import Box
from lamella.slides.slide import Slide
from lamella.view.server.annotations.selectors import with_selector
from lamella.view.server.outline_svg import outline_svg

# Each click is a token that all others attend to; more than this on one object is no hand's work.
_MOST_CLICKS = 64
_BLUE = "#0072b2"  # of the outline that is not accepted yet
_HOW_TO_START = "Start the viewer with model=sam2.1-hiera-tiny."


@dataclass(frozen=True)
class PromptAnswer:
    """What the model outlined.

    Attributes:
        features: GeoJSON features in level-0 pixels, one an object; may be empty.
        believed_iou: The model's own belief in the mask.
        known_view: Whether the view's embedding was known already.
        seconds: Of the answer.
        view_px0: x0, y0, x1, y1 of what the model was shown.
    """

    features: Sequence[dict[str, Any]]
    believed_iou: float
    known_view: bool
    seconds: float
    view_px0: tuple[float, float, float, float]


class Prompter(Protocol):
    """A promptable model for one object at a time. Several threads ask it at once."""

    name: str

    def ask(
        self,
        slide: Slide,
        region_px0: Box,
        boxes_px0: Sequence[Box],
        positives_px0: Sequence[tuple[float, float]],
        negatives_px0: Sequence[tuple[float, float]],
    ) -> PromptAnswer:
        """Outline one object in a region. Without a box and a click on it the region is only made ready.

        Raises:
            LamellaError: The prompt lies outside the region, or the slide cannot be read there.
        """
        ...


_Number = Annotated[float, Field(allow_inf_nan=False)]
_Place = tuple[_Number, _Number]
_Corners = tuple[_Number, _Number, _Number, _Number]


class _Asked(BaseModel):
    """The body of a prompt, in level-0 pixels."""

    model_config = ConfigDict(extra="forbid")

    region: _Corners
    boxes: Annotated[list[_Corners], Field(max_length=1)] = []
    positives: Annotated[list[_Place], Field(max_length=_MOST_CLICKS)] = []
    negatives: Annotated[list[_Place], Field(max_length=_MOST_CLICKS)] = []


async def prompt(request: Request) -> JSONResponse:
    """POST api/slides/{slide}/prompt {region, boxes, positives, negatives} -> `PromptAnswer`, `svg`, `said`."""
    body = await request.body()
    return JSONResponse(await run_in_threadpool(_answer, request, body))


def _answer(request: Request, body: bytes) -> dict[str, Any]:
    served = request.app.state.served
    item = served.slide(request.path_params["slide"])
    if served.prompter is None:
        raise LamellaError("prompts", "no promptable model is loaded", served.no_prompter or _HOW_TO_START)
    try:
        asked = _Asked.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "it"
        raise LamellaError(
            "the prompt",
            f"{where}: {first_line(first['msg'])}",
            f"Send region, and boxes (one), positives and negatives (up to {_MOST_CLICKS} clicks each) as numbers.",
        ) from error
    with served.slides.slide(item.id) as slide:
        boxes = [Box(*corners) for corners in asked.boxes]
        answer = served.prompter.ask(slide, _region(asked), boxes, asked.positives, asked.negatives)
    features = [with_selector(feature) for feature in answer.features]
    svg = outline_svg({**feature, "properties": {"classification": {"color": _BLUE}}} for feature in answer.features)
    said = _said(answer, asked=bool(asked.boxes or asked.positives))
    return {**asdict(answer), "features": features, "svg": svg, "said": said}


def _region(asked: _Asked) -> Box:
    """What is in view and whatever was pointed at, which may lie outside by now."""
    boxes = [asked.region, *asked.boxes, *((x, y, x, y) for x, y in (*asked.positives, *asked.negatives))]
    x0, y0, x1, y1 = zip(*boxes, strict=True)
    return Box(min(x0), min(y0), max(x1), max(y1))


def _said(answer: PromptAnswer, *, asked: bool) -> str:
    """A line for people."""
    took = f"{answer.seconds:.1f} s" + ("" if answer.known_view else ", a new view")
    if not asked:
        return f"Ready ({took})."
    if not answer.features:
        return "The model sees nothing there: try a box, or another zoom."
    return f"Believed IoU {answer.believed_iou:.2f} ({took}). Accept it, or click to correct it."


ROUTES = [Route("/api/slides/{slide}/prompt", prompt, methods=["POST"])]
