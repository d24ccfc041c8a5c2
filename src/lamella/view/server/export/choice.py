"""What goes into a site: which slides, which of their layers; and how one knows a half-written site of these."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from lamella import __version__
from lamella.errors import LamellaError, SlideError
from lamella.formats.digests import file_digest
from lamella.view.server.catalogue.items import SlideItem
from lamella.view.server.layers.contract import Layer, Look
from lamella.view.server.served import Served

_CHANNEL = "@"  # between a layer's name and its channel


def chosen_slides(served: Served, names: Sequence[str] | None) -> list[SlideItem]:
    """The slides of these names or ids; all of them if none are given.

    Raises:
        LamellaError: There is no slide of a name.
    """
    items = list(served.catalogue.slides.values())
    if names is None:
        return items
    unknown = [name for name in names if not any(name in (item.id, item.name) for item in items)]
    if unknown:
        known = ", ".join(item.name for item in items[:8])
        raise LamellaError(f"slide {unknown[0]}", "there is none of that name", f"Choose from {known}.")
    return [item for item in items if item.id in names or item.name in names]


def chosen_layers(served: Served, item: SlideItem, names: Sequence[str] | None) -> list[tuple[Layer, Look]]:
    """The layers of these ids or titles that a slide has, each with its channel; all of them if none are given.

    Args:
        served: What there is.
        item: The slide.
        names: Such as `labels`, or `genes@EPCAM` for one channel.
    """
    layers, _ = served.layers(item.id)
    with_tiles = [layer for layer in layers.values() if layer.info.tiles]
    if names is None:
        return [(layer, Look()) for layer in with_tiles]
    asked = [name.partition(_CHANNEL) for name in names]
    return [
        (layer, Look(channel=channel))
        for wanted, _, channel in asked
        for layer in with_tiles
        if wanted in (layer.info.id, layer.info.title)
    ]


def refuse_unknown_layers(served: Served, items: Sequence[SlideItem], names: Sequence[str] | None) -> None:
    """Raise if none of the slides has a layer of one of the names.

    Raises:
        LamellaError: So it is.
    """
    if names is None:
        return
    known: dict[str, None] = {}
    for item in items:
        with suppress(SlideError):  # its page says why it cannot be read
            for layer in served.layers(item.id)[0].values():
                known |= dict.fromkeys((layer.info.id, layer.info.title))
    unknown = [name for name in names if name.partition(_CHANNEL)[0] not in known]
    if unknown:
        choice = ", ".join(list(known)[:12]) or "none"
        raise LamellaError(f"layer {unknown[0]}", "no slide has one of that name", f"There are: {choice}.")


def plan_of(served: Served, items: Sequence[SlideItem], layers: Sequence[str] | None) -> dict[str, Any]:
    """What a site would be made of: another plan is another site."""
    return {
        "format": "lamella-site-1",
        "lamella": __version__,
        "layers": None if layers is None else list(layers),
        "slides": {
            item.id: {
                "name": item.name,
                "file": served.slides.stamp(item.id),
                "sources": [
                    [source.kind, source.title, source.path.stat().st_mtime_ns]
                    for source in served.catalogue.sources_of(item)
                ],
                "annotations": {
                    author: file_digest(served.annotations.geojson(item.name, author))
                    for author in served.annotations.authors(item.name)
                },
            }
            for item in items
        },
    }
