"""`lamella view PATH...`: look at slides, layers, runs and scans in a browser, from one process and one port."""

from __future__ import annotations

import logging
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from lamella.config import Request, Settings
from lamella.errors import LamellaError, MissingExtraError
from lamella.verbs.viewing.address import LOOPBACK, is_everywhere, listen, login, own_names, ssh_line, url

if TYPE_CHECKING:
    from lamella.view.server.catalogue.items import Catalogue
    from lamella.view.server.served import Served

_SHOWN = 12  # names and notes on the screen; the first page has all of them


class ExportSettings(Settings):
    """What `--export` takes along."""

    slides: tuple[str, ...] = ()
    """Names of slides; all of them unless given."""
    layers: tuple[str, ...] = ()
    """Ids or titles of layers, with @channel for one channel of many (genes@EPCAM); all of them unless given."""


class Config(Settings):
    """Settings of `lamella view`."""

    port: Annotated[int, Field(ge=0, le=65535)] = 8642
    """Where it listens; the next free one if it is taken, any free one if 0."""
    prefix: Annotated[str, Field(pattern=r"^(/[\w.~-]+)*$")] = ""
    """Path in front of all addresses, such as /lamella, of a proxy that passes it on. One that cuts it off needs none:
    all links are relative."""
    hosts: tuple[str, ...] = ()
    """Further names under which browsers reach it, such as a proxy's; other names are refused (DNS rebinding)."""
    author: str = ""
    """Under whose name annotations are saved at first; the name of the login unless given."""
    model: str = ""
    """A promptable model that outlines what is pointed at, as for `lamella segment`: sam2.1-hiera-tiny, such a name
    with @ and the place of its weights, or a model folder. None unless given: pages then say how to get one."""
    device: Literal["auto", "cuda", "mps", "cpu"] = "auto"
    """Where the model runs."""
    open_slides: Annotated[int, Field(ge=1)] = 8
    """Slide files that are kept open."""
    slide_memory_mb: Annotated[int, Field(ge=16)] = 160
    """Decoded tiles of slides that are kept."""
    tile_memory_mb: Annotated[int, Field(ge=1)] = 64
    """Tiles that were sent, kept as they were."""
    scan_memory_mb: Annotated[int, Field(ge=1)] = 1024
    """Volumes that are kept open; the one that is looked at is held however large it is."""
    export: ExportSettings = ExportSettings()
    """What `--export` writes."""


def run(request: Request) -> int:
    """Serve until Ctrl-C, or write what `--export` asks for.

    Raises:
        LamellaError: There is nothing to look at, a setting is wrong, or no port is free.
    """
    resolved = request.resolve(Config)
    config: Config = resolved.config
    if not request.paths:
        raise LamellaError("lamella view", "no paths are given", "For example: lamella view slides/.")
    try:
        import jinja2  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtraError("lamella view", "view") from error
    from lamella.view.server.catalogue.discover import discover

    host = request.options.get("host")
    folder = _annotation_folder(request)
    catalogue = discover(request.paths, request.options.get("mpp"))
    if request.dry_run:
        print(resolved.text())
        _say(catalogue, folder)
        return 0
    served = _served(catalogue, folder, config)
    try:
        if site := request.options.get("export"):
            return _export(served, Path(site), config)
        _say(catalogue, folder)
        return _serve(served, config, host)
    finally:
        served.close()


def _annotation_folder(request: Request) -> Path:
    """-o, or the folder of annotations among the paths, or ./annotations."""
    from lamella.formats.annotation_folder import is_annotation_folder

    given = [path for path in request.paths if is_annotation_folder(path)]
    if request.out is None and len(given) > 1:
        raise LamellaError("lamella view", "several folders of annotations are given", "Say which one with -o FOLDER.")
    return request.out or (given[0] if given else Path("annotations"))


def _served(catalogue: Catalogue, folder: Path, config: Config) -> Served:
    from lamella.view.server.annotations.names import author_name
    from lamella.view.server.annotations.store import AnnotationStore
    from lamella.view.server.scans.scan_pool import ScanPool
    from lamella.view.server.served import Served
    from lamella.view.server.slide_pool import SlidePool
    from lamella.view.server.tile_memory import TileMemory

    _refuse_unbuilt()
    served = Served(
        catalogue,
        SlidePool(catalogue.slides, config.open_slides, config.slide_memory_mb << 20),
        TileMemory(config.tile_memory_mb << 20),
        AnnotationStore(folder),
        author=author_name(config.author or login()),
        scans=ScanPool(config.scan_memory_mb << 20),
        no_prompter="No model was given: start `lamella view` with model=sam2.1-hiera-tiny.",
    )
    if config.model:
        from lamella.verbs.viewing.prompter import make_prompter

        served.prompter, served.no_prompter = make_prompter(config.model, config.device), ""
    return served


def _refuse_unbuilt() -> None:
    from lamella.view.server.pages import STATIC

    if not (STATIC / "vendor" / "openseadragon.js").is_file():
        raise LamellaError(
            "lamella view",
            "its front end is not built in this checkout",
            "Install Node.js with npm, then run `make web`; wheels have it built in.",
        )


def _export(served: Served, site: Path, config: Config) -> int:
    from lamella.view.server.export import export_site

    export_site(served, site, config.export.slides or None, config.export.layers or None)
    print(f"open {site.absolute() / 'index.html'}")
    return 0


def _serve(served: Served, config: Config, host: str | None) -> int:
    import uvicorn

    from lamella.view.server.app import make_app
    from lamella.view.server.safety import Safety, host_names

    address = LOOPBACK if host is None else host
    token = "" if host is None else secrets.token_urlsafe(32)
    names = host_names(address, [*own_names(address), *config.hosts])
    safety = Safety(names, token, any_address=is_everywhere(address))
    listening = listen(address, config.port)
    port = listening.getsockname()[1]
    if config.port not in (0, port):
        print(f"port {config.port} is taken, so it is {port}")
    print(f"\nopen  {url(address, port, config.prefix, token)}")
    if host is None:
        print(f"from another machine first  {ssh_line(port)}")
    else:
        print("Who has this address may look and annotate. It is not encrypted: use it in a network that you trust.")
    print("Ctrl-C ends it.", flush=True)
    logging.basicConfig(format="%(levelname)s %(message)s")
    server = uvicorn.Server(
        uvicorn.Config(
            make_app(served, safety, config.prefix),
            log_level="warning",
            access_log=False,  # an address may hold the token
            server_header=False,
            proxy_headers=False,  # nobody's word for it is taken who asked
            ws="none",
            lifespan="off",
            timeout_graceful_shutdown=3,  # s; a tile takes less
            timeout_keep_alive=65,  # s; through a tunnel a connection costs more than a tile
        )
    )
    try:
        server.run(sockets=[listening])
    except KeyboardInterrupt:  # uvicorn has ended in order and passes it on
        print()
    finally:
        listening.close()
    return 0


def _say(catalogue: Catalogue, folder: Path) -> None:
    """What was found, in a few lines."""
    refused = sum(bool(slide.refused) for slide in catalogue.slides.values())
    cannot = f" ({refused} of them cannot be read; the first page says why)" if refused else ""
    print(f"{len(catalogue.slides)} slides{cannot}, {len(catalogue.sources)} layers over them")
    print(f"{len(catalogue.runs)} runs and results, {len(catalogue.scans)} scans")
    if catalogue.queue:
        print(f"{len(catalogue.queue)} places to look at")
    for sentence in catalogue.said[:_SHOWN]:
        print(f"note: {sentence}")
    if len(catalogue.said) > _SHOWN:
        print(f"note: {len(catalogue.said) - _SHOWN} more stand on the first page")
    print(f"annotations are saved in {folder}/")
