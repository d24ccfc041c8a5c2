"""The application: every address, and the guard before them."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import BaseRoute, Mount, Router
from starlette.staticfiles import StaticFiles

from lamella.view.server import faults, gallery, log, prompts, slide_page, slide_tiles
from lamella.view.server.annotations import routes as annotations
from lamella.view.server.layers import routes as layers
from lamella.view.server.pages import STATIC
from lamella.view.server.runs import routes as runs
from lamella.view.server.safety import Guard, Safety
from lamella.view.server.scans import routes as scans
from lamella.view.server.served import Served

STATIC_FILES = StaticFiles(directory=STATIC, follow_symlink=False)


def make_app(served: Served, safety: Safety, prefix: str = "") -> Starlette:
    """The viewer as an ASGI application.

    Args:
        served: What it shows.
        safety: Whom it answers.
        prefix: Path in front of every address, such as `/lamella`, of a proxy that passes it on; one that cuts it
            off needs none here: all links are relative.
    """
    routes: list[BaseRoute] = [
        *gallery.ROUTES,
        *log.ROUTES,
        *slide_page.ROUTES,
        *slide_tiles.ROUTES,
        *layers.ROUTES,
        *annotations.ROUTES,
        *prompts.ROUTES,
        *runs.ROUTES,
        *scans.ROUTES,
        Mount("/static", STATIC_FILES),
    ]
    # Redirects to a missing slash would name a host, which behind a proxy is not this one.
    if prefix:
        routes = [Mount(prefix, Router(routes, redirect_slashes=False))]
    app = Starlette(
        routes=routes,
        middleware=[Middleware(Guard, safety=safety)],
        exception_handlers=faults.HANDLERS,
    )
    app.router.redirect_slashes = False
    app.state.served = served
    log.keep_messages()
    return app
