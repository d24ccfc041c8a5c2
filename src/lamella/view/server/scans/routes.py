"""The addresses of scans."""

from __future__ import annotations

import io
import math
from typing import Any

import simplejpeg
from PIL import Image
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from lamella.errors import LamellaError
from lamella.imaging.measured import Window
from lamella.view.planes import PLANES
from lamella.view.server.catalogue.items import ScanItem
from lamella.view.server.pages import page
from lamella.view.server.scans.film import SeenFilm
from lamella.view.server.scans.scan_pool import Seen
from lamella.view.server.scans.volume import SeenVolume

_QUALITY = 92  # of frames: no blocks to be seen
# Addresses carry the file's time, so a picture stays right for as long as it is asked for.
_KEPT = {"cache-control": "private, max-age=3600"}
_AXIS_LETTERS = "zyx"  # of (Z, Y, X)
# Where each axis begins and ends, for the labels of the sliders.
_FROM_TO = {"z": "from feet to head", "y": "from back to front", "x": "from left to right"}


def scan_page(request: Request) -> Response:
    """GET /scan/{scan}. The first time this reads the scan."""
    item = _item(request)
    try:
        seen = _seen(request)
    except LamellaError as error:
        return page(request, "refused.html", title=item.title, reason=str(error))
    planes = _planes() if isinstance(seen, SeenVolume) else ()
    version = item.path.stat().st_mtime_ns
    return page(request, "scan.html", item=item, seen=seen.facts, planes=planes, version=version)


def scan_layout(request: Request) -> Response:
    """GET /api/scans/{scan}/layout.css: proportions of the pictures. The policy lets no element name its style."""
    seen = _seen(request)
    mm = seen.facts["mm"]
    if not isinstance(seen, SeenVolume):
        return Response(f".picture {{ aspect-ratio: {mm['x'] / mm['y']}; }}\n", media_type="text/css")
    # One scale for all three, and all in sight with what stands above and below.
    columns, ratio = f"{mm['x']}fr {mm['x']}fr {mm['y']}fr", (2 * mm["x"] + mm["y"]) / max(mm["y"], mm["z"])
    rules = [f".planes {{ grid-template-columns: {columns}; max-width: calc((100vh - 21rem) * {ratio}); }}"]
    for plane in _planes():
        share = mm[plane["across"]] / mm[plane["down"]]
        rules.append(f".{plane['name']} .picture {{ aspect-ratio: {share}; }}")
    return Response("\n".join(rules) + "\n", media_type="text/css")


def scan_plane(request: Request) -> Response:
    """GET /api/scans/{scan}/planes/{axis}/{at}?channel=&window=NUMBER|own&low=&high=."""
    at, volume = request.path_params, _volume(request)
    channel = int(_number(request, "channel", 0))
    if request.query_params.get("window") == "own":
        low, high = _number(request, "low"), _number(request, "high")
        if not low < high:
            raise LamellaError("the window", f"black ({low:g}) is not below white ({high:g})", "Change one of them.")
        window = Window((low + high) / 2, high - low)
    else:
        window = volume.window(int(_number(request, "window", 0)), channel)
    return _png(Image.fromarray(volume.plane(at["axis"], at["at"], channel, window)))


def mask_plane(request: Request) -> Response:
    """GET /api/scans/{scan}/masks/{mask}/planes/{axis}/{at}."""
    at = request.path_params
    return _png(Image.fromarray(_volume(request).mask_plane(at["mask"], at["axis"], at["at"])))


def scan_values(request: Request) -> JSONResponse:
    """GET /api/scans/{scan}/values?x=&y=&z=&channel=: what lies at a voxel."""
    x, y, z = (int(_number(request, axis)) for axis in "xyz")
    return JSONResponse({"text": _volume(request).at(x, y, z, int(_number(request, "channel", 0)))})


def scan_frame(request: Request) -> Response:
    """GET /api/scans/{scan}/frames/{at}."""
    seen = _seen(request)
    if not isinstance(seen, SeenFilm):
        raise KeyError("frames")
    frame = seen.frame(request.path_params["at"])
    return Response(simplejpeg.encode_jpeg(frame, _QUALITY), media_type="image/jpeg", headers=_KEPT)


def _planes() -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "through": _AXIS_LETTERS[axis],
            "down": _AXIS_LETTERS[rows],
            "across": _AXIS_LETTERS[columns],
            "edges": dict(zip(("left", "right", "top", "bottom"), edges, strict=True)),
            "from_to": _FROM_TO[_AXIS_LETTERS[axis]],
        }
        for name, (axis, edges, (rows, columns)) in PLANES.items()
    ]


def _item(request: Request) -> ScanItem:
    return request.app.state.served.catalogue.scans[request.path_params["scan"]]


def _seen(request: Request) -> Seen:
    return request.app.state.served.scans.scan(_item(request))


def _volume(request: Request) -> SeenVolume:
    seen = _seen(request)
    if not isinstance(seen, SeenVolume):
        raise KeyError("planes")
    return seen


def _number(request: Request, name: str, default: float | None = None) -> float:
    text = request.query_params.get(name)
    try:
        number = float(text) if text is not None else default
    except ValueError:
        number = None
    if number is None or not math.isfinite(number):
        raise LamellaError(f"{name}={text}", "it is no number", "Give one.")
    return number


def _png(image: Image.Image) -> Response:
    packed = io.BytesIO()
    image.save(packed, "PNG", compress_level=1)  # over loopback the time to pack is what counts
    return Response(packed.getvalue(), media_type="image/png", headers=_KEPT)


_SCAN = "/api/scans/{scan}"
ROUTES = [
    Route("/scan/{scan}", scan_page),
    Route(_SCAN + "/layout.css", scan_layout),
    Route(_SCAN + "/planes/{axis}/{at:int}", scan_plane),
    Route(_SCAN + "/masks/{mask:int}/planes/{axis}/{at:int}", mask_plane),
    Route(_SCAN + "/values", scan_values),
    Route(_SCAN + "/frames/{at:int}", scan_frame),
]
