"""Colours of values and of classes, as tables by number: a tile is painted by looking up each of its pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import matplotlib
import numpy as np

from lamella.view.marks import Colour

# Even steps of lightness, which colour-blind readers see, too: Nunez et al., PLoS ONE 13(7), 2018 (cividis), and
# van der Walt and Smith, SciPy 2015 (the others). RdBu for values of two signs: white is zero.
SEQUENTIAL = ("viridis", "magma", "inferno", "cividis")
SIGNED = "RdBu"
OWN = "automatic"
"""Of a channel: for two signs where it has values below and above zero."""
MAPS = (*SEQUENTIAL, SIGNED)
_STEPS = 255  # of a colour map; the first of a palette's 256 is none
_STOPS = 17  # of a legend's bar: browsers draw straight lines between them


@dataclass(frozen=True)
class Indexed:
    """A tile of at most 256 colours; a sixth of the work to pack, and half as large, as one of colours and opacities.

    Attributes:
        numbers: (h, w) uint8 of the palette.
        palette: (256, 4) uint8.
    """

    numbers: np.ndarray
    palette: np.ndarray

    def pixels(self) -> np.ndarray:
        """(h, w, 4) uint8."""
        found: np.ndarray = self.palette[self.numbers]
        return found


@lru_cache(maxsize=len(MAPS))
def table(name: str) -> np.ndarray:
    """(256, 4) uint8: transparent, then 255 steps of a colour map from its low to its high end, opaque.

    Raises:
        KeyError: It is none of `MAPS`.
    """
    if name not in MAPS:
        raise KeyError(name)
    # Reversed, so that red is high: as expression and attention are drawn everywhere.
    colour_map = matplotlib.colormaps["RdBu_r" if name == SIGNED else name]
    steps = (colour_map(np.linspace(0, 1, _STEPS)) * 255 + 0.5).astype(np.uint8)
    return np.concatenate([np.zeros((1, 4), np.uint8), steps])


def stops(name: str) -> list[str]:
    """Even steps of a colour map, "#rrggbb"."""
    rows = np.linspace(1, _STEPS, _STOPS).round().astype(int)
    return ["#{:02x}{:02x}{:02x}".format(*row[:3]) for row in table(name)[rows]]


def painted(values: np.ndarray, low: float, high: float, name: str) -> Indexed:
    """(h, w) numbers in the colours of a map; beyond the range the ends' colours go on, NaN is transparent."""
    known = np.isfinite(values)
    span = high - low if high > low else 1.0
    shares = np.where(known, (values.astype(np.float32) - np.float32(low)) / np.float32(span), 0)
    numbers = (shares * (_STEPS - 1) + 1.5).clip(1, _STEPS).astype(np.uint8)
    numbers[~known] = 0
    return Indexed(numbers, table(name))


def class_lookup(colours: Mapping[int, Colour]) -> np.ndarray:
    """(256, 4) uint8 by value: opaque in its colour, or transparent where it has none."""
    found = np.zeros((256, 4), np.uint8)
    for value, colour in colours.items():
        found[value] = (*colour, 255)
    return found


def web_classes(names: Sequence[str], colours: Mapping[str, Colour]) -> list[tuple[str, str]]:
    """(name, "#rrggbb") as legends have them."""
    return [(name, "#{:02x}{:02x}{:02x}".format(*colours[name])) for name in names]
