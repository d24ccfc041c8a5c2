"""What all pictures share: colours, letters, scale bars."""

from __future__ import annotations

import functools
import math
from pathlib import Path

import matplotlib
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]

# Okabe and Ito, "Color universal design", 2008: told apart by colour-blind readers. Orange and green first: they
# stand out on pink and violet tissue.
PALETTE: tuple[Colour, ...] = (
    (230, 159, 0),
    (0, 158, 115),
    (86, 180, 233),
    (213, 94, 0),
    (0, 114, 178),
    (204, 121, 167),
    (240, 228, 66),
)
_NAMES = ("orange", "green", "light blue", "vermilion", "blue", "pink", "yellow")
INK: Colour = (33, 37, 41)
FAINT: Colour = (108, 117, 125)
PAPER: Colour = (255, 255, 255)
LINE: Colour = (222, 226, 230)
ANCHOR: Colour = (0, 114, 178)


def colour(number: int) -> Colour:
    """The colour of the nth thing in every panel of a picture."""
    return PALETTE[number % len(PALETTE)]


def colour_name(number: int) -> str:
    """That colour in words, for a caption."""
    return _NAMES[number % len(PALETTE)]


def web(rgb: Colour) -> str:
    """`#e69f00`."""
    return "#{:02x}{:02x}{:02x}".format(*rgb)


@functools.lru_cache(maxsize=64)
def font(size_px: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib brings along and which has the micro sign."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name, size_px)


def length_text(length_um: float) -> str:
    """`200 µm`, `1.5 mm`."""
    return f"{length_um / 1000:.3g} mm" if length_um >= 1000 else f"{length_um:.3g} µm"


def round_length_um(longest_um: float) -> float:
    """The longest of 1, 2, 5, 10, 20, ... micrometres that is not longer than this."""
    decade = 10.0 ** math.floor(math.log10(longest_um))
    return max(step * decade for step in (1, 2, 5) if step * decade <= longest_um * (1 + 1e-9))


def draw_scale_bar(image: Image.Image, um_per_px: float, unit_px: int) -> None:
    """Draw a bar of a round length at the lower left, on a plate that stays legible over any tissue.

    Args:
        image: RGB, drawn into.
        um_per_px: Micrometres of one pixel of this image.
        unit_px: Size of the letters; everything else follows.
    """
    length_um = round_length_um(image.width * um_per_px / 4)  # a quarter of the width at most
    length_px, text, letters = round(length_um / um_per_px), length_text(length_um), font(unit_px)
    draw = ImageDraw.Draw(image, "RGBA")
    text_px = math.ceil(draw.textlength(text, font=letters))
    pad = max(3, unit_px // 2)
    width, height = max(length_px, text_px) + 2 * pad, round(1.2 * unit_px) + max(3, unit_px // 4) + 2 * pad
    left, top = pad, image.height - pad - height
    draw.rounded_rectangle((left, top, left + width, top + height), radius=pad // 2, fill=(*PAPER, 215))
    middle, bar_y = left + width / 2, top + height - pad
    draw.text((middle - text_px / 2, top + pad // 2), text, font=letters, fill=INK)
    draw.rectangle((middle - length_px / 2, bar_y - max(2, unit_px // 5), middle + length_px / 2, bar_y), fill=INK)
