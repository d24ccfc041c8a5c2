"""Addresses of the tiles of slides and of their thumbnails, straight from the slide readers."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import partial

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lamella.slides.slide import Slide
from lamella.view.server.error_tile import error_answer
from lamella.view.server.pyramid import TILE_PX
from lamella.view.server.served import Served
from lamella.view.server.tile_pixels import QUALITY, THUMBNAIL_PX, thumbnail_jpeg, tile_jpeg

# A browser asks whether its copy still holds, and is told so without a pixel being read. Not longer: another slide may
# stand at the same address tomorrow.
_ASK_AGAIN = "private, no-cache"


async def slide_tile(request: Request) -> Response:
    """GET api/slides/{slide}/tiles/{level}/{column}_{row}.jpg."""
    at = request.path_params
    return await _picture(request, partial(tile_jpeg, level=at["level"], column=at["column"], row=at["row"]), TILE_PX)


async def slide_thumbnail(request: Request) -> Response:
    """GET api/slides/{slide}/thumbnail.jpg: the longer side has 256 pixels."""
    return await _picture(request, partial(thumbnail_jpeg, max_px=THUMBNAIL_PX), THUMBNAIL_PX)


async def _picture(request: Request, make: Callable[[Slide], bytes], side_px: int) -> Response:
    """A JPEG of a slide from memory, or made in a thread in turn; an error tile where the slide cannot be read."""
    served: Served = request.app.state.served
    item = served.slide(request.path_params["slide"])
    stamp = served.slides.stamp(item.id)
    headers = {"cache-control": _ASK_AGAIN, "etag": f'"{stamp}-{QUALITY}"'}
    if stamp and request.headers.get("if-none-match") == headers["etag"]:
        return Response(status_code=304, headers=headers)
    key: Hashable = (request.url.path, stamp)
    jpeg = served.tiles.get(key)
    if jpeg is None:
        try:
            jpeg = await served.slides.in_turn(partial(_made, served, item.id, make))
        except IndexError:
            raise  # no such tile
        except Exception as error:  # noqa: BLE001 - a tile that is left out would look like glass, whatever the cause
            return error_answer(request, (side_px, side_px), error)
        served.tiles.put(key, jpeg)
    return Response(jpeg, headers=headers, media_type="image/jpeg")


def _made(served: Served, slide_id: str, make: Callable[[Slide], bytes]) -> bytes:
    with served.slides.slide(slide_id) as slide:
        return make(slide)


ROUTES = [
    Route("/api/slides/{slide}/tiles/{level:int}/{column:int}_{row:int}.jpg", slide_tile),
    Route("/api/slides/{slide}/thumbnail.jpg", slide_thumbnail),
]
