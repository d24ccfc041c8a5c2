"""A viewer that answers in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from starlette.testclient import TestClient

if TYPE_CHECKING:
    from lamella.view.server.safety import Safety

ADDRESS = "http://127.0.0.1:8642"
WRITE = {"x-lamella": "1", "content-type": "application/json"}

Viewer = Callable[..., TestClient]


@pytest.fixture
def viewer(tmp_path: Path):
    """viewer(path, ..., safety=None, prefix="", mpp=None, address=...) -> client of what `lamella view` would serve."""
    from lamella.view.server.annotations.store import AnnotationStore
    from lamella.view.server.app import make_app
    from lamella.view.server.catalogue.discover import discover
    from lamella.view.server.safety import Safety
    from lamella.view.server.served import Served
    from lamella.view.server.slide_pool import SlidePool
    from lamella.view.server.tile_memory import TileMemory

    opened = []

    def start(
        *paths: Path, safety: Safety | None = None, prefix: str = "", mpp: float | None = None, address: str = ADDRESS
    ) -> TestClient:
        catalogue = discover(paths, mpp)
        store = AnnotationStore(tmp_path / "annotations")
        served = Served(catalogue, SlidePool(catalogue.slides), TileMemory(), store)
        client = TestClient(make_app(served, safety or Safety(), prefix), base_url=address, follow_redirects=False)
        client.served = served
        opened.append(served)
        return client

    yield start
    for served in opened:
        served.close()
