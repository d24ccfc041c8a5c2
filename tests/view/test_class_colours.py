from __future__ import annotations

import numpy as np

from lamella.formats.label_values import NOT_LABELLED
from lamella.view.class_colours import class_colours, class_table
from lamella.view.marks import PALETTE

NAMES = ["background", *(f"class {number}" for number in range(21))]


def test_colours_follow_the_order_of_the_classes_and_the_background_takes_none() -> None:
    found = class_colours(NAMES)
    assert list(found) == NAMES
    assert [found[name] for name in NAMES[1:8]] == list(PALETTE)
    assert class_colours(["tumour", "background", "stroma"])["stroma"] == PALETTE[1]
    assert class_colours(["background", "tumour"], None)["background"] == PALETTE[0]


def lightness(rgb: tuple[int, int, int]) -> float:
    """CIE L* of sRGB."""
    parts = np.array(rgb) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ [0.2126, 0.7152, 0.0722])
    return 116 * luminance ** (1 / 3) - 16


def test_twenty_one_classes_differ_in_colour_and_the_same_hues_in_lightness() -> None:
    found = [class_colours(NAMES)[name] for name in NAMES[1:]]
    assert len(set(found)) == 21
    for plain, dark, pale in zip(found[:7], found[7:14], found[14:], strict=True):
        assert lightness(dark) + 15 < lightness(plain) < lightness(pale) - 3


def test_the_table_shows_classes_only() -> None:
    colours, shown = class_table(["a", "background", "b"])
    assert np.flatnonzero(shown).tolist() == [0, 2]
    assert colours[2].tolist() == list(PALETTE[1])
    assert not shown[NOT_LABELLED]
