"""The style sheet that every page shares."""

from __future__ import annotations

import re

import pytest

from lamella.view.look import STYLE_SHEET, document, look


def _variables(block: str) -> dict[str, str]:
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{3,6})", block))


def _modes() -> dict[str, dict[str, str]]:
    """Variables in light, in the dark and on paper."""
    plain, dark = look().split("@media (prefers-color-scheme: dark)")
    printed = look().split("@media print")[1]
    light = _variables(plain)
    first = dark[: dark.index("*, *::before")]
    return {"light": light, "dark": light | _variables(first), "print": light | _variables(printed)}


def _luminance(colour: str) -> float:
    """Relative luminance of WCAG 2.2."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, two: str) -> float:
    low, high = sorted((_luminance(one), _luminance(two)))
    return (high + 0.05) / (low + 0.05)


def test_black_on_white_has_the_greatest_contrast() -> None:
    assert contrast("#000", "#ffffff") == pytest.approx(21)


@pytest.mark.parametrize("mode", ["light", "dark", "print"])
@pytest.mark.parametrize("ink", ["ink", "faint", "accent", "fault", "warning", "good"])
@pytest.mark.parametrize("ground", ["paper", "soft"])
def test_text_can_be_read(mode: str, ink: str, ground: str) -> None:
    colours = _modes()[mode]
    assert contrast(colours[ink], colours[ground]) >= 4.5


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_warnings_and_pressed_buttons_can_be_read(mode: str) -> None:
    colours = _modes()[mode]
    assert contrast(colours["ink"], colours["warning-soft"]) >= 4.5
    assert contrast(colours["on-accent"], colours["accent"]) >= 4.5


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_edges_of_controls_and_lines_of_charts_can_be_seen(mode: str) -> None:
    colours = _modes()[mode]
    for name in ("edge", *(f"line{at}" for at in range(6))):
        assert contrast(colours[name], colours["paper"]) >= 3, name


def test_it_names_no_other_file_and_fits_into_a_page() -> None:
    assert not re.search(r"url\(|@import|//|</", look())
    page = document("t", "<p>b</p>")
    assert look() in page
    assert page.endswith("<p>b</p>\n</main></body></html>\n")
    assert STYLE_SHEET.name == "look.css"
