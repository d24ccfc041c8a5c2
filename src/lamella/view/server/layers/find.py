"""The layers of a slide, made when its page is first opened."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from lamella.errors import LamellaError
from lamella.geometry import Frame
from lamella.slides.index import SlideIndex
from lamella.slides.slide import Slide
from lamella.view.server.catalogue.items import LayerSource, SlideItem, SourceKind
from lamella.view.server.layers.anchors import anchor_layers
from lamella.view.server.layers.contract import Layer
from lamella.view.server.layers.features import feature_layers
from lamella.view.server.layers.layer import Making
from lamella.view.server.layers.objects import object_layers
from lamella.view.server.layers.predictions import expression_layers, prediction_layers, weak_layers
from lamella.view.server.layers.spots import spot_layers
from lamella.view.server.layers.tissue import TissueLayer

_LOG = logging.getLogger("lamella.view")
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]+")

_Made = TypeVar("_Made")
_Maker = Callable[[LayerSource, SlideItem, Frame], Iterator[Making]]
"""(source, slide, level 0) -> what opens each of the source's layers."""


def find_layers(item: SlideItem, slide: Slide, sources: Sequence[LayerSource]) -> tuple[Mapping[str, Layer], list[str]]:
    """Layers by id, in the order in which they are listed, and what could not be opened, with the reason.

    Only what names and sizes a layer is read: values are read when they are looked at.
    """
    layers: dict[str, Layer] = {}
    refused: list[str] = []
    order = list(_MAKERS)
    for source in sorted(sources, key=lambda source: order.index(source.kind)):
        for layer in _opened(source, item, slide.frame, refused):
            _add(layers, layer, slide.frame)
    for reason in refused:
        _LOG.warning("%s: a layer is not shown: %s", item.name, reason)
    return layers, refused


def _opened(source: LayerSource, item: SlideItem, slide: Frame, refused: list[str]) -> Iterator[Layer]:
    def tried(make: Callable[[], _Made]) -> _Made | None:
        try:
            return make()
        except LamellaError as error:
            refused.append(str(error))
        except Exception as error:  # noqa: BLE001 - whatever a damaged file meets
            # The slide and its other layers are shown all the same.
            _LOG.exception("%s: a layer cannot be shown", source.path)
            refused.append(f"{source.path}: it cannot be shown ({error!r}). Make it again, or report it with the log.")
        return None

    for making in tried(lambda: list(_MAKERS[source.kind](source, item, slide))) or ():
        layer = tried(making)
        if layer is not None:
            yield layer


def _tissue(source: LayerSource, item: SlideItem, slide: Frame) -> Iterator[Making]:
    index = SlideIndex.load(source.path)
    indexed = index[item.name] if item.indexed is None or item.name in index else item.indexed
    yield lambda: TissueLayer(indexed, source.title, slide)


def _anchors(source: LayerSource, item: SlideItem, slide: Frame) -> Iterator[Making]:
    yield from anchor_layers(source.path, item.name, item.indexed, source.title, slide)


def _of_path(make: Callable[[Path, str, Frame], Iterator[Making]]) -> _Maker:
    """A maker that needs to know nothing of the slide but its frame."""
    return lambda source, item, slide: make(source.path, source.title, slide)


# In the order in which they are listed: what people come to see first.
_MAKERS: Mapping[SourceKind, _Maker] = {
    "prediction": _of_path(prediction_layers),
    "weak": _of_path(weak_layers),
    "expression": _of_path(expression_layers),
    "spots": _of_path(spot_layers),
    "objects": _of_path(object_layers),
    "features": _of_path(feature_layers),
    "index": _tissue,
    "anchors": _anchors,
}


def _add(layers: dict[str, Layer], layer: Layer, frame: Frame) -> None:
    """Under an id that no other layer of the slide has, and that the same files get again."""
    wanted = _UNSAFE.sub("-", f"{layer.info.group}-{layer.info.id}").strip("-.") or "layer"
    name, number = wanted, 1
    while name in layers:
        number += 1
        name = f"{wanted}-{number}"
    layer.frame, layer.info = frame, replace(layer.info, id=name)
    layers[name] = layer
