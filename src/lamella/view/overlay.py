"""Anchors on their slide, for a look at what will be learned from before any training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from lamella.formats.atomic import whole_file
from lamella.geometry import Box, Frame
from lamella.slides.anchors.sampling import CrossSampling
from lamella.slides.index import IndexedSlide
from lamella.slides.resample import resample_mask
from lamella.slides.tissue_map import TissueMap
from lamella.view.marks import ANCHOR, FAINT, INK, LINE, PAPER, draw_scale_bar, font, length_text

_THUMBNAIL_PX = 1400  # a screen's width; more would only enlarge the files of a thousand slides
_OUTLINE = (0, 90, 70)
_HALO = (255, 255, 255)
_MOST_BOXES = 20_000  # beyond this, a box is smaller than its line; centres are drawn alone


def draw_anchor_overlay(
    slide: IndexedSlide, anchors_xy_px0: np.ndarray, sampling: CrossSampling, path: Path | str
) -> None:
    """Draw the contexts of a slide's anchors and the outline of its tissue on the slide's thumbnail.

    Where contexts overlap, their tints add up: darker blue was asked for more often.

    Args:
        slide: The slide.
        anchors_xy_px0: (N, 2) float centres in level-0 pixels; N may be 0.
        sampling: The profile, for the size of a context.
        path: PNG to write, whole or not at all.

    Raises:
        SlideError: The slide or its mask cannot be read.
        StorageError: The disk refused the write.
    """
    anchors_xy_px0 = np.asarray(anchors_xy_px0, np.float64).reshape(-1, 2)
    with slide.open() as opened:
        pixels = opened.thumbnail(_THUMBNAIL_PX).pixels
    frame = slide.frame.resized(pixels.shape[1], pixels.shape[0])
    side_um = sampling.context_fov_um
    boxes_px = [
        frame.box_px(Box.around(x * slide.frame.mpp_x, y * slide.frame.mpp_y, side_um)) for x, y in anchors_xy_px0
    ]
    pixels = _tinted(pixels, boxes_px)
    image = Image.fromarray(_outlined(pixels, slide.tissue(), frame))
    _draw_boxes(image, boxes_px)
    draw_scale_bar(image, frame.mpp_x, 16)
    title = f"{slide.slide_id}: {len(boxes_px):,} anchors"
    facts = f"contexts of {length_text(side_um)} at {sampling.context_mpp:g} µm/px"
    with whole_file(path) as part:
        _with_title(image, title, facts).save(part)


def tissue_edge(tissue: TissueMap, frame: Frame) -> np.ndarray:
    """(H, W) bool: the pixels of a raster over the slide where tissue meets no tissue."""
    whole = tissue.frame.bounds_px
    mask = resample_mask(tissue.mask, whole, frame.width_px, frame.height_px).astype(bool)
    padded = np.pad(mask, 1)  # tissue that reaches the slide's edge ends there
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~inner


def _outlined(pixels: np.ndarray, tissue: TissueMap, frame: Frame) -> np.ndarray:
    """A two-pixel line around the tissue with a pale halo, so that it shows on dark and on pale tissue."""
    edge = tissue_edge(tissue, frame)
    line, halo = _grown(edge, 1), _grown(edge, 2)
    outlined = pixels.copy()
    outlined[halo] = (0.4 * outlined[halo] + 0.6 * np.array(_HALO)).astype(np.uint8)
    outlined[line] = _OUTLINE
    return outlined


def _grown(mask: np.ndarray, by_px: int) -> np.ndarray:
    padded = np.pad(mask, by_px)
    height, width = mask.shape
    shifts = range(2 * by_px + 1)
    return np.logical_or.reduce([padded[y : y + height, x : x + width] for y in shifts for x in shifts])


def _tinted(pixels: np.ndarray, boxes_px: list[Box]) -> np.ndarray:
    """Blue over every context; the sum of differences counts how many lie over a pixel in one pass."""
    height, width = pixels.shape[:2]
    steps = np.zeros((height + 1, width + 1), np.int32)
    for box in boxes_px:
        x0, x1 = (int(np.clip(round(x), 0, width)) for x in (box.x0, box.x1))
        y0, y1 = (int(np.clip(round(y), 0, height)) for y in (box.y0, box.y1))
        steps[y0, x0] += 1
        steps[y1, x1] += 1
        steps[y0, x1] -= 1
        steps[y1, x0] -= 1
    count = steps.cumsum(0).cumsum(1)[:height, :width, None]
    strength = 1 - 0.95 ** np.minimum(count, 4)  # 5 % each, a fifth at most: the tissue keeps its look
    return (pixels * (1 - strength) + np.array(ANCHOR) * strength + 0.5).astype(np.uint8)


def _draw_boxes(image: Image.Image, boxes_px: list[Box]) -> None:
    draw = ImageDraw.Draw(image, "RGBA")
    if len(boxes_px) <= _MOST_BOXES:
        for box in boxes_px:
            draw.rectangle((box.x0, box.y0, box.x1 - 1, box.y1 - 1), outline=(*ANCHOR, 70))
    for box in boxes_px:
        x, y = box.center
        draw.ellipse((x - 1.5, y - 1.5, x + 1.5, y + 1.5), fill=(*ANCHOR, 255))


def _with_title(image: Image.Image, title: str, facts: str) -> Image.Image:
    """A white margin with the slide's name above; long names push the facts to a second line."""
    margin, head = 24, 56
    draw = ImageDraw.Draw(image)
    name, small = font(20, bold=True), font(16)
    title_px, facts_px = draw.textlength(title, font=name), draw.textlength(facts, font=small)
    two_lines = title_px + facts_px + 24 > image.width
    head += 24 * two_lines
    width = max(image.width, round(max(title_px, facts_px)))
    sheet = Image.new("RGB", (width + 2 * margin, image.height + head + margin), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((margin, 17), title, font=name, fill=INK)
    facts_xy = (margin, 46) if two_lines else (margin + title_px + 24, 20)
    draw.text(facts_xy, facts, font=small, fill=FAINT)
    sheet.paste(image, (margin, head))
    draw.rectangle((margin - 1, head - 1, margin + image.width, head + image.height), outline=LINE)
    return sheet
