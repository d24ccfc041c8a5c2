"""The classes that a person can choose from on a slide."""

from __future__ import annotations

from collections.abc import Sequence

from lamella.errors import SlideError
from lamella.view.class_colours import class_colours
from lamella.view.server.layers.contract import Legend
from lamella.view.server.served import Served

REGION = "Region"
"""Inside an object of this class everything is labelled: the rest there is background (docs/how-to/annotate.md)."""
_REGION_COLOUR = "#212529"
_TOLD_APART = 21  # colours that class_colours tells apart


def classes_of(served: Served, slide_id: str) -> dict[str, str]:
    """Class -> "#rrggbb": those that layers found, those that somebody drew on any slide, `REGION`.

    Layers choose their colours each for itself; here no two classes share one while there are enough.

    Raises:
        LamellaError: The list of what was drawn was damaged.
    """
    try:
        layers = served.layers(slide_id)[0].values()
    except SlideError:
        layers = ()  # the page itself says why the slide cannot be shown
    wanted = {name: colour for layer in layers for name, colour in _drawable(layer.info.legend)}
    wanted |= {name: colour for name, colour in served.annotations.classes().items() if name not in wanted}
    found: dict[str, str] = {}
    for name, colour in wanted.items():
        if name != REGION:
            taken = set(found.values())
            found[name] = next((each for each in (colour, *free_colours()) if each not in taken), colour)
    return {**found, REGION: _REGION_COLOUR}


def _drawable(legend: Legend) -> Sequence[tuple[str, str]]:
    return legend.classes if legend.drawable else ()


def free_colours() -> list[str]:
    """For classes that are made in the page; the first that is not taken is the next."""
    wheel = class_colours([str(number) for number in range(_TOLD_APART)]).values()
    return ["#{:02x}{:02x}{:02x}".format(*colour) for colour in wheel]
