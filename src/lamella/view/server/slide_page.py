"""A slide's page, and the facts that its scripts ask for."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from lamella.errors import SlideError
from lamella.view.server.pages import page
from lamella.view.server.pyramid import Pyramid
from lamella.view.server.served import Served


def slide_page(request: Request) -> Response:
    """GET /slide/{slide}."""
    served: Served = request.app.state.served
    item = served.slide(request.path_params["slide"])
    try:
        with served.slides.slide(item.id):
            pass
    except SlideError as error:
        return page(request, "refused.html", 200, title=item.name, reason=str(error))
    return page(request, "slide.html", item=item)


def slide_facts(request: Request) -> JSONResponse:
    """GET /api/slides/{slide}: size, spacing, pyramid, layers."""
    served: Served = request.app.state.served
    item = served.slide(request.path_params["slide"])
    with served.slides.slide(item.id) as slide:
        frame = slide.frame
    layers, refused = served.layers(item.id)
    pyramid = Pyramid.over(frame)
    facts: dict[str, Any] = {
        "id": item.id,
        "name": item.name,
        "width_px0": frame.width_px,
        "height_px0": frame.height_px,
        "mpp_x": frame.mpp_x,
        "mpp_y": frame.mpp_y,
        "tile_px": pyramid.tile_px,
        "max_level": pyramid.max_level,
        "layers": [asdict(layer.info) for layer in layers.values()],
        "refused_layers": refused,
        "author": served.author,
        "prompt": None if served.prompter is None else served.prompter.name,
        "no_prompt": served.no_prompter,
    }
    return JSONResponse(facts)


ROUTES = [Route("/slide/{slide}", slide_page), Route("/api/slides/{slide}", slide_facts)]
