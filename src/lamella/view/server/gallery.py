"""The first page: every slide with its thumbnail, every run and scan."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lamella.view.server.pages import page


def gallery(request: Request) -> Response:
    """GET /."""
    return page(request, "gallery.html")


ROUTES = [Route("/", gallery)]
