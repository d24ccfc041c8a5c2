"""The layers of a slide, made when its page is first opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lamella.slides.slide import Slide
from lamella.view.server.catalogue.items import LayerSource, SlideItem
from lamella.view.server.layers.contract import Layer


def find_layers(item: SlideItem, slide: Slide, sources: Sequence[LayerSource]) -> tuple[Mapping[str, Layer], list[str]]:
    """Layers by id, in the order in which they are listed, and what could not be opened, with the reason."""
    return {}, []
