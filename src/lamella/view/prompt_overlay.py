"""A part of a slide with what was asked for and what was answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from lamella.formats.atomic import whole_file
from lamella.view.marks import FAINT, INK, LINE, PAPER, colour, draw_scale_bar, font

_SIDE_PX = 1000  # of the longest side: a screen's width
_MOST_ROWS = 8  # of the legend; beyond, colours repeat and names say little
_TINT = 0.22  # the tissue keeps its look
_MARGIN_PX, _TITLE_PX, _TEXT_PX, _ROW_PX = 20, 20, 15, 22


@dataclass(frozen=True)
class DrawnAnswer:
    """One object.

    Attributes:
        text: Of the legend.
        mask: (H, W) bool.
        box: x0, y0, x1, y1 of the prompt, in pixels of the picture.
        points: (N, 2) clicks on it.
        negatives: (N, 2) clicks on other things.
    """

    text: str
    mask: np.ndarray
    box: tuple[float, float, float, float] | None = None
    points: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))
    negatives: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))


def draw_answers(
    pixels: np.ndarray, answers: Sequence[DrawnAnswer], um_per_px: float, title: str, path: Path | str
) -> None:
    """Draw masks as tinted outlines, boxes as thin lines, clicks as + and negative ones as crosses.

    Args:
        pixels: (H, W, 3) uint8.
        answers: In the order of the legend.
        um_per_px: Of the pixels.
        title: Above the picture.
        path: PNG to write, whole or not at all.

    Raises:
        StorageError: The disk refused the write.
    """
    scale = _SIDE_PX / max(pixels.shape[:2])
    size = max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale))
    picture = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)).copy()
    for number, answer in enumerate(answers):
        mask = np.asarray(Image.fromarray(answer.mask).resize(size, Image.Resampling.NEAREST))
        _tint(picture, mask, np.array(colour(number)))
    image = Image.fromarray(picture)
    for number, answer in enumerate(answers):
        _draw_prompts(image, answer, scale, colour(number))
    draw_scale_bar(image, um_per_px / scale, 16)
    with whole_file(path) as part:
        _sheet(image, answers, title).save(part, format="PNG")


def _tint(picture: np.ndarray, mask: np.ndarray, rgb: np.ndarray) -> None:
    edge = mask & ~_shrunk(mask, 2)
    halo = _shrunk(mask, 2) & ~_shrunk(mask, 3)
    picture[mask] = (picture[mask] * (1 - _TINT) + rgb * _TINT).astype(np.uint8)
    picture[halo] = 255
    picture[edge] = rgb


def _shrunk(mask: np.ndarray, by_px: int) -> np.ndarray:
    for _ in range(by_px):
        padded = np.pad(mask, 1, constant_values=True)  # a mask goes on beyond the picture
        mask = mask & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask


def _draw_prompts(image: Image.Image, answer: DrawnAnswer, scale: float, rgb: tuple[int, int, int]) -> None:
    draw = ImageDraw.Draw(image)
    if answer.box is not None:
        x0, y0, x1, y1 = (side * scale for side in answer.box)
        for inset, line in ((-1, PAPER), (0, rgb), (1, PAPER)):
            draw.rectangle((x0 - inset, y0 - inset, max(x0, x1 - 1) + inset, max(y0, y1 - 1) + inset), outline=line)
    for places, plus in ((answer.points, True), (answer.negatives, False)):
        for x, y in np.asarray(places) * scale:
            arms = [(7, 0), (0, 7)] if plus else [(5, 5), (5, -5)]
            for width, line in ((6, PAPER), (3, rgb if plus else INK)):
                for dx, dy in arms:
                    draw.line((x - dx, y - dy, x + dx, y + dy), fill=line, width=width)


def _sheet(image: Image.Image, answers: Sequence[DrawnAnswer], title: str) -> Image.Image:
    """The picture between a title and a legend."""
    shown = answers[:_MOST_ROWS]
    head, foot = _TITLE_PX + 2 * _MARGIN_PX, _ROW_PX * len(shown) + 2 * _MARGIN_PX
    sheet = Image.new("RGB", (image.width + 2 * _MARGIN_PX, image.height + head + foot), PAPER)
    draw, small = ImageDraw.Draw(sheet), font(_TEXT_PX)
    size_px = _TITLE_PX
    while size_px > 10 and draw.textlength(title, font=font(size_px, bold=True)) > image.width:
        size_px -= 1
    draw.text((_MARGIN_PX, _MARGIN_PX), title, font=font(size_px, bold=True), fill=INK)
    sheet.paste(image, (_MARGIN_PX, head))
    draw.rectangle((_MARGIN_PX - 1, head - 1, _MARGIN_PX + image.width, head + image.height), outline=LINE)
    for number, answer in enumerate(shown):
        y = head + image.height + _MARGIN_PX // 2 + _ROW_PX * number
        draw.rectangle((_MARGIN_PX, y + 4, _MARGIN_PX + 14, y + 18), fill=colour(number))
        draw.text((_MARGIN_PX + 24, y + 2), answer.text, font=small, fill=INK)
    more = f"{len(answers) - len(shown)} more are drawn; " if len(answers) > len(shown) else ""
    note = f"{more}+ click on it, x click on something else, thin box as it was asked for"
    draw.text((_MARGIN_PX, sheet.height - _MARGIN_PX - 6), note, font=font(12), fill=FAINT)
    return sheet
