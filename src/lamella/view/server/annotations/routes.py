"""The addresses of annotations."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import astuple
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from lamella.errors import LamellaError
from lamella.formats.annotation_folder import AnnotatedSlide
from lamella.formats.geojson import as_feature
from lamella.geometry import Box
from lamella.view.server.annotations import queue
from lamella.view.server.annotations.bodies import RefusedObjectsError, SaveBody, change_of, imported, parsed
from lamella.view.server.annotations.classes import classes_of, free_colours
from lamella.view.server.annotations.merge import Change, ConflictError, keeping_both
from lamella.view.server.annotations.selectors import with_selector
from lamella.view.server.annotations.versions import Version
from lamella.view.server.served import Served


def annotations(request: Request) -> JSONResponse:
    """GET api/slides/{slide}/annotations: of all authors; of the others' files that cannot be read, the reason."""
    served: Served = request.app.state.served
    store, slide = served.annotations, served.slide(request.path_params["slide"]).name
    authors: dict[str, Any] = {}
    refused: dict[str, str] = {}
    for author in store.authors(slide):
        try:
            authors[author] = _shown(store.version(slide, author))
        except LamellaError as error:
            refused[author] = str(error)
    facts = {
        "authors": authors,
        "refused": refused,
        "classes": classes_of(served, request.path_params["slide"]),
        "free_colours": free_colours(),
        "read_only": store.refusal(),
    }
    return JSONResponse(facts)


async def save(request: Request) -> JSONResponse:
    """POST api/slides/{slide}/annotations/{author}.

    200: {version, features, refused, said}; features: all objects if they are others than the page knows, else null;
    refused: why objects were left out, by id; said: all that in words. What somebody else changed meanwhile stays, and
    the page's own version of it becomes an object beside it.
    400: {refused}: nothing can be saved as it is.
    """
    body = await request.body()
    return await run_in_threadpool(_save, request, body)


def _save(request: Request, text: bytes) -> JSONResponse:
    served: Served = request.app.state.served
    slide, author = _slide(request), request.path_params["author"]
    try:
        change, refused = change_of(parsed(SaveBody, text))
    except RefusedObjectsError as error:
        return JSONResponse({"error": str(error), "refused": error.reasons}, 400)
    conflicts: set[str] = set()
    while True:
        try:
            version, others = served.annotations.save(slide, author, change)
            break
        except ConflictError as error:  # its objects are in none from now on: their names are new
            change = keeping_both(change, error.conflicts)
            conflicts.update(error.conflicts)
    facts = _shown(version) if others or conflicts else {"version": version.number, "features": None}
    return JSONResponse({**facts, "refused": refused, "said": _said(version.number, len(conflicts), refused)})


def _said(version: int, conflicts: int, refused: Mapping[str, str]) -> str:
    """A line for people."""
    text = f"Saved as version {version}"
    if refused:
        reason = next(iter(refused.values()))
        text += f", but for {len(refused)}: {reason}. Move its corners, or draw it again"
    return text + (f". Changed elsewhere in the meantime: {conflicts}; both versions are kept." if conflicts else ".")


def shape(request: Request) -> JSONResponse:
    """GET api/slides/{slide}/shape?x=&y=&w=&h=&unit=: a box with upright sides, or a point without width and height.

    unit: `um`, else level-0 pixels; from the slide's upper left corner. Nothing is saved.

    Raises:
        LamellaError: A number is missing, or none.
    """
    frame = _slide(request).frame
    x, y, w, h = (_number(request, name) for name in "xywh")
    box = Box(x, y, x + w, y + h)
    x0, y0, x1, y1 = astuple(frame.box_px(box) if request.query_params.get("unit") == "um" else box)
    geometry = {"type": "Point", "coordinates": [x0, y0]}
    if w > 0 and h > 0:
        geometry = {"type": "Polygon", "coordinates": [[[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]]}
    return JSONResponse(with_selector({"type": "Feature", "geometry": geometry}))


def _number(request: Request, name: str) -> float:
    text = request.query_params.get(name, "") or ("0" if name in "wh" else "")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise LamellaError("a shape", f"{name} is no number: {text!r}", "Give x and y, and w and h of a box.")
    return value


async def load(request: Request) -> JSONResponse:
    """POST api/slides/{slide}/annotations/{author}/import: GeoJSON. Objects of a known id take the place of theirs."""
    body = await request.body()
    return await run_in_threadpool(_load, request, body)


def _load(request: Request, text: bytes) -> JSONResponse:
    served: Served = request.app.state.served
    slide, author = _slide(request), request.path_params["author"]
    objects = imported("the file", text)
    while True:
        now = served.annotations.version(slide.name, author)
        try:
            version, _ = served.annotations.save(slide, author, Change(now.number, objects))
        except ConflictError:  # somebody saved between the two lines
            continue
        return JSONResponse({"read": len(objects), "version": version.number})


def export(request: Request) -> Response:
    """GET api/slides/{slide}/annotations/{author}.geojson: as it lies on the disk."""
    served: Served = request.app.state.served
    slide = served.slide(request.path_params["slide"])
    path = served.annotations.geojson(slide.name, request.path_params["author"])
    # Names of slides and authors may hold signs that headers may not: the page names the file.
    return Response(path.read_bytes(), media_type="application/geo+json", headers={"content-disposition": "attachment"})


def _slide(request: Request) -> AnnotatedSlide:
    """What is drawn on, as the folder notes it."""
    served: Served = request.app.state.served
    item = served.slide(request.path_params["slide"])
    with served.slides.slide(item.id) as slide:
        frame = slide.frame
    patient = "" if item.indexed is None else item.indexed.metadata.get("patient", "")
    return AnnotatedSlide(item.name, item.path, frame, patient)


def _shown(version: Version) -> Mapping[str, Any]:
    return {
        "version": version.number,
        "features": [with_selector(as_feature(item, name)) for name, item in version.objects.items()],
    }


ROUTES: list[Route] = [
    Route("/api/slides/{slide}/shape", shape),
    Route("/api/slides/{slide}/annotations", annotations),
    Route("/api/slides/{slide}/annotations/{author}.geojson", export),
    Route("/api/slides/{slide}/annotations/{author}", save, methods=["POST"]),
    Route("/api/slides/{slide}/annotations/{author}/import", load, methods=["POST"]),
    *queue.ROUTES,
]
