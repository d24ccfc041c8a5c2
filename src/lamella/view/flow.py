"""One training sample in five steps: slide, context, targets in the context, targets, the predictor's queries.

Everything is drawn from the sample itself, as the model gets it: turned and stained as in training. A target keeps
its colour through all panels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from lamella.data.sample import CrossSample
from lamella.formats.atomic import whole_file
from lamella.slides.index import IndexedSlide
from lamella.slides.slide import Region
from lamella.view.marks import ANCHOR, FAINT, INK, LINE, PAPER, Colour, colour, draw_scale_bar, font, length_text

PANEL_PX = 340
"""Side of a panel at scale 1."""
_MASKED = np.array((241, 243, 245))  # a token that the model does not get


@dataclass(frozen=True)
class Panel:
    """One step of the flow: a square picture with a title and a line of facts."""

    title: str
    facts: tuple[str, ...]
    image: Image.Image


def panels(sample: CrossSample, slide: IndexedSlide, thumbnail: Region, side_px: int) -> list[Panel]:
    """The five steps of a sample.

    Args:
        sample: What the model gets.
        slide: The sample's slide.
        thumbnail: The whole slide, as `Slide.thumbnail` gives it.
        side_px: Side of the square pictures.
    """
    return [
        _slide_panel(sample, slide, thumbnail, side_px),
        _context_panel(sample, side_px),
        _boxes_panel(sample, side_px),
        _targets_panel(sample, side_px),
        _queries_panel(sample, side_px),
    ]


def flow_image(steps: Sequence[Panel], heading: str, shown: int | None = None) -> Image.Image:
    """The steps side by side; those after the first `shown` are left empty."""
    side, count = steps[0].image.width, len(steps)
    unit = side / PANEL_PX
    gap, margin, head, foot = round(34 * unit), round(28 * unit), round(96 * unit), round(62 * unit)
    sheet = Image.new("RGB", (2 * margin + count * side + (count - 1) * gap, head + side + foot), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((margin, round(20 * unit)), heading, font=font(round(19 * unit), bold=True), fill=INK)
    for number, panel in enumerate(steps):
        left = margin + number * (side + gap)
        if shown is None or number < shown:
            _place(sheet, panel, number + 1, left, head, unit)
        else:
            draw.rectangle((left, head, left + side - 1, head + side - 1), outline=LINE, width=max(1, round(unit)))
        if number and (shown is None or number < shown):
            _arrow(draw, left - gap / 2, head + side / 2, unit)
    return sheet


def zoom_image(steps: Sequence[Panel], heading: str) -> Image.Image:
    """Steps 2 to 5 as two by two."""
    side = steps[0].image.width
    unit = side / PANEL_PX / 1.6  # larger pictures, letters of the same share of the screen
    gap, margin = round(28 * unit), round(28 * unit)
    head, cell = round(60 * unit), side + round(98 * unit)
    sheet = Image.new("RGB", (2 * margin + 2 * side + gap, head + 2 * cell), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((margin, round(20 * unit)), heading, font=font(round(19 * unit), bold=True), fill=INK)
    for number, panel in enumerate(steps[1:5]):
        row, column = divmod(number, 2)
        _place(sheet, panel, number + 2, margin + column * (side + gap), head + row * cell + round(36 * unit), unit)
    return sheet


def write_png(image: Image.Image, path: Path) -> None:
    """Write a picture, whole or not at all."""
    with whole_file(path) as part:
        image.save(part)


def write_gif(steps: Sequence[Panel], heading: str, path: Path) -> None:
    """The steps appearing one after the other; the last frame stays longest."""
    frames = [flow_image(steps, heading, shown) for shown in range(1, len(steps) + 1)]
    # One palette for all frames, taken from the last, which holds every colour: no flicker.
    palette = frames[-1].quantize(256, method=Image.Quantize.MEDIANCUT)
    frames = [frame.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG) for frame in frames]
    with whole_file(path) as part:
        durations_ms = [1100] * (len(frames) - 1) + [3500]  # time to read a panel, and all of it at the end
        frames[0].save(part, save_all=True, append_images=frames[1:], duration=durations_ms, loop=0, optimize=False)


# ---- the five panels ------------------------------------------------------------------------------------------------


def _slide_panel(sample: CrossSample, slide: IndexedSlide, thumbnail: Region, side: int) -> Panel:
    height, width = thumbnail.pixels.shape[:2]
    factor = side / max(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    small = Image.fromarray(thumbnail.pixels).resize(size, Image.Resampling.LANCZOS)
    square = Image.new("RGB", (side, side), PAPER)
    left, top = (side - size[0]) // 2, (side - size[1]) // 2
    square.paste(small, (left, top))
    frame = slide.frame.resized(*size)
    box = slide.frame.box_in(frame, sample.context_px0).shifted(left, top)
    draw = ImageDraw.Draw(square)
    line = max(2, side // 130)
    draw.rectangle((box.x0 - line, box.y0 - line, box.x1 + line, box.y1 + line), outline=PAPER, width=line)
    draw.rectangle((box.x0, box.y0, box.x1, box.y1), outline=ANCHOR, width=line)
    if box.width < side / 20:  # too small to be found: a ring leads the eye
        (x, y), reach = box.center, side / 14
        draw.ellipse((x - reach, y - reach, x + reach, y + reach), outline=ANCHOR, width=line)
    draw_scale_bar(square, frame.mpp_x, max(9, side // 26))
    width_um, height_um = slide.frame.size_um
    return Panel(
        "Slide with the anchor",
        (f"{length_text(width_um)} × {length_text(height_um)}", f"{slide.frame.mpp:.3g} µm/px at level 0"),
        square,
    )


def _context_panel(sample: CrossSample, side: int) -> Panel:
    image = _enlarged(sample.context, side)
    draw_scale_bar(image, sample.sampling.context_fov_um / side, max(9, side // 26))
    return Panel(
        "Context",
        (
            f"{length_text(sample.sampling.context_fov_um)}, {_spacing(sample.output_context_mpp, sample.context)}",
            f"read at {sample.source_context_mpp:.3g} µm/px{_turned(sample)}",
        ),
        image,
    )


def _boxes_panel(sample: CrossSample, side: int) -> Panel:
    image = _enlarged(sample.context, side)
    scale = side / sample.sampling.context_fov_um
    for number, box in enumerate(sample.boxes_um * scale):
        _outline(image, box, colour(number), max(2, side // 110), str(number + 1))
    draw_scale_bar(image, 1 / scale, max(9, side // 26))
    grid = sample.sampling.context_px // sample.sampling.patch_px
    return Panel(
        "Targets in the context",
        (
            f"{len(sample.boxes_um)} boxes of {length_text(sample.sampling.target_fov_um)}",
            f"{grid} × {grid} tokens of {length_text(sample.sampling.patch_um)}",
        ),
        image,
    )


def _targets_panel(sample: CrossSample, side: int) -> Panel:
    count = len(sample.targets)
    columns = math.ceil(math.sqrt(count))
    gap = max(4, side // 50)
    cell = (side - gap * (columns - 1)) // columns
    sheet = Image.new("RGB", (side, side), PAPER)
    rows = math.ceil(count / columns)
    top = (side - rows * cell - (rows - 1) * gap) // 2
    line = max(2, side // 110)
    for number, target in enumerate(sample.targets):
        image = _enlarged(target, cell)
        if number == 0:
            draw_scale_bar(image, sample.sampling.target_fov_um / cell, max(9, side // 30))
        _outline(image, np.array([0, 0, cell, cell]), colour(number), line, str(number + 1), corner="right")
        row, column = divmod(number, columns)
        sheet.paste(image, (column * (cell + gap), top + row * (cell + gap)))
    tokens = sample.targets.shape[1] // sample.sampling.patch_px
    return Panel(
        "Targets, finer",
        (
            f"{length_text(sample.sampling.target_fov_um)}, {_spacing(sample.output_target_mpp, sample.targets[0])}",
            f"read at {sample.source_target_mpp:.3g} µm/px, {tokens} × {tokens} tokens each",
        ),
        sheet,
    )


def _queries_panel(sample: CrossSample, side: int) -> Panel:
    """What the model gets of the context, and the places it must answer for."""
    tokens = sample.sampling.context_px // sample.sampling.patch_px
    token = side / tokens
    image = _masked_context(sample, side)
    draw = ImageDraw.Draw(image, "RGBA")
    for edge in (round(number * token) for number in range(1, tokens)):
        draw.line((edge, 0, edge, side), fill=(*PAPER, 110))
        draw.line((0, edge, side, edge), fill=(*PAPER, 110))
    per_side = sample.targets.shape[1] // sample.sampling.patch_px
    scale = side / sample.sampling.context_fov_um
    for number, (x0, y0, x1, y1) in enumerate(sample.boxes_um * scale):
        step = (x1 - x0) / per_side
        reach = max(1.0, min(0.3 * step, side / 75))
        for row, column in np.ndindex(per_side, per_side):
            x, y = x0 + (column + 0.5) * step, y0 + (row + 0.5) * step
            draw.ellipse((x - reach, y - reach, x + reach, y + reach), fill=(*colour(number), 255))
        draw.rectangle((x0, y0, x1, y1), outline=(*colour(number), 255), width=max(1, side // 220))
    kept, count = len(sample.footprint.keep), len(sample.targets)
    return Panel(
        "What the predictor is asked",
        (
            f"{kept} of {tokens**2} context tokens are given",
            f"{count} × {per_side**2} queries, {length_text(sample.sampling.target_fov_um / per_side)} apart",
        ),
        image,
    )


def _masked_context(sample: CrossSample, side: int) -> Image.Image:
    """The context without the tokens that are dropped: tinted where a target touches, grey where left out by choice."""
    tokens = sample.sampling.context_px // sample.sampling.patch_px
    fill = np.zeros((tokens**2, 3))
    fill[:] = _MASKED
    for number, touched in reversed(list(enumerate(sample.footprint.touched))):
        fill[touched] = 0.8 * _MASKED + 0.2 * np.array(colour(number))
    given = np.zeros(tokens**2, bool)
    given[sample.footprint.keep] = True
    place = (np.arange(side) * tokens) // side  # the token of each pixel row and column
    of_pixel = place[:, None] * tokens + place[None, :]
    pixels = np.asarray(_enlarged(sample.context, side))
    return Image.fromarray(np.where(given[of_pixel][..., None], pixels, fill[of_pixel]).astype(np.uint8))


# ---- small things ---------------------------------------------------------------------------------------------------


def _place(sheet: Image.Image, panel: Panel, number: int, left: int, top: int, unit: float) -> None:
    """Paste a panel with its numbered title above and its facts below."""
    draw = ImageDraw.Draw(sheet)
    title = f"{number}  {panel.title}"
    draw.text((left, top - round(28 * unit)), title, font=font(round(15 * unit), bold=True), fill=INK)
    sheet.paste(panel.image, (left, top))
    side = panel.image.width
    draw.rectangle((left - 1, top - 1, left + side, top + side), outline=LINE, width=1)
    for line, text in enumerate(panel.facts):
        draw.text((left, top + side + round((8 + 20 * line) * unit)), text, font=font(round(13 * unit)), fill=FAINT)


def _arrow(draw: ImageDraw.ImageDraw, x: float, y: float, unit: float) -> None:
    reach, line = 9 * unit, max(2, round(2 * unit))
    draw.line((x - reach, y, x + reach, y), fill=FAINT, width=line)
    draw.line(
        (x + reach - 5 * unit, y - 5 * unit, x + reach, y, x + reach - 5 * unit, y + 5 * unit), fill=FAINT, width=line
    )


def _outline(image: Image.Image, box: np.ndarray, rgb: Colour, line: int, label: str, corner: str = "left") -> None:
    """A coloured frame with its number on a plate of the same colour."""
    draw = ImageDraw.Draw(image)
    x0, y0, x1, y1 = (float(value) for value in box)
    draw.rectangle((x0, y0, x1 - 1, y1 - 1), outline=rgb, width=line)
    size = max(10, image.width // 22) if corner == "left" else max(10, image.width // 11)
    plate = 1.45 * size
    left = x0 if corner == "left" else x1 - plate
    draw.rectangle((left, y0, left + plate - 1, y0 + plate - 1), fill=rgb)
    draw.text((left + plate / 2, y0 + plate / 2), label, font=font(size, bold=True), fill=PAPER, anchor="mm")


def _enlarged(pixels: np.ndarray, side: int) -> Image.Image:
    """Bicubic: the pixels stay recognisable without blocks."""
    return Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC)


def _spacing(mpp: float, pixels: np.ndarray) -> str:
    return f"{pixels.shape[1]} px at {mpp:.3g} µm/px"


def _turned(sample: CrossSample) -> str:
    turn = sample.turn
    parts = (["mirrored"] if turn.mirror else []) + ([f"turned {90 * turn.quarters}°"] if turn.quarters else [])
    return f", {', '.join(parts)}" if parts else ""
