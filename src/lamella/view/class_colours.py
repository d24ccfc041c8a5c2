"""One colour for each class, the same in every picture and in QuPath; told apart by colour-blind readers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lamella.formats.label_values import NOT_LABELLED
from lamella.view.marks import PALETTE, PAPER, Colour

# Beyond the palette's seven, the same hues far darker and then far paler: these differ in lightness, which everybody
# sees. 21 classes are BCSS's own list without what lies outside; a longer list begins again.
_DARKER, _PALER = 0.5, 0.55
BACKGROUND: Colour = (190, 190, 190)
"""Of the background class in legends and bars; in overlays it is left bare."""


def class_colours(classes: Sequence[str], background: str | None = "background") -> dict[str, Colour]:
    """Colours by class, in the order of the classes; the background takes none of the palette's.

    Args:
        classes: Names in the order of their values: the order decides the colour, so it must not change.
        background: The class that pictures leave bare; need not be among them.
    """
    dark = [tuple(round(part * _DARKER) for part in colour) for colour in PALETTE]
    pale = [tuple(round(part + (255 - part) * _PALER) for part in colour) for colour in PALETTE]
    wheel: list[Colour] = [*PALETTE, *dark, *pale]  # type: ignore[list-item]
    named = [name for name in classes if name != background]
    found = {name: wheel[number % len(wheel)] for number, name in enumerate(named)}
    return {name: found.get(name, BACKGROUND) for name in classes}


def class_table(classes: Sequence[str], background: str | None = "background") -> tuple[np.ndarray, np.ndarray]:
    """Colours and visibility by value, to paint a label map with.

    Returns:
        (256, 3) uint8 colours and (256,) bool; the background, values without a class and NOT_LABELLED are not shown.
    """
    colours, shown = np.full((256, 3), PAPER, np.uint8), np.zeros(256, bool)
    for value, (name, colour) in enumerate(class_colours(classes, background).items()):
        colours[value], shown[value] = colour, name != background
    shown[NOT_LABELLED] = False
    return colours, shown
