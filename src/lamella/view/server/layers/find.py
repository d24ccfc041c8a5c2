"""The layers of a slide, made when its page is first opened."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from lamella.errors import LamellaError
from lamella.geometry import Frame
from lamella.slides.slide import Slide
from lamella.view.server.catalogue.items import LayerSource, SlideItem
from lamella.view.server.layers.contract import Layer
from lamella.view.server.layers.predictions import Making, expression_layers, prediction_layers, weak_layers

_LOG = logging.getLogger("lamella.view")
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]+")

Maker = Callable[[Path, str, Frame], Iterator[Making]]
"""(path, heading, level 0) -> what opens each layer of a source."""

_MAKERS: Mapping[str, Maker] = {
    "prediction": prediction_layers,
    "expression": expression_layers,
    "weak": weak_layers,
}


def find_layers(item: SlideItem, slide: Slide, sources: Sequence[LayerSource]) -> tuple[Mapping[str, Layer], list[str]]:
    """Layers by id, in the order in which they are listed, and what could not be opened, with the reason.

    Only what names and sizes a layer is read: values are read when they are looked at.
    """
    layers: dict[str, Layer] = {}
    refused: list[str] = []
    for source in sources:
        for layer in _opened(source, slide.frame, refused):
            _add(layers, layer, slide.frame)
    for reason in refused:
        _LOG.warning("%s: a layer is not shown: %s", item.name, reason)
    return layers, refused


def _opened(source: LayerSource, slide: Frame, refused: list[str]) -> Iterator[Layer]:
    if source.kind not in _MAKERS:
        return
    try:
        makings = list(_MAKERS[source.kind](source.path, source.title, slide))
    except LamellaError as error:
        refused.append(str(error))
        return
    for making in makings:
        try:
            yield making()
        except LamellaError as error:
            refused.append(str(error))


def _add(layers: dict[str, Layer], layer: Layer, frame: Frame) -> None:
    """Under an id that no other layer of the slide has, and that the same files get again."""
    wanted = _UNSAFE.sub("-", f"{layer.info.group}-{layer.info.id}").strip("-.") or "layer"
    name, number = wanted, 1
    while name in layers:
        number += 1
        name = f"{wanted}-{number}"
    layer.frame, layer.info = frame, replace(layer.info, id=name)
    layers[name] = layer
