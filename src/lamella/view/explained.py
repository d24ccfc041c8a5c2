"""Pages that show what an encoder makes of images, volumes and films: each item beside its layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from lamella.view.layers import Layer, classes, even_shares, heat, solid
from lamella.view.marks import colour_name
from lamella.view.panels import Cell, panel_px, sheet
from lamella.view.planes import Cut, common_scale, drawn

PLAIN = "as the encoder sees it"
ROLLOUT = "attention rollout"
COMPONENTS = "components of the tokens"
MASK = "mask of the data set"
# The least range of a heat map, in even shares: attention that is nearly even shall look so.
_EVEN = (0.8, 1.25)


@dataclass(frozen=True)
class Noted:
    """A layer and what is said under it; no layer shows the item alone."""

    layer: Layer | None = None
    caption: str = ""


@dataclass(frozen=True)
class Explained:
    """An item, its flat views, and the layers over it by name.

    Attributes:
        name: Of the item, with its label where it has one.
        cuts: One view of an image, three planes of a volume, some frames of a film.
        layers: Name -> layer, in the order they are shown.
    """

    name: str
    cuts: Sequence[Cut]
    layers: Mapping[str, Noted] = field(default_factory=lambda: {PLAIN: Noted()})


def attention_layer(shares: np.ndarray) -> Noted:
    """Heat of shares that sum to one (or less, where class tokens take some), of any grid."""
    even = even_shares(shares)
    low, high = min(float(even.min()), _EVEN[0]), max(float(even.max()), _EVEN[1])
    caption = f"dark {low:.2g}, bright {high:.3g} × an even share"
    if (low, high) == _EVEN:
        caption += f"; found {even.min():.2f} to {even.max():.2f}"
    return Noted(heat(even, low, high), caption)


def component_layer(colours: np.ndarray, foreground: np.ndarray) -> Noted:
    """Colours of components; tokens outside the foreground show the picture, faded."""
    if foreground.all():
        return Noted(solid(colours))
    return Noted(solid(colours, foreground), f"{foreground.mean():.0%} of the tokens are foreground")


def mask_layer(labels: np.ndarray, mask_classes: Mapping[str, int]) -> Noted:
    """A data set's segmentation; the caption says how much of it each class is."""
    shares = [(name, float((labels == value).mean())) for name, value in mask_classes.items()]
    named = [f"{colour_name(number)}: {name} {share:.1%}" for number, (name, share) in enumerate(shares)]
    return Noted(classes(labels, mask_classes), ", ".join(named))


def items_page(items: Sequence[Explained], heading: str, facts: Sequence[str]) -> Image.Image:
    """Images one under the other, their layers beside each."""
    names = list(max((item.layers for item in items), key=len))  # an item without a mask leaves its place empty
    side = panel_px(len(names))
    rows = []
    for item in items:
        cut = item.cuts[0]
        scale = common_scale([cut], side)
        row: list[Cell | None] = []
        for number, name in enumerate(names):
            noted = item.layers.get(name)
            row.append(noted and Cell(drawn(cut, scale, noted.layer, bar=number == 0), noted.caption))
        rows.append(row)
    return sheet(heading, facts, rows, columns=names, names=[item.name for item in items])


def views_page(item: Explained, heading: str, facts: Sequence[str], *, layers_across: bool = False) -> Image.Image:
    """One volume or film: its views side by side, its layers one under the other; or the other way round."""
    across = len(item.layers) if layers_across else len(item.cuts)
    scale = common_scale(item.cuts, panel_px(across))
    cells = [
        [
            Cell(drawn(cut, scale, noted.layer, bar=number == 0), noted.caption if at == 0 else "")
            for at, cut in enumerate(item.cuts)
        ]
        for number, noted in enumerate(item.layers.values())
    ]
    views, layers = [cut.name for cut in item.cuts], list(item.layers)
    if layers_across:
        turned: list[list[Cell | None]] = [list(row) for row in zip(*cells, strict=True)]
        return sheet(heading, facts, turned, columns=layers, names=views)
    return sheet(heading, facts, cells, columns=views, names=layers)
