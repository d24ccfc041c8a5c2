"""Tiles of slides, straight from the slide readers."""

from __future__ import annotations

import simplejpeg
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lamella.view.server.pyramid import Pyramid
from lamella.view.server.served import Served

_QUALITY = 85


def slide_tile(request: Request) -> Response:
    """GET /api/slides/{slide}/tiles/{level}/{column}_{row}.jpg."""
    served: Served = request.app.state.served
    at = request.path_params
    key = (at["slide"], at["level"], at["column"], at["row"])
    tile = served.tiles.get(key)
    if tile is None:
        with served.slides.slide(at["slide"]) as slide:
            box, _, _ = Pyramid.over(slide.frame).tile(at["level"], at["column"], at["row"])
            pixels = slide.read(box, slide.mpp * 2 ** (Pyramid.over(slide.frame).max_level - at["level"])).pixels
        tile = simplejpeg.encode_jpeg(pixels, _QUALITY)
        served.tiles.put(key, tile)
    return Response(tile, media_type="image/jpeg")


ROUTES = [Route("/api/slides/{slide}/tiles/{level:int}/{column:int}_{row:int}.jpg", slide_tile)]
