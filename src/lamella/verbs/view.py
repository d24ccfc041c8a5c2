"""`lamella view PATH...`: look at slides, layers, runs and scans in a browser, from one process and one port."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from lamella.config import Request, Settings
from lamella.errors import LamellaError, MissingExtraError


class Config(Settings):
    """Settings of `lamella view`."""

    port: Annotated[int, Field(ge=0, le=65535)] = 8642
    """Where it listens; the next free one if it is taken."""


def run(request: Request) -> int:
    """Serve until Ctrl-C."""
    config = request.resolve(Config).config
    if not request.paths:
        raise LamellaError("lamella view", "no paths are given", "For example: lamella view slides/.")
    try:
        import uvicorn

        from lamella.view.server.app import make_app
    except ModuleNotFoundError as error:
        raise MissingExtraError("lamella view", "view") from error
    from lamella.view.server.annotations.store import AnnotationStore
    from lamella.view.server.catalogue.discover import discover
    from lamella.view.server.safety import Safety
    from lamella.view.server.served import Served
    from lamella.view.server.slide_pool import SlidePool
    from lamella.view.server.tile_memory import TileMemory

    catalogue = discover(request.paths, request.options.get("mpp"))
    store = AnnotationStore(request.out or Path("annotations"))
    served = Served(catalogue, SlidePool(catalogue.slides), TileMemory(), store)
    print(f"http://127.0.0.1:{config.port}/")
    uvicorn.run(make_app(served, Safety()), host="127.0.0.1", port=config.port, log_level="warning")
    return 0
