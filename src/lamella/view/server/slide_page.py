"""A slide's page, and the facts that its scripts ask for."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from lamella.errors import SlideError
from lamella.geometry import Frame
from lamella.view.server.catalogue.items import SlideItem
from lamella.view.server.layers.contract import LayerInfo
from lamella.view.server.pages import page
from lamella.view.server.pyramid import TILE_PX, Pyramid
from lamella.view.server.served import Served


def slide_page(request: Request) -> Response:
    """GET /slide/{slide}."""
    served: Served = request.app.state.served
    item = served.slide(request.path_params["slide"])
    if item.refused:
        return page(request, "refused.html", title=item.name, reason=item.refused)
    try:
        with served.slides.slide(item.id) as slide:
            frame = slide.frame
        layers, refused = served.layers(item.id)
    except SlideError as error:
        return page(request, "refused.html", title=item.name, reason=str(error))
    groups: dict[str, list[LayerInfo]] = {}
    for layer in layers.values():
        groups.setdefault(layer.info.group, []).append(layer.info)
    values = {
        "facts": facts_of(item, frame),
        "groups": groups,
        "refused": refused,
        "prompt": served.prompter and served.prompter.name,
        "no_prompt": served.no_prompter,
        "authors": served.annotations.authors(item.name),
    }
    return page(request, "slide.html", item=item, **values)


def slide_facts(request: Request) -> JSONResponse:
    """GET /api/slides/{slide}: size, spacing, pyramid, layers."""
    served: Served = request.app.state.served
    item = served.slide(request.path_params["slide"])
    with served.slides.slide(item.id) as slide:
        frame, pyramid = slide.frame, Pyramid.of(slide)
    layers, refused = served.layers(item.id)
    facts: dict[str, Any] = {
        "id": item.id,
        "name": item.name,
        "width_px0": frame.width_px,
        "height_px0": frame.height_px,
        "mpp_x": frame.mpp_x,
        "mpp_y": frame.mpp_y,
        "tile_px": pyramid.tile_px,
        "layer_tile_px": TILE_PX,
        "max_level": pyramid.max_level,
        "layers": [asdict(layer.info) for layer in layers.values()],
        "refused_layers": refused,
        "author": served.author,
        "prompt": None if served.prompter is None else served.prompter.name,
        "no_prompt": served.no_prompter,
    }
    return JSONResponse(facts)


def facts_of(item: SlideItem, frame: Frame) -> dict[str, str]:
    """What people want to know of a slide, label -> text: its size and spacing, then what the index found."""
    width_mm, height_mm = (length / 1000 for length in frame.size_um)
    even = abs(frame.mpp_x / frame.mpp_y - 1) < 1e-3  # beyond it three digits differ
    spacing = f"{frame.mpp_x:.4g}" if even else f"{frame.mpp_x:.4g} x {frame.mpp_y:.4g}"
    return {
        "size": f"{frame.width_px} x {frame.height_px} px, {width_mm:.3g} x {height_mm:.3g} mm",
        "spacing": f"{spacing} µm per px",
        **item.facts,
    }


ROUTES = [
    Route("/slide/{slide}", slide_page),
    Route("/api/slides/{slide}", slide_facts),
]
