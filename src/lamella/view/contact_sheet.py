"""All slides of an index at one glance: small pictures with the outline of their tissue, and what became of each."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw, PngImagePlugin

from lamella.errors import SlideError
from lamella.formats.atomic import whole_file
from lamella.slides.index import IndexedSlide
from lamella.slides.indexing import SlideFate
from lamella.view.marks import FAINT, INK, LINE, PAPER, Colour, font
from lamella.view.overlay import tissue_edge

SLIDES_PER_PAGE = 60
_COLUMNS = 6
_PICTURE_PX = (290, 210)  # six of them fill a screen's width
_GAP_PX, _TEXT_PX, _HEAD_PX = 14, 46, 44
_OUTLINE: Colour = (0, 128, 84)
_STATUS: dict[str, Colour] = {"ok": (0, 128, 84), "failed": (190, 60, 0), "rejected": (150, 90, 0)}
_EMPTY: Colour = (246, 247, 248)
_DIGEST = "lamella:drawn-from"  # a PNG text that tells what a page shows, so that an identical rerun opens no slide
_DRAWING = 1  # number of this drawing; another one draws all pages anew


@dataclass(frozen=True)
class SheetEntry:
    """One frame of a contact sheet."""

    slide_id: str
    status: Literal["ok", "failed", "rejected"]
    reason: str = ""
    """Why it is not ok, in a few words."""
    slide: IndexedSlide | None = None
    """Opened when its page is drawn; None leaves the frame empty."""


def sheet_entries(fates: Iterable[SlideFate]) -> list[SheetEntry]:
    """The frames for what became of the slides of an index, in its order."""
    entries = []
    for fate in fates:
        # "/path/a.svs: it is cut short. Copy it again." -> "it is cut short": the frame has the name already.
        reason = fate.error
        for path in (fate.row.wsi_path, fate.row.mask_path):
            reason = reason.removeprefix(f"{path}: ")
        entries.append(SheetEntry(fate.row.slide_id, fate.status, reason.split(". ")[0], fate.slide))
    return entries


def draw_contact_sheet(entries: Sequence[SheetEntry], path: Path | str) -> list[Path]:
    """Draw every slide's thumbnail, tissue outline, name, tissue area, pixel size and fate.

    More than `SLIDES_PER_PAGE` slides go on several pages, `contact_sheet_01.png` and so on; pages of an earlier and
    longer sheet are removed. A page that shows these very slides already is left alone, and its slides are not opened.
    One slide is open at a time, and one page in memory.

    Args:
        entries: The frames in order; none are left out.
        path: The PNG to write, such as `index/contact_sheet.png`; the name that the pages' names are made from.

    Returns:
        The pages' paths.

    Raises:
        StorageError: The disk refused a write.
    """
    path = Path(path)
    parts = [entries[first : first + SLIDES_PER_PAGE] for first in range(0, len(entries), SLIDES_PER_PAGE)] or [[]]
    pages = [path] if len(parts) == 1 else [_numbered(path, number) for number in range(1, len(parts) + 1)]
    for number, (part, page) in enumerate(zip(parts, pages, strict=True)):
        digest = _digest(part, number, len(entries))
        if _drawn_from(page) != digest:
            _write_page(page, _draw_page(part, number * SLIDES_PER_PAGE, len(entries)), digest)
    for stale in {path, *path.parent.glob(f"{path.stem}_[0-9][0-9]*{path.suffix}")} - set(pages):
        stale.unlink(missing_ok=True)
    return pages


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.stem}_{number:02d}{path.suffix}")


def _digest(entries: Sequence[SheetEntry], number: int, total: int) -> str:
    shown = [
        (entry.slide_id, entry.status, entry.reason, *((s.source_hash, s.tissue_area_mm2, s.mpp_stated) if s else ()))
        for entry in entries
        for s in (entry.slide,)
    ]
    return hashlib.sha256(json.dumps([_DRAWING, number, total, shown]).encode()).hexdigest()


def _drawn_from(page: Path) -> str:
    """What an existing page says it was drawn from; empty if there is none, or another program's file."""
    try:
        with Image.open(page) as image:
            return str(image.info.get(_DIGEST, ""))
    except OSError:
        return ""


def _write_page(page: Path, image: Image.Image, digest: str) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text(_DIGEST, digest)
    with whole_file(page) as part:
        image.save(part, format="PNG", pnginfo=text)


def _draw_page(entries: Sequence[SheetEntry], first: int, total: int) -> Image.Image:
    columns = min(_COLUMNS, max(3, len(entries)))  # three at least: the heading needs the room
    width, height = (_PICTURE_PX[0] + _GAP_PX), (_PICTURE_PX[1] + _TEXT_PX + _GAP_PX)
    rows = -(-len(entries) // columns)
    sheet = Image.new("RGB", (columns * width + _GAP_PX, _HEAD_PX + rows * height + _GAP_PX), PAPER)
    ImageDraw.Draw(sheet).text((_GAP_PX, 12), _heading(entries, first, total), font=font(17, bold=True), fill=INK)
    for number, entry in enumerate(entries):
        row, column = divmod(number, columns)
        _draw_entry(sheet, entry, _GAP_PX + column * width, _HEAD_PX + row * height)
    return sheet


def _heading(entries: Sequence[SheetEntry], first: int, total: int) -> str:
    counts = {status: sum(entry.status == status for entry in entries) for status in _STATUS}
    which = f"{total} slides" if total == len(entries) else f"slides {first + 1}-{first + len(entries)} of {total}"
    return f"{which}: " + ", ".join(f"{count} {status}" for status, count in counts.items())


def _draw_entry(sheet: Image.Image, entry: SheetEntry, left: int, top: int) -> None:
    width, height = _PICTURE_PX
    draw = ImageDraw.Draw(sheet)
    draw.rectangle((left, top, left + width - 1, top + height - 1), fill=_EMPTY, outline=LINE)
    reason = entry.reason
    if entry.slide is not None:
        try:
            picture = _outlined_thumbnail(entry.slide)
            sheet.paste(picture, (left + (width - picture.width) // 2, top + (height - picture.height) // 2))
        except SlideError as error:  # it was in order when it was indexed
            reason = f"cannot be shown: {error.cause}"
    if reason:
        _draw_reason(draw, reason, left + 10, top + 10, width - 20)
    name = _elided(draw, entry.slide_id, width, 14)
    draw.text((left, top + height + 4), name, font=font(14, bold=True), fill=INK)
    draw.text((left, top + height + 23), entry.status, font=font(13, bold=True), fill=_STATUS[entry.status])
    if entry.slide is not None:
        facts = f"{entry.slide.tissue_area_mm2:.3g} mm² tissue, {entry.slide.frame.mpp:.3g} µm/px"
        shift = draw.textlength(f"{entry.status}  ", font=font(13, bold=True))
        draw.text((left + shift, top + height + 23), facts, font=font(13), fill=FAINT)


def _outlined_thumbnail(slide: IndexedSlide) -> Image.Image:
    """The slide in a frame, its tissue outlined.

    Raises:
        SlideError: The slide or its mask is gone or cannot be read.
    """
    width, height = _PICTURE_PX
    longest = min(width, height * slide.frame.size_um[0] / slide.frame.size_um[1])
    longest = max(longest, longest * slide.frame.size_um[1] / slide.frame.size_um[0])
    with slide.open() as opened:
        pixels = opened.thumbnail(int(longest) - 2).pixels
    frame = slide.frame.resized(pixels.shape[1], pixels.shape[0])
    pixels = pixels.copy()
    pixels[tissue_edge(slide.tissue(), frame)] = _OUTLINE
    image = Image.fromarray(np.ascontiguousarray(pixels))
    image.thumbnail((width - 2, height - 2))  # a slide smaller than its frame keeps its size
    return image


def _draw_reason(draw: ImageDraw.ImageDraw, reason: str, left: int, top: int, width: int) -> None:
    """The reason in as many lines as the frame holds, the last one cut short."""
    letters, line, lines = font(13), "", []
    for word in reason.split():
        longer = f"{line} {word}".strip()
        if line and draw.textlength(longer, font=letters) > width:
            lines.append(line)
            longer = word
        line = longer
    lines.append(line)
    most = (_PICTURE_PX[1] - 20) // 17
    if len(lines) > most:
        lines = [*lines[: most - 1], lines[most - 1] + " ..."]
    for number, text in enumerate(lines):
        draw.text((left, top + 17 * number), _elided(draw, text, width, 13, bold=False), font=letters, fill=INK)


def _elided(draw: ImageDraw.ImageDraw, text: str, width: int, size_px: int, bold: bool = True) -> str:
    """A text that fits, its middle left out: the ends of slide names are what tells them apart."""
    letters, kept = font(size_px, bold=bold), len(text)
    shown = text
    while draw.textlength(shown, font=letters) > width and kept > 2:
        kept -= 1
        shown = text[: (kept + 1) // 2] + "..." + text[len(text) - kept // 2 :]
    return shown
