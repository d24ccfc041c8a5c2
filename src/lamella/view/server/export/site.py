"""A folder that opens by a double click: pages, tiles, chosen layers, annotations. No server, no fetch, no module.

It is written beside its place as `.<name>.part` and renamed when all of it is there. An interrupted export goes on
where it stopped if it is of the same slides, layers and annotations, and begins anew if not. Pages name no path of this
machine: a site is made to be given away.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lamella.errors import LamellaError, OutputConflictError, StorageError, storage_faults
from lamella.formats.atomic import write_json, write_text
from lamella.view.server.catalogue.items import SlideItem
from lamella.view.server.export.choice import chosen_layers, chosen_slides, plan_of, refuse_unknown_layers
from lamella.view.server.export.drawings import Drawn, read_drawn
from lamella.view.server.export.pyramids import SlideTiles, Tiles, layer_tiles, settle
from lamella.view.server.layers.contract import Layer, Look
from lamella.view.server.pages import STATIC, fragment
from lamella.view.server.pyramid import Pyramid
from lamella.view.server.served import Served

PLAN = "export.json"
_COPIED = (
    *("look.css", "icon.svg", "exported.css", "scale_bar.js", "exported.js"),
    *("vendor/openseadragon.js", "vendor/LICENCES.txt"),
)
_DZI = (
    '<?xml version="1.0" encoding="UTF-8"?>\n'
    '<Image xmlns="http://schemas.microsoft.com/deepzoom/2008" Format="jpg" Overlap="0" TileSize="{tile_px}">'
    '<Size Width="{width_px0}" Height="{height_px0}"/></Image>\n'
)
_SPARE = 1.1  # the estimate is of a few tiles


@dataclass
class _Page:
    """A slide of the site: what its page is made of, filled in as it is written."""

    item: SlideItem
    facts: dict[str, Any] = field(default_factory=dict)
    layers: list[dict[str, Any]] = field(default_factory=list)
    drawn: list[Drawn] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    refused: str = ""


def export_site(
    served: Served,
    folder: Path,
    slides: Sequence[str] | None = None,
    layers: Sequence[str] | None = None,
    say: Callable[[str], object] = print,
) -> None:
    """Write a site.

    A slide or a layer that cannot be read is named on the pages with its reason, and the rest is written.

    Args:
        served: What there is to see.
        folder: Where to; must not exist yet, unless it holds this very site.
        slides: Names or ids; all unless given.
        layers: Ids or titles, with `@channel` for one channel of many; all unless given.
        say: Told the size before it is written, and what was left out.

    Raises:
        LamellaError: There is no slide or layer of a name.
        OutputConflictError: The folder holds something else.
        StorageError: The disk has no room, or refused a write.
    """
    items = chosen_slides(served, slides)
    plan = plan_of(served, items, layers)
    if _stands(folder, plan):
        say(f"{folder} holds this site already")
        return
    # Asked before anything is written: a name that is misspelt is no reason for an hour's work.
    refuse_unknown_layers(served, items, layers)
    pages = [_Page(item, refused=_without_path(item, item.refused)) for item in items]
    work = _work_folder(folder, plan)
    estimate = sum(_estimated(served, page, layers) for page in pages)
    say(f"about {_size(estimate)} will be written to {folder}")
    _refuse_full(folder, estimate)
    for name in _COPIED:
        with storage_faults(work):
            (work / "static" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(STATIC / name, work / "static" / name)
    for page in pages:
        _write_slide(served, page, layers, work)
        if not page.refused:
            say(f"{page.item.name}: written, with {len(page.layers)} layers and annotations of {len(page.drawn)}")
        for fault in filter(None, [page.refused, *page.faults]):
            say(f"{page.item.name}: {fault}")
    title = served.catalogue.title
    write_text(work / "index.html", fragment("exported_index.html", title=title, pages=pages))
    with storage_faults(folder):
        work.replace(folder)


def _stands(folder: Path, plan: dict[str, Any]) -> bool:
    """Whether the folder holds this site already."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    if _read_plan(folder) == plan:
        return True
    raise OutputConflictError(folder, "it holds something else", "Give another folder, or remove this one.")


def _work_folder(folder: Path, plan: dict[str, Any]) -> Path:
    """What is written to until all is there: what an interrupted export of the same plan left, or a new one."""
    work = folder.with_name(f".{folder.name}.part")
    with storage_faults(work):
        if work.exists() and _read_plan(work) != plan:
            shutil.rmtree(work)
        work.mkdir(parents=True, exist_ok=True)
        write_json(work / PLAN, plan)
    return work


def _read_plan(folder: Path) -> Any:
    try:
        return json.loads((folder / PLAN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{max(0.1, count / 1e6):.1f} MB"


def _refuse_full(folder: Path, needed: float) -> None:
    place = folder.absolute().parent
    with storage_faults(place):
        free = shutil.disk_usage(place).free
    if free < needed * _SPARE:
        raise StorageError(
            folder, f"it needs about {_size(needed)} and the disk has {_size(free)}", "Choose fewer slides or layers."
        )


@contextmanager
def _kept_in(page: _Page) -> Iterator[None]:
    """A slide that cannot be read is refused with its reason; the others are written."""
    try:
        yield
    except StorageError:
        raise
    except LamellaError as error:
        page.refused = _without_path(page.item, str(error))


def _without_path(item: SlideItem, text: str) -> str:
    return text.replace(str(item.path), item.path.name)


def _estimated(served: Served, page: _Page, names: Sequence[str] | None) -> float:
    total = 0.0
    with _kept_in(page):
        if page.refused:
            return 0.0
        with served.slides.slide(page.item.id) as slide:
            total += SlideTiles(slide).tiles().estimated_bytes()
        for _, tiles, _ in _layers_of(served, page, names):
            total += tiles.estimated_bytes()
    return total


def _layers_of(served: Served, page: _Page, names: Sequence[str] | None) -> list[tuple[Layer, Tiles, dict[str, Any]]]:
    """The layers of a slide, their tiles and what the page says of them; a damaged one becomes a fault of the page."""
    found = []
    _, refused = served.layers(page.item.id)
    page.faults = list(refused)
    for number, (layer, look) in enumerate(chosen_layers(served, page.item, names)):
        try:
            settle([(layer, look)])
            legend = layer.legend(look)
        except (LamellaError, KeyError) as error:
            cause = f"it has no channel {look.channel}" if isinstance(error, KeyError) else error.cause
            page.faults.append(f"layer {layer.info.title}: {cause}")
            continue
        shown = asdict(layer.info) | {
            "legend": asdict(legend),
            "channel": _channel(layer, look),
            "folder": f"{page.item.id}_layers/{number}_files",
        }
        found.append((layer, layer_tiles(layer, look), shown))
    return found


def _channel(layer: Layer, look: Look) -> str:
    """The channel that is shown, where there are several; all classes together have no name."""
    if look.channel or layer.info.legend.classes or layer.info.channel_count < 2:
        return look.channel
    return next(iter(layer.info.channels), "")


def _write_slide(served: Served, page: _Page, names: Sequence[str] | None, work: Path) -> None:
    if page.refused:
        return
    item = page.item
    with _kept_in(page):
        with served.slides.slide(item.id) as slide:
            source = SlideTiles(slide)
            source.tiles().write(work / f"{item.id}_files")
            frame, pyramid = slide.frame, Pyramid.over(slide.frame)
            with storage_faults(work):
                (work / f"{item.id}.jpg").write_bytes(source.thumbnail())
        page.facts = {
            "width_px0": frame.width_px, "height_px0": frame.height_px, "mpp_x": frame.mpp_x, "mpp_y": frame.mpp_y,
            "tile_px": pyramid.tile_px, "max_level": pyramid.max_level,
        }  # fmt: skip
        for _, tiles, shown in _layers_of(served, page, names):
            tiles.write(work / shown["folder"])
            page.layers.append(shown)
        page.faults += [_without_path(item, fault) for fault in source.faults]
        page.drawn = _drawn(served, page, work)
        write_text(work / f"{item.id}.dzi", _DZI.format(**page.facts))
        write_text(work / f"{item.id}.html", fragment("exported.html", page=page, title=served.catalogue.title))


def _drawn(served: Served, page: _Page, work: Path) -> list[Drawn]:
    """What people drew, for the page; and their files for QuPath."""
    found = []
    for author in served.annotations.authors(page.item.name):
        path = served.annotations.geojson(page.item.name, author)
        try:
            found.append(read_drawn(author, path))
        except LamellaError as error:
            page.faults.append(f"annotations of {author}: {error.cause}")
            continue
        copy = work / f"{page.item.id}_annotations" / path.name
        with storage_faults(copy):
            copy.parent.mkdir(exist_ok=True)
            shutil.copyfile(path, copy)
    return found
