"""Pages: every layer of every item has its place, and nothing is cut off."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from lamella.view.explained import (
    MASK,
    PLAIN,
    ROLLOUT,
    Explained,
    Noted,
    attention_layer,
    component_layer,
    items_page,
    mask_layer,
    views_page,
)
from lamella.view.marks import font
from lamella.view.panels import Cell, _wrapped, panel_px, sheet
from lamella.view.planes import image_cut, volume_cuts

RNG = np.random.default_rng(0)


def item(name: str, *, mask: bool = False) -> Explained:
    layers = {PLAIN: Noted()}
    if mask:
        layers[MASK] = mask_layer(np.eye(16, dtype=int), {"lesion": 1})
    layers[ROLLOUT] = attention_layer(RNG.dirichlet(np.ones(16)).reshape(4, 4))
    return Explained(name, [image_cut(RNG.integers(0, 256, (32, 32, 3), dtype=np.uint8))], layers)


def test_images_stand_below_each_other_and_a_missing_mask_leaves_its_place_empty() -> None:
    page = items_page([item("a"), item("b", mask=True)], "heading", ["a fact"])
    side = panel_px(3)
    assert page.width == 3 * side + 2 * 14 + 2 * 24
    pixels = np.asarray(page)
    empty = pixels[: page.height // 2, 24 + side + 14 + 10 : 24 + 2 * side]
    below = pixels[page.height // 2 :, 24 + side + 14 + 10 : 24 + 2 * side]
    assert (empty[150:] == 255).mean() > 0.99
    assert (below == 255).mean() < 0.9


def test_captions_state_the_scale_of_attention_and_the_share_of_a_mask() -> None:
    shares = np.full((4, 4), 1 / 16)
    assert attention_layer(shares).caption == "dark 0.8, bright 1.25 × an even share; found 1.00 to 1.00"
    shares[0, 0], shares[0, 1] = 2 / 16, 0
    assert attention_layer(shares).caption == "dark 0, bright 2 × an even share"
    assert mask_layer(np.eye(4, dtype=int), {"lesion": 1}).caption == "orange: lesion 25.0%"
    foreground = np.array([[True, False]])
    assert component_layer(np.zeros((1, 2, 3)), foreground).caption == "50% of the tokens are foreground"


@pytest.mark.parametrize("layers_across", [False, True])
def test_a_volume_has_its_planes_by_its_layers(layers_across: bool) -> None:
    cuts = volume_cuts(RNG.normal(size=(8, 16, 16)), (2.0, 1.0, 1.0))
    shares = RNG.dirichlet(np.ones(32)).reshape(2, 4, 4)
    volume = Explained("v", cuts, {PLAIN: Noted(), ROLLOUT: attention_layer(shares)})
    page = views_page(volume, "heading", [], layers_across=layers_across)
    side = panel_px(2 if layers_across else 3)
    assert page.width >= (2 if layers_across else 3) * side
    assert page.height >= (3 if layers_across else 2) * side


def test_long_texts_are_wrapped_and_long_names_shortened() -> None:
    letters = font(14)
    lines = _wrapped("one two three four five six seven " * 5 + "x" * 300, letters, 200)
    assert all(letters.getlength(line) <= 200 for line in lines)
    assert "…" in lines[-1]
    narrow = sheet("a heading of many words that goes on " * 4, ["f"], [[Cell(Image.new("RGB", (120, 120)), "c")]])
    pixels = np.asarray(narrow)
    assert (pixels[:, -24:] == 255).all()  # the margin is free
