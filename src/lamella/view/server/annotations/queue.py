"""The places that a person is asked to look at, and which of them were dealt with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from lamella.view.server.annotations.bodies import DoneBody, parsed
from lamella.view.server.catalogue.items import QueueItem
from lamella.view.server.served import Served


def all_places(request: Request) -> JSONResponse:
    """GET api/queue: of all slides, in the order of the lists."""
    served: Served = request.app.state.served
    ids = {slide.name: slide.id for slide in served.catalogue.slides.values()}
    done = served.annotations.done()
    places = [{"slide": ids[item.slide], **_place(item, done)} for item in served.catalogue.queue if item.slide in ids]
    return JSONResponse({"places": places})


def places(request: Request) -> JSONResponse:
    """GET api/slides/{slide}/queue: of one slide."""
    served: Served = request.app.state.served
    slide = served.slide(request.path_params["slide"])
    done = served.annotations.done()
    return JSONResponse({"places": [_place(item, done) for item in served.catalogue.queue if item.slide == slide.name]})


async def set_done(request: Request) -> JSONResponse:
    """POST api/slides/{slide}/queue {key, done, author}: a place was dealt with, or was not after all."""
    body = await request.body()
    return await run_in_threadpool(_set_done, request, body)


def _set_done(request: Request, text: bytes) -> JSONResponse:
    served: Served = request.app.state.served
    slide = served.slide(request.path_params["slide"])
    wanted = parsed(DoneBody, text)
    if wanted.key not in {_key(item) for item in served.catalogue.queue if item.slide == slide.name}:
        raise KeyError(wanted.key)
    served.annotations.set_done(wanted.key, wanted.author if wanted.done else None)
    return JSONResponse({"done": wanted.done})


def _place(item: QueueItem, done: Mapping[str, Any]) -> dict[str, Any]:
    key = _key(item)
    return {"key": key, "box": item.box_px0, "why": item.why, "done_by": done.get(key)}


def _key(item: QueueItem) -> str:
    """Of a place: whole pixels, so that a list that is written again names the same places."""
    return f"{item.slide[:200]} {' '.join(str(round(side)) for side in item.box_px0)}"


ROUTES: list[Route] = [
    Route("/api/queue", all_places),
    Route("/api/slides/{slide}/queue", places),
    Route("/api/slides/{slide}/queue", set_done, methods=["POST"]),
]
