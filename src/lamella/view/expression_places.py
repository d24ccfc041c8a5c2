"""Bins or spots on their slide, and how many transcripts each has: a look before anything is learned."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw

from lamella.data.expression import ExpressionSlide
from lamella.data.expression_targets import totals
from lamella.data.judged_places import captured_box
from lamella.formats.atomic import whole_file
from lamella.formats.spatial_counts import SpatialCounts
from lamella.geometry import Frame
from lamella.slides.slide import open_slide
from lamella.slides.tissue_map import TissueMap
from lamella.view.marks import ANCHOR, FAINT, INK, LINE, PAPER, draw_scale_bar, font
from lamella.view.overlay import tissue_edge

_THUMBNAIL_PX = 1000  # two stand side by side
_EDGE = (0, 90, 70)
_MARGIN, _HEAD, _LINE_PX = 24, 92, 24
_MAP = "viridis"
_GAP = 16


def draw_places(
    slide: ExpressionSlide, counts: SpatialCounts, tissue: TissueMap, title: str, facts: str, path: Path | str
) -> None:
    """Draw the slide twice: with its tissue's outline and the places, and with the total counts.

    Of bins the outline of the chip is drawn, with a dot at row 0, column 0 and a line along the first row, so that a
    mirrored or turned chip shows.

    Args:
        slide: Whose image.
        counts: Its expression, all genes.
        tissue: Of the image.
        title: Bold, above.
        facts: Below it.
        path: PNG to write, whole or not at all.

    Raises:
        SlideError: The slide cannot be read.
        StorageError: The disk refused the write.
    """
    with open_slide(slide.wsi_path, mpp=slide.mpp_stated) as opened:
        pixels = opened.thumbnail(_THUMBNAIL_PX).pixels
    frame = slide.frame.resized(pixels.shape[1], pixels.shape[0])
    left = _outlined(pixels, tissue, frame)
    draw = ImageDraw.Draw(left, "RGBA")
    if counts.grid is not None and counts.array_rc is not None:
        _draw_chip(draw, counts, slide.frame, frame)
    else:
        _draw_disks(draw, counts, slide.frame, frame)
    draw_scale_bar(left, frame.mpp_x, 14)
    right, words = _counted(pixels, counts, slide.frame, frame)
    with whole_file(path) as part:
        _sheet(left, right, title, facts, words).save(part)


def _outlined(pixels: np.ndarray, tissue: TissueMap, frame: Frame) -> Image.Image:
    shown = pixels.copy()
    edge = tissue_edge(tissue, frame)
    wide = edge.copy()
    wide[1:] |= edge[:-1]
    wide[:, 1:] |= edge[:, :-1]
    shown[wide] = _EDGE
    return Image.fromarray(shown)


def _draw_chip(draw: ImageDraw.ImageDraw, counts: SpatialCounts, slide: Frame, frame: Frame) -> None:
    assert counts.grid is not None
    row0, col0, row1, col1 = captured_box(counts)
    rows, columns = np.array([row0, row0, row1, row1]) - 0.5, np.array([col0, col1, col1, col0]) - 0.5
    x_px0, y_px0 = counts.grid.place_px0(rows, columns)
    corners = [slide.point_in(frame, x, y) for x, y in zip(x_px0, y_px0, strict=True)]
    draw.line([*corners, corners[0]], fill=(*ANCHOR, 255), width=2)
    draw.line(corners[:2], fill=(213, 94, 0, 255), width=4)
    x, y = corners[0]
    draw.ellipse((x - 7, y - 7, x + 7, y + 7), fill=(213, 94, 0, 255))


def _draw_disks(draw: ImageDraw.ImageDraw, counts: SpatialCounts, slide: Frame, frame: Frame) -> None:
    wide, high = counts.size_um / frame.mpp_x / 2, counts.size_um / frame.mpp_y / 2
    for x_px0, y_px0 in counts.places_px0:
        x, y = slide.point_in(frame, x_px0, y_px0)
        draw.ellipse((x - wide, y - high, x + wide, y + high), outline=(*ANCHOR, 255))


def _counted(pixels: np.ndarray, counts: SpatialCounts, slide: Frame, frame: Frame) -> tuple[Image.Image, str]:
    """The places in the colours of ln(1 + total) on a pale slide, and what the colours mean."""
    height, width = pixels.shape[:2]
    total = totals(counts)
    logged = np.log1p(np.maximum(total, 0))
    pale = (pixels.astype(np.float32) * 0.25 + 255 * 0.75).astype(np.uint8)
    if counts.shape == "bin":
        wider = counts.size_um > max(frame.mpp_x, frame.mpp_y)
        show = _looked_up if wider and counts.grid is not None else _binned
        mean, seen = show(counts, logged, slide, (height, width))
        low, high = _limits(mean[seen])
        pale[seen] = _coloured(mean[seen], low, high)
        image = Image.fromarray(pale)
    else:
        image = Image.fromarray(pale)
        draw = ImageDraw.Draw(image)
        low, high = _limits(logged)
        wide, tall = counts.size_um / frame.mpp_x / 2, counts.size_um / frame.mpp_y / 2
        for (x_px0, y_px0), colour in zip(counts.places_px0, _coloured(logged, low, high), strict=True):
            x, y = slide.point_in(frame, x_px0, y_px0)
            draw.ellipse((x - wide, y - tall, x + wide, y + tall), fill=tuple(int(part) for part in colour))
    what = "ln(1 + total) of the bins" if counts.shape == "bin" else "ln(1 + total) of each spot"
    return image, f"{what}: {low:.2f} (violet) to {high:.2f} (yellow)"


def _looked_up(
    counts: SpatialCounts, values: np.ndarray, slide: Frame, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """(H, W) value of the bin that each pixel's centre lies in, and where there is one: bins larger than pixels."""
    assert counts.grid is not None
    assert counts.array_rc is not None
    row0, col0, row1, col1 = captured_box(counts)
    chip = np.full((row1 - row0, col1 - col0), np.nan)
    chip[counts.array_rc[:, 0] - row0, counts.array_rc[:, 1] - col0] = values
    height, width = shape
    y_px0 = (np.arange(height)[:, None] + 0.5) * slide.height_px / height
    x_px0 = (np.arange(width)[None, :] + 0.5) * slide.width_px / width
    row, col = (np.rint(each).astype(np.int64) for each in counts.grid.bin_at(x_px0, y_px0))
    inside = (row >= row0) & (row < row1) & (col >= col0) & (col < col1)
    shown = np.full(shape, np.nan)
    shown[inside] = chip[row[inside] - row0, col[inside] - col0]
    return shown, np.isfinite(shown)


def _binned(
    counts: SpatialCounts, values: np.ndarray, slide: Frame, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """(H, W) mean of the values of the places in each pixel, and where there is any: bins smaller than pixels."""
    places_px0 = counts.places_px0
    height, width = shape
    column = (places_px0[:, 0] * width / slide.width_px).astype(np.int64)
    row = (places_px0[:, 1] * height / slide.height_px).astype(np.int64)
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    flat = row[inside] * width + column[inside]
    count = np.bincount(flat, minlength=height * width).reshape(shape)
    mean = np.bincount(flat, values[inside], height * width).reshape(shape) / np.maximum(count, 1)
    return mean, count > 0


def _limits(values: np.ndarray) -> tuple[float, float]:
    """The 2nd and 98th percentile: single places do not set the scale."""
    low, high = np.percentile(values, [2, 98]) if len(values) else (0.0, 1.0)
    return float(low), float(high if high > low else low + 1)


def _coloured(values: np.ndarray, low: float, high: float) -> np.ndarray:
    shade = np.clip((values - low) / (high - low), 0, 1)
    return (matplotlib.colormaps[_MAP](shade)[..., :3] * 255).astype(np.uint8)


def _sheet(left: Image.Image, right: Image.Image, title: str, facts: str, words: str) -> Image.Image:
    """Both pictures on white, with the title and two lines of facts above."""
    probe = ImageDraw.Draw(left)
    name, small = font(20, bold=True), font(15)
    texts = ((title, name), (facts, small), (words, small))
    needed = max(round(probe.textlength(text, font=letters)) for text, letters in texts)
    width = max(left.width + right.width + _GAP, needed)
    sheet = Image.new("RGB", (width + 2 * _MARGIN, left.height + _HEAD + _MARGIN), PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, (text, letters) in enumerate(texts):
        draw.text(
            (_MARGIN, 12 + number * _LINE_PX + 4 * bool(number)), text, font=letters, fill=FAINT if number else INK
        )
    for image, x in ((left, _MARGIN), (right, _MARGIN + left.width + _GAP)):
        sheet.paste(image, (x, _HEAD))
        draw.rectangle((x - 1, _HEAD - 1, x + image.width, _HEAD + image.height), outline=LINE)
    return sheet
