"""The application: every address, and the guard before them."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from lamella.view.server import faults, gallery, prompts, slide_page, slide_tiles
from lamella.view.server.annotations import routes as annotations
from lamella.view.server.layers import routes as layers
from lamella.view.server.pages import STATIC
from lamella.view.server.runs import routes as runs
from lamella.view.server.safety import Guard, Safety
from lamella.view.server.scans import routes as scans
from lamella.view.server.served import Served


def make_app(served: Served, safety: Safety) -> Starlette:
    """The viewer as an ASGI application.

    Args:
        served: What it shows.
        safety: Whom it answers.
    """
    app = Starlette(
        routes=[
            *gallery.ROUTES,
            *slide_page.ROUTES,
            *slide_tiles.ROUTES,
            *layers.ROUTES,
            *annotations.ROUTES,
            *prompts.ROUTES,
            *runs.ROUTES,
            *scans.ROUTES,
            Mount("/static", StaticFiles(directory=STATIC)),
        ],
        middleware=[Middleware(Guard, safety=safety)],
        exception_handlers=faults.HANDLERS,
    )
    app.state.served = served
    return app
