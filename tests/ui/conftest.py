"""A viewer in this process, and pages of a real browser that may talk to nobody else."""

from __future__ import annotations

import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

CHROMIUM = os.environ.get("LAMELLA_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
# Without these Chromium calls its maker at every start, which the tests forbid.
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="session")
def browser():
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine: `apt-get install chromium`, or set LAMELLA_CHROMIUM")
    from lamella.view.server.pages import STATIC

    if not (STATIC / "vendor" / "openseadragon.js").is_file():
        pytest.skip("the front end is not built: `make web` (needs Node.js)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        yield browser
        browser.close()


def until(page, condition: str, seconds: float = 10) -> None:
    """Wait for a JavaScript condition. Playwright's own wait_for_function is refused by the pages' security policy."""
    end = time.monotonic() + seconds
    while not page.evaluate(f"Boolean({condition})"):
        assert time.monotonic() < end, f"{condition} did not become true in {seconds} s"
        page.wait_for_timeout(50)


@pytest.fixture
def page(browser, serve) -> Iterator[object]:  # serve: the page is closed before its server ends
    """A page; at its end the test fails if the console told of an error or another host was asked."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    faults: list[str] = []
    page.expected_faults = []  # texts of console errors that the test provokes
    page.on(
        "console",
        lambda message: faults.append(f"{message.text} ({message.location})") if message.type == "error" else None,
    )
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on(
        "request",
        lambda request: (
            None
            if request.url.startswith(("http://127.0.0.1:", "http://localhost:", "blob:", "data:", "file:"))
            else faults.append(f"asked another host: {request.url}")
        ),
    )
    yield page
    context.close()
    assert [fault for fault in faults if not any(known in fault for known in page.expected_faults)] == []


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """serve(served, safety=None) -> address. The server runs in a thread and ends with the test."""
    import uvicorn

    from lamella.view.server.app import make_app
    from lamella.view.server.safety import Safety

    with ExitStack() as stack:

        def start(served, safety=None) -> str:
            # Without its protocol asyncio leaves Nagle's algorithm on, and every answer takes 40 ms more.
            listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
            listening.bind(("127.0.0.1", 0))
            server = uvicorn.Server(
                uvicorn.Config(make_app(served, safety or Safety()), log_level="error", lifespan="off")
            )
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
            thread.start()
            while not server.started:
                time.sleep(0.01)

            def stop() -> None:
                server.should_exit = True
                thread.join(10)
                listening.close()

            stack.callback(stop)
            return f"http://127.0.0.1:{listening.getsockname()[1]}/"

        yield start


@pytest.fixture
def serve_paths(serve, tmp_path) -> Callable[..., str]:
    """serve_paths(path, ..., mpp=None, safety=None, **served) -> address: what `lamella view` would serve."""
    from lamella.view.server.annotations.store import AnnotationStore
    from lamella.view.server.catalogue.discover import discover
    from lamella.view.server.served import Served
    from lamella.view.server.slide_pool import SlidePool
    from lamella.view.server.tile_memory import TileMemory

    def start(*paths: Path, mpp: float | None = None, safety=None, **more) -> str:
        catalogue = discover(paths, mpp)
        store = AnnotationStore(tmp_path / "annotations")
        return serve(Served(catalogue, SlidePool(catalogue.slides), TileMemory(), store, **more), safety)

    return start


@pytest.fixture(scope="session")
def study(tmp_path_factory) -> Path:
    """A folder with something of everything; read only."""
    from tests.ui.study import make_study

    return make_study(tmp_path_factory.mktemp("of_everything") / "study")
