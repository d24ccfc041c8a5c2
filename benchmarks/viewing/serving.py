"""Servers in processes of their own: this viewer, and OpenSlide's Deep Zoom generator behind the same kind.

python benchmarks/viewing/serving.py viewer|deepzoom PATH... prints its port and serves until it is ended.
"""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve()
QUALITY = 85  # as the viewer's own


class Server:
    """A server that runs until `close`."""

    def __init__(self, kind: str, *paths: Path) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        command = [sys.executable, str(HERE), kind, *map(str, paths)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    def memory_mb(self) -> tuple[float, float]:
        """(resident now, resident at most so far)."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        values = {line.split(":")[0]: line.split()[1] for line in lines if line.startswith("Vm")}
        return int(values["VmRSS"]) / 1024, int(values["VmHWM"]) / 1024

    def close(self) -> None:
        self.process.terminate()
        self.process.wait()


def main() -> None:
    import uvicorn

    kind, *names = sys.argv[1:]
    app = {"viewer": viewer, "deepzoom": deepzoom}[kind]([Path(name) for name in names])
    # Without its protocol asyncio would leave Nagle's algorithm on: 40 ms for every answer of two packets.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))
    listening.listen(128)
    print(listening.getsockname()[1], flush=True)
    # A connection may rest while the others of this benchmark have their turn.
    uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off", timeout_keep_alive=600)).run([listening])


def viewer(paths: list[Path]):
    from lamella.view.server.annotations.store import AnnotationStore
    from lamella.view.server.app import make_app
    from lamella.view.server.catalogue.discover import discover
    from lamella.view.server.safety import Safety
    from lamella.view.server.served import Served
    from lamella.view.server.slide_pool import SlidePool
    from lamella.view.server.tile_memory import TileMemory

    catalogue = discover(paths)
    store = AnnotationStore(Path(tempfile.gettempdir()) / "never_written")
    return make_app(Served(catalogue, SlidePool(catalogue.slides), TileMemory(), store), Safety())


def deepzoom(paths: list[Path]):
    """As in openslide-python's own example, with the viewer's framework, server and addresses."""
    import openslide
    from openslide.deepzoom import DeepZoomGenerator
    from starlette.applications import Starlette
    from starlette.responses import Response
    from starlette.routing import Route

    slides = {path.stem: DeepZoomGenerator(openslide.OpenSlide(str(path)), tile_px(path), 0) for path in paths}

    def tile(request):
        at = request.path_params
        return Response(
            deepzoom_jpeg(slides[at["slide"]], at["level"], at["column"], at["row"]), media_type="image/jpeg"
        )

    return Starlette(routes=[Route("/api/slides/{slide}/tiles/{level:int}/{column:int}_{row:int}.jpg", tile)])


def tile_px(path: Path) -> int:
    """Side of the viewer's tiles of a slide: the generator makes the same ones."""
    from lamella.slides.slide import open_slide
    from lamella.view.server.pyramid import Pyramid

    with open_slide(path) as slide:
        return Pyramid.of(slide).tile_px


def deepzoom_jpeg(slide, level: int, column: int, row: int) -> bytes:
    file = io.BytesIO()
    slide.get_tile(level, (column, row)).save(file, "jpeg", quality=QUALITY)
    return file.getvalue()


if __name__ == "__main__":
    main()
