"""The pages of `explain` for one encoder: attention and components of the items it is shown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lamella.errors import LamellaError
from lamella.verbs.pictures.items import Shown
from lamella.verbs.progress import progress
from lamella.view.attention import Attended, attended, token_grid
from lamella.view.explained import (
    COMPONENTS,
    MASK,
    PLAIN,
    ROLLOUT,
    Explained,
    Noted,
    attention_layer,
    component_layer,
    items_page,
    views_page,
)
from lamella.view.feature_maps import PatchColours, patch_colours
from lamella.view.page import Picture, Section
from lamella.view.panels import write_sheet

_CAVEAT = (
    "Attention says where information may have flowed, not what decided. The same network with random weights has "
    "attention maps, too: look at its pages before reading anything into these."
)


@dataclass(frozen=True)
class Drawn:
    """What is drawn of each item; see the settings of `explain`."""

    attention: bool
    heads: int
    token: int | None
    components: bool
    foreground: bool


@dataclass(frozen=True)
class _Seen:
    """What an encoder makes of one item."""

    shown: Shown
    grid: tuple[int, ...]
    tokens: np.ndarray
    attended: Attended | None


def encoder_section(
    encoder: Any, shown: Sequence[Shown], what: Drawn, folder: Path, prefix: str, device: torch.device
) -> Section:
    """Draw an encoder's pages.

    Args:
        encoder: Of images, volumes or films.
        shown: The items.
        what: What is drawn of them.
        folder: Where the pictures go.
        prefix: Of their names.
        device: Where the encoder runs.

    Raises:
        LamellaError: It has no attention to draw.
    """
    encoder.to(device)
    found = [_seen(encoder, each, what, device) for each in progress(shown, f"encode, {encoder.name}")]
    notes, facts, colours = [], [], None
    if found[0].attended is not None:
        notes.append(_CAVEAT)
        facts.append(f"Attention of {found[0].attended.query}.")
    if what.components:
        try:
            colours = patch_colours([each.tokens for each in found], foreground=what.foreground)
            facts.append(colours.text[0].upper() + colours.text[1:] + ".")
        except LamellaError as error:
            notes.append(f"The components are not drawn: {error.cause}.")
    overviews = [_overview(each, number, colours) for number, each in enumerate(found)]
    heading = f"{encoder.name}: where it looks, and what it tells apart"
    pictures = list(_written(overviews, folder, f"{prefix}overview", heading, facts, across=False))
    heads = [_heads(each, what.heads) for each in found if each.attended is not None and what.heads]
    if heads:
        heading = f"{encoder.name}: heads of the last layer"
        pictures += list(_written(heads, folder, f"{prefix}heads", heading, facts[:1], across=True))
    return Section(encoder.name, notes, pictures)


def _seen(encoder: Any, shown: Shown, what: Drawn, device: torch.device) -> _Seen:
    values = shown.values.to(device)
    grid = token_grid(encoder, values)
    with torch.inference_mode():
        tokens = encoder.tokens(values, shown.spacing)[0].float().cpu().numpy()
    looked = attended(encoder, values, what.token, shown.spacing) if what.attention else None
    return _Seen(shown, grid, tokens.reshape(*grid, -1), looked)


def _overview(found: _Seen, number: int, colours: PatchColours | None) -> Explained:
    layers = {PLAIN: Noted()}
    if found.shown.mask is not None:
        layers[MASK] = found.shown.mask
    if found.attended is not None:
        layers[ROLLOUT] = attention_layer(found.attended.rollout_BN[0].cpu().numpy().reshape(found.grid))
    if colours is not None:
        layers[COMPONENTS] = component_layer(colours.colours[number], colours.foreground[number])
    return Explained(found.shown.name, found.shown.cuts, layers)


def _heads(found: _Seen, most: int) -> Explained:
    assert found.attended is not None
    heads_HN = found.attended.heads_BHN[0].cpu().numpy()
    layers = {PLAIN: Noted()}
    for number, shares in enumerate(heads_HN[:most]):
        layers[f"head {number + 1} of {len(heads_HN)}"] = attention_layer(shares.reshape(found.grid))
    return Explained(found.shown.name, found.shown.cuts, layers)


def _written(
    items: list[Explained], folder: Path, name: str, heading: str, facts: list[str], *, across: bool
) -> Iterator[Picture]:
    """One page for all images; one for each volume or film."""
    if all(len(item.cuts) == 1 for item in items):
        path = folder / f"{name}.png"
        write_sheet(items_page(items, heading, facts), path)
        yield Picture(path, heading)
        return
    for number, item in enumerate(items):
        path = folder / f"{name}_{number:02d}.png"
        write_sheet(views_page(item, f"{item.name}; {heading}", facts, layers_across=across), path)
        yield Picture(path, f"{item.name}; {heading}")
