"""Tiles, objects, channels and legends of layers."""

from __future__ import annotations

import hashlib
import io
import math
from dataclasses import asdict
from functools import lru_cache, partial

import numpy as np
from PIL import Image
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from lamella.errors import LamellaError
from lamella.geometry import Box
from lamella.view.server.error_tile import error_answer
from lamella.view.server.layers.colours import Indexed
from lamella.view.server.layers.contract import Layer, Look, ObjectsInView
from lamella.view.server.layers.layer import PlainLayer
from lamella.view.server.outline_svg import outline_svg
from lamella.view.server.pages import fragment
from lamella.view.server.pyramid import Pyramid
from lamella.view.server.served import Served

_MOST_OBJECTS = 5000  # outlines in one answer: more than a browser draws at once
_MOST_NAMES = 200
# Another prediction may stand at the same address tomorrow: browsers ask each time whether their copy still holds.
_ASK_AGAIN = "private, no-cache"
_QUICKEST = 1  # compression of PNG: higher levels take many times as long over loopback, for tiles hardly smaller


async def layer_tile(request: Request) -> Response:
    """GET /api/slides/{slide}/layers/{layer}/tiles/{level}/{column}_{row}.png?channel=&map=&low=&high=."""
    served: Served = request.app.state.served
    return await served.slides.in_turn(partial(_tile, request))


def _tile(request: Request) -> Response:
    served, layer = _asked(request)
    at, look = request.path_params, _look(request)
    key = ("layer", at["slide"], at["layer"], at["level"], at["column"], at["row"], look)
    tile = served.tiles.get(key)
    if tile is None:
        box, width_px, height_px = Pyramid.over(layer.frame).tile(at["level"], at["column"], at["row"])
        settled = layer.settled  # asked first: what settles meanwhile is painted again
        try:
            paint = layer.paint if isinstance(layer, PlainLayer) else layer.tile
            found = paint(box, width_px, height_px, look)
            tile = _bare(width_px, height_px) if found is None else as_png(found)
        except KeyError:
            raise  # no such channel or colour map
        except Exception as error:  # noqa: BLE001 - a tile that is left out would look as if nothing were there
            return error_answer(request, (width_px, height_px), error)
        if not settled:
            return Response(tile, media_type="image/png", headers={"cache-control": "no-store"})
        served.tiles.put(key, tile)
    return answer(request, tile)


def layer_objects(request: Request) -> JSONResponse:
    """GET /api/slides/{slide}/layers/{layer}/objects?x0=&y0=&x1=&y1=&limit=&channel=: those that touch the box.

    {total, svg, ready, said}: how many there are; those of the channel, or of all, drawn, if they are at most `limit`;
    the share of the file that was read so far; all that in words.
    """
    _, layer = _asked(request)
    box = Box(*(_number(request, name) or 0.0 for name in ("x0", "y0", "x1", "y1")))
    limit = _whole(request, _MOST_OBJECTS)
    found, only = layer.objects(box, limit), _look(request).channel
    svg = outline_svg(
        feature for feature in found.features if only in ("", feature["properties"]["classification"]["name"])
    )
    return JSONResponse({"total": found.total, "svg": svg, "ready": found.ready, "said": _said(found)})


def _said(found: ObjectsInView) -> str:
    """A line for people."""
    many = ", too many to outline: zoom in" if len(found.features) < found.total else ""
    part = f" · {math.floor(found.ready * 100)} % of the file read" if found.ready < 1 else ""
    return f"{found.total:,} in view{many}{part}"


def layer_channels(request: Request) -> JSONResponse:
    """GET /api/slides/{slide}/layers/{layer}/channels?search=&limit=: {channels, exact, said}.

    exact: the one that is called so, in whatever case, or null; said: how many were found, else.
    """
    _, layer = _asked(request)
    text = request.query_params.get("search", "")
    found = list(layer.search(text, _whole(request, _MOST_NAMES)))
    exact = next((name for name in found if name.casefold() == text.strip().casefold()), None)
    return JSONResponse({"channels": found, "exact": exact, "said": "" if exact else f"{len(found) or 'none'} found"})


def layer_legend(request: Request) -> JSONResponse:
    """GET /api/slides/{slide}/layers/{layer}/legend?channel=&map=&low=&high=: range and colours of a channel.

    `html` is the same for the page.
    """
    _, layer = _asked(request)
    legend = layer.legend(_look(request))
    asked = {end: request.query_params.get(end, "") for end in ("low", "high")}
    html = fragment("slide_legend.html", layer=layer.info, legend=legend, asked=asked)
    return JSONResponse({**asdict(legend), "html": html})


def answer(request: Request, tile: bytes) -> Response:
    """A tile, or word that the browser's own copy of it still holds."""
    tag = f'"{hashlib.blake2s(tile, digest_size=12).hexdigest()}"'
    headers = {"etag": tag, "cache-control": _ASK_AGAIN}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(tile, media_type="image/png", headers=headers)


def as_png(found: Indexed | np.ndarray) -> bytes:
    """A tile as `PlainLayer.paint` or `Layer.tile` gives it, as PNG."""
    if not isinstance(found, Indexed):
        return _packed(Image.fromarray(found))
    image = Image.fromarray(np.ascontiguousarray(found.numbers))
    image.putpalette(found.palette[:, :3].tobytes())
    return _packed(image, transparency=found.palette[:, 3].tobytes())


@lru_cache(maxsize=64)  # most tiles of a layer are whole; the sizes at a slide's edges are few
def _bare(width_px: int, height_px: int) -> bytes:
    nothing = np.zeros((height_px, width_px), np.uint8)
    return as_png(Indexed(nothing, np.zeros((256, 4), np.uint8)))


def _packed(image: Image.Image, **more: bytes) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=_QUICKEST, **more)
    return file.getvalue()


def _asked(request: Request) -> tuple[Served, Layer]:
    served: Served = request.app.state.served
    layers, _ = served.layers(request.path_params["slide"])
    return served, layers[request.path_params["layer"]]


def _look(request: Request) -> Look:
    asked = request.query_params
    return Look(asked.get("channel", ""), asked.get("map", ""), _number(request, "low"), _number(request, "high"))


def _number(request: Request, name: str) -> float | None:
    """A number of the query; None if it is absent or empty."""
    text = request.query_params.get(name, "")
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise LamellaError(name, f"{text[:40]!r} is no number", "Give a number.")
    return value


def _whole(request: Request, most: int) -> int:
    number = _number(request, "limit")
    return most if number is None else int(min(max(number, 0), most))


_LAYER = "/api/slides/{slide}/layers/{layer}"
ROUTES = [
    Route(_LAYER + "/tiles/{level:int}/{column:int}_{row:int}.png", layer_tile),
    Route(_LAYER + "/objects", layer_objects),
    Route(_LAYER + "/channels", layer_channels),
    Route(_LAYER + "/legend", layer_legend),
]
