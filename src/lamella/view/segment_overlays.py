"""The best, the median and the worst images of a segmentation: image, truth, prediction, and what was wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import binary_dilation

from lamella.formats.label_values import NOT_LABELLED
from lamella.metrics.segments.boundary import edge_pixels
from lamella.view.class_colours import class_colours
from lamella.view.marks import FAINT, INK, LINE, PAPER, Colour, draw_scale_bar, font
from lamella.view.panels import Cell, sheet

_PANEL_PX = 420  # four of them fit a screen's width
# A class's colour over the tissue: of one class a hint is enough, several must be told apart by it.
_TINT, _TINT_OF_MANY = 0.25, 0.5
_PALE = 0.35  # what is left of the tissue under the errors
_MISSED: Colour = (0, 114, 178)
_FALSE: Colour = (213, 94, 0)
_CONFUSED: Colour = (204, 121, 167)
_UNKNOWN: Colour = (173, 181, 189)
_COLUMNS = ("image", "truth", "prediction", "errors")


@dataclass(frozen=True)
class Overlay:
    """One image of the page.

    Attributes:
        pixels_YXC: uint8 (Y, X, 3).
        truth_YX: uint8 channels or NOT_LABELLED.
        predicted_YX: uint8 channels.
        name: Above the row, such as `worst: testA_3`.
        caption: Under the errors, such as the image's Dice.
        um_per_px: For the scale bar; None draws none.
    """

    pixels_YXC: np.ndarray
    truth_YX: np.ndarray
    predicted_YX: np.ndarray
    name: str
    caption: str = ""
    um_per_px: float | None = None


def draw_segment_overlays(
    overlays: Sequence[Overlay], classes: Sequence[str], background: int | None, *, heading: str, facts: Sequence[str]
) -> Image.Image:
    """A page with one row for each image, and the meaning of the colours below.

    Args:
        overlays: The images in the order of the page.
        classes: Names of the channels.
        background: Channel that is not tinted; None where every channel is a tissue.
        heading: Above all.
        facts: Sentences under the heading.
    """
    name = None if background is None else classes[background]
    colours = list(class_colours(classes, name).values())
    rows: list[list[Cell | None]] = [_row(overlay, colours, background) for overlay in overlays]
    tissues = [(colours[number], name) for number, name in enumerate(classes) if number != background]
    errors = [(_MISSED, "tissue missed: called background"), (_FALSE, "false alarm: background called tissue")]
    errors = [] if background is None else errors
    if len(tissues) > 1:
        errors.append((_CONFUSED, "one tissue called another"))
    if any((overlay.truth_YX == NOT_LABELLED).any() for overlay in overlays):
        errors.append((_UNKNOWN, "hatched: not labelled, not judged"))
    page = sheet(heading, facts, rows, columns=_COLUMNS, names=[overlay.name for overlay in overlays])
    # Two lists, because an error may have the colour of a class.
    return _with_legend(page, [("truth and prediction:", tissues), ("errors:", errors)])


def _row(overlay: Overlay, colours: Sequence[Colour], background: int | None) -> list[Cell | None]:
    height, width = overlay.truth_YX.shape
    scale = _PANEL_PX / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    pixels = np.asarray(Image.fromarray(overlay.pixels_YXC).resize(size, Image.Resampling.BILINEAR))
    truth, predicted = (
        np.asarray(Image.fromarray(labels).resize(size, Image.Resampling.NEAREST))
        for labels in (overlay.truth_YX, overlay.predicted_YX)
    )
    unknown = truth == NOT_LABELLED
    plain = Image.fromarray(pixels.copy())
    if overlay.um_per_px is not None:
        draw_scale_bar(plain, overlay.um_per_px / scale, 12)
    panels = [
        plain,
        Image.fromarray(_outlined(pixels, truth, unknown, colours, background)),
        Image.fromarray(_outlined(pixels, predicted, unknown, colours, background)),
        Image.fromarray(_errors(pixels, truth, predicted, background)),
    ]
    return [Cell(panel, overlay.caption if panel is panels[-1] else "") for panel in panels]


def _outlined(
    pixels: np.ndarray, labels: np.ndarray, unknown: np.ndarray, colours: Sequence[Colour], background: int | None
) -> np.ndarray:
    """The tissues tinted in their colours, with a line of two pixels inside and outside their edge."""
    painted = pixels.astype(np.float32)
    edge, tint = edge_pixels(labels, unknown), _TINT if len(colours) < 3 else _TINT_OF_MANY
    for number, rgb in enumerate(colours):
        if number == background:
            continue
        here = (labels == number) & ~unknown
        painted[here] = painted[here] * (1 - tint) + np.array(rgb, np.float32) * tint
        line = binary_dilation(edge & here) & (here | (labels == background)) if background is not None else edge & here
        painted[line & ~unknown] = rgb
    painted[unknown] = _hatched(painted[unknown], np.argwhere(unknown))
    return painted.round().astype(np.uint8)


def _errors(pixels: np.ndarray, truth: np.ndarray, predicted: np.ndarray, background: int | None) -> np.ndarray:
    grey = pixels.mean(-1, keepdims=True).repeat(3, -1)
    painted = grey * _PALE + 255 * (1 - _PALE)
    unknown, wrong = truth == NOT_LABELLED, truth != predicted
    kinds = [(wrong, _CONFUSED)]
    if background is not None:
        kinds += [(wrong & (truth == background), _FALSE), (wrong & (predicted == background), _MISSED)]
    for where, rgb in kinds:
        painted[where & ~unknown] = rgb
    painted[unknown] = _hatched(painted[unknown], np.argwhere(unknown))
    return painted.round().astype(np.uint8)


def _hatched(pixels_P3: np.ndarray, places_P2: np.ndarray) -> np.ndarray:
    """Diagonal grey lines: nobody takes them for tissue or for a class."""
    hatched = pixels_P3 * 0.5 + 127
    hatched[places_P2.sum(1) % 8 < 2] = _UNKNOWN
    return hatched


def _with_legend(page: Image.Image, lists: Sequence[tuple[str, Sequence[tuple[Colour, str]]]]) -> Image.Image:
    """Lists of swatches with their names under the page, each with its title and on as many lines as it needs."""
    letters, side, line, left = font(14), 16, 26, 24
    indent = left + max(letters.getlength(title) for title, _ in lists) + 16
    placed: list[tuple[float, int, Colour, str]] = []
    titles: list[tuple[int, str]] = []
    number = 0
    for title, entries in lists:
        titles.append((number, title))
        x = indent
        for rgb, name in entries:
            wide = side + 8 + letters.getlength(name) + 24
            if x > indent and x + wide > page.width - left:
                x, number = indent, number + 1
            placed.append((x, number, rgb, name))
            x += wide
        number += 1
    whole = Image.new("RGB", (page.width, page.height + number * line + 12), PAPER)
    whole.paste(page)
    draw = ImageDraw.Draw(whole)
    draw.line((left, page.height - 6, page.width - left, page.height - 6), fill=LINE)
    top = page.height + 4
    for row, title in titles:
        draw.text((left, top + row * line - 1), title, font=letters, fill=FAINT)
    for x, row, rgb, name in placed:
        y = top + row * line
        draw.rectangle((x, y, x + side, y + side), fill=rgb, outline=FAINT)
        draw.text((x + side + 8, y - 1), name, font=letters, fill=INK)
    return whole
