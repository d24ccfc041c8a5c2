"""A page of pictures in rows and columns, with a heading, names of rows and columns, and a line of facts under each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from lamella.formats.atomic import whole_file
from lamella.view.marks import FAINT, INK, LINE, PAPER, Colour, font

_GAP_PX, _MARGIN_PX = 14, 24
_HEADING_PX, _FACT_PX, _NAME_PX, _CAPTION_PX = 20, 14, 14, 12  # letters
_LEADING = 1.35  # a line of text over the height of its letters
_WIDTH_PX = 1800  # of a page with many columns: a screen's width, no need to scroll sideways
_LEAST_PX, _MOST_PX = 110, 340  # below, the patches of a picture cannot be told apart; above, nothing more is seen


@dataclass(frozen=True)
class Cell:
    """A picture and what is said under it."""

    image: Image.Image
    caption: str = ""


def panel_px(columns: int) -> int:
    """Side of the pictures of a page with so many columns."""
    room = (_WIDTH_PX - 2 * _MARGIN_PX - (columns - 1) * _GAP_PX) // columns
    return max(_LEAST_PX, min(_MOST_PX, room))


def sheet(
    heading: str,
    facts: Sequence[str],
    rows: Sequence[Sequence[Cell | None]],
    *,
    columns: Sequence[str] = (),
    names: Sequence[str] = (),
) -> Image.Image:
    """Draw a page.

    Args:
        heading: Bold, above all.
        facts: Sentences under the heading; long ones are wrapped.
        rows: The cells; None leaves a place empty.
        columns: Names above the columns.
        names: Names above the rows.
    """
    count = max(len(row) for row in rows)
    widths = [max((row[at].image.width for row in rows if at < len(row) and row[at]), default=0) for at in range(count)]
    inner = sum(widths) + _GAP_PX * (count - 1)
    # A heading is not broken into many lines because its pictures are few.
    inner = max(inner, min(_WIDTH_PX - 2 * _MARGIN_PX, _length(heading, _HEADING_PX, bold=True), 700))
    top = _Text(inner).add(heading, _HEADING_PX, INK, bold=True)
    for fact in facts:
        top.add(fact, _FACT_PX, FAINT)
    titles = [_Text(width).add(text, _NAME_PX, INK, bold=True) for text, width in zip(columns, widths, strict=False)]
    parts: list[tuple[_Text | None, Sequence[Cell | None], list[_Text], int]] = []
    for number, row in enumerate(rows):
        name = _Text(inner).add(names[number], _NAME_PX, INK, bold=True) if number < len(names) else None
        captions = [_Text(width).add(cell.caption if cell else "", _CAPTION_PX, FAINT) for cell, width in
                    zip(row, widths, strict=False)]  # fmt: skip
        height = max(cell.image.height for cell in row if cell)
        parts.append((name, row, captions, height))
    head = max((title.height for title in titles), default=0)
    total = _MARGIN_PX * 2 + top.height + _GAP_PX + head + sum(_part_height(part) for part in parts)
    page = Image.new("RGB", (inner + 2 * _MARGIN_PX, total), PAPER)
    y = _MARGIN_PX + top.draw(page, _MARGIN_PX, _MARGIN_PX) + _GAP_PX
    lefts = [_MARGIN_PX + sum(widths[:at]) + at * _GAP_PX for at in range(count)]
    for title, left in zip(titles, lefts, strict=False):
        title.draw(page, left, y + head - title.height)
    y += head
    for part in parts:
        _draw_row(page, part, lefts, y)
        y += _part_height(part)
    return page


def write_sheet(page: Image.Image, path: Path) -> None:
    """Write a page as PNG, whole or not at all."""
    with whole_file(path) as part:
        page.save(part)


def _part_height(part: tuple[_Text | None, Sequence[Cell | None], list[_Text], int]) -> int:
    name, _, captions, height = part
    return (name.height if name else 0) + height + max(text.height for text in captions) + _GAP_PX


def _draw_row(
    page: Image.Image, part: tuple[_Text | None, Sequence[Cell | None], list[_Text], int], lefts: list[int], y: int
) -> None:
    name, row, captions, height = part
    if name:
        y += name.draw(page, lefts[0], y)
    draw = ImageDraw.Draw(page)
    for cell, caption, left in zip(row, captions, lefts, strict=False):
        if cell is None:
            continue
        page.paste(cell.image, (left, y))
        draw.rectangle((left - 1, y - 1, left + cell.image.width, y + cell.image.height), outline=LINE)
        caption.draw(page, left, y + height + 3)


class _Text:
    """Lines of text, wrapped to a width; a word that is wider than that is cut."""

    def __init__(self, width_px: int) -> None:
        self._width, self._lines = max(width_px, 60), []  # type: ignore[var-annotated]

    def add(self, text: str, size_px: int, ink: Colour, *, bold: bool = False) -> _Text:
        letters = font(size_px, bold=bold)
        for line in _wrapped(text, letters, self._width):
            self._lines.append((line, letters, ink, round(size_px * _LEADING)))
        return self

    @property
    def height(self) -> int:
        return sum(height for *_, height in self._lines) + 6 * bool(self._lines)

    def draw(self, page: Image.Image, left: int, top: int) -> int:
        """Draw at a place; the height that was used."""
        draw, y = ImageDraw.Draw(page), top
        for text, letters, ink, height in self._lines:
            draw.text((left, y), text, font=letters, fill=ink)
            y += height
        return self.height


def _wrapped(text: str, letters: ImageFont.FreeTypeFont, width_px: int) -> list[str]:
    lines, line = [], ""
    for word in text.split():
        word = _fitting(word, letters, width_px)
        longer = f"{line} {word}".strip()
        if line and letters.getlength(longer) > width_px:
            lines.append(line)
            longer = word
        line = longer
    return [*lines, line] if line else lines


def _fitting(word: str, letters: ImageFont.FreeTypeFont, width_px: int) -> str:
    """A word that fits, its middle left out: the ends of names are what tells them apart."""
    kept, shown = len(word), word
    while kept > 4 and letters.getlength(shown) > width_px:
        kept -= 1
        shown = word[: (kept + 1) // 2] + "…" + word[len(word) - kept // 2 :]
    return shown


def _length(text: str, size_px: int, *, bold: bool) -> int:
    return int(font(size_px, bold=bold).getlength(text)) + 1
