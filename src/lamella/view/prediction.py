"""A slide's prediction beside the slide: classes in colour over the tissue, what each covers, a scale bar."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from lamella.formats.atomic import whole_file
from lamella.formats.label_values import NOT_LABELLED
from lamella.formats.ome_zarr import StoredRaster, open_raster
from lamella.geometry import Frame, choose_level
from lamella.slides.slide import Slide
from lamella.view.class_colours import class_colours, class_table
from lamella.view.marks import FAINT, INK, LINE, PAPER, Colour, draw_scale_bar, font

_PANEL_PX = 1000  # two of them fill a wide screen
_OPACITY = 0.45  # nuclei stay visible under the class; its edge is drawn full
_UNSEEN_STRENGTH = 0.35
_MARGIN_PX, _HEAD_PX, _ROW_PX = 24, 52, 30


def draw_prediction(
    slide: Slide,
    labels: Path | str,
    path: Path | str,
    *,
    title: str,
    background: str | None = "background",
    areas_mm2: Mapping[str, float] | None = None,
) -> None:
    """Draw a slide and its label map side by side.

    Args:
        slide: Open.
        labels: Folder of the finished label raster over it.
        path: PNG to write, whole or not at all.
        title: The slide's name, and whose prediction it is.
        background: The class that is left bare.
        areas_mm2: Of the classes, if they are known; counted otherwise.

    Raises:
        SlideError: The slide cannot be read.
        LamellaError: The raster is unfinished or damaged.
        StorageError: The disk refused the write.
    """
    raster = open_raster(labels)
    pixels = slide.thumbnail(_PANEL_PX).pixels
    frame = slide.frame.resized(pixels.shape[1], pixels.shape[0])
    values = labels_on(raster, frame)
    counts = counted_mm2(raster) if areas_mm2 is None else dict(areas_mm2)
    left = Image.fromarray(pixels)
    draw_scale_bar(left, frame.mpp_x, 16)
    right = Image.fromarray(painted_classes(pixels, values, raster.names, background))
    with whole_file(path) as part:
        _sheet(left, right, title, _legend(raster, counts, background)).save(part)


def labels_on(raster: StoredRaster, frame: Frame) -> np.ndarray:
    """(H, W) uint8: the label at the centre of each pixel of a coarser frame over the same slide.

    The level read is the coarsest that is not coarser than the frame: memory is bounded by the frame.
    """
    mpps = [raster.level_frame(level).mpp for level in range(len(raster.levels))]
    level = choose_level(mpps, frame.mpp).level
    source = np.asarray(raster.levels[level][:])
    there = raster.level_frame(level)
    x, y = frame.point_in(there, *(np.arange(size) + 0.5 for size in (frame.width_px, frame.height_px)))  # type: ignore[arg-type]
    columns, rows = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)  # type: ignore[call-overload]
    # The slide may reach a fraction of a pixel beyond the raster.
    return source[rows.clip(0, there.height_px - 1)[:, None], columns.clip(0, there.width_px - 1)]


def painted_classes(
    pixels: np.ndarray, values: np.ndarray, classes: tuple[str, ...], background: str | None
) -> np.ndarray:
    """(H, W, 3) uint8: classes, their edges at full strength, over a picture in grey, which does not tint them.

    The background keeps the picture's colours; what was not looked at is pale.
    """
    colours, shown = class_table(classes, background)
    painted = shown[values]
    below = np.where(painted[..., None], pixels.mean(axis=2, keepdims=True), pixels.astype(np.float64))
    unseen = (values == NOT_LABELLED)[..., None]
    below = np.where(unseen, 255 - (255 - below) * _UNSEEN_STRENGTH, below)
    opacity = np.where(painted, np.where(_edges(values), 1.0, _OPACITY), 0.0)[..., None]
    return (below * (1 - opacity) + colours[values] * opacity + 0.5).astype(np.uint8)


def counted_mm2(raster: StoredRaster) -> dict[str, float]:
    """The area of each class, a band in memory at a time."""
    pixels = np.zeros(256, np.int64)
    for _, band in raster.bands():
        for row in band:
            pixels += np.bincount(row, minlength=256)
    pixel_mm2 = raster.frame.mpp_x * raster.frame.mpp_y / 1e6
    return {name: float(pixels[value]) * pixel_mm2 for value, name in enumerate(raster.names)}


def _edges(values: np.ndarray) -> np.ndarray:
    """(H, W) bool: pixels beside another label to the right or below, or to the left or above."""
    edge = np.zeros(values.shape, bool)
    across, down = values[:, 1:] != values[:, :-1], values[1:] != values[:-1]
    edge[:, 1:] |= across
    edge[:, :-1] |= across
    edge[1:] |= down
    edge[:-1] |= down
    return edge & (values != NOT_LABELLED)


def _legend(
    raster: StoredRaster, areas_mm2: Mapping[str, float], background: str | None
) -> list[tuple[Colour, bool, str]]:
    """Colour, whether it is painted, and text of each class."""
    seen = sum(areas_mm2.get(name, 0.0) for name in raster.names)
    entries = []
    for name, colour in class_colours(raster.names, background).items():
        area = areas_mm2.get(name, 0.0)
        share = 100 * area / seen if seen else 0.0
        bare = " (bare)" if name == background else ""
        entries.append((colour, name != background, f"{name}{bare}  {area:.3g} mm², {share:.1f} %"))
    width_um, height_um = raster.frame.size_um
    unseen = width_um * height_um / 1e6 - seen
    if unseen > 0:
        entries.append((PAPER, False, f"pale: not looked at  {unseen:.3g} mm²"))
    return entries


def _sheet(left: Image.Image, right: Image.Image, title: str, legend: list[tuple[Colour, bool, str]]) -> Image.Image:
    letters, head = font(16), font(20, bold=True)
    wide = left.width + right.width + 3 * _MARGIN_PX
    entry_px = max(round(letters.getlength(text)) for *_, text in legend) + 52
    columns = max(1, (wide - 2 * _MARGIN_PX) // entry_px)
    rows = -(-len(legend) // columns)
    width = max(wide, entry_px + 2 * _MARGIN_PX)
    sheet = Image.new("RGB", (width, _HEAD_PX + left.height + _MARGIN_PX // 2 + rows * _ROW_PX + _MARGIN_PX), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((_MARGIN_PX, 14), _fitting(title, head, width - 2 * _MARGIN_PX), font=head, fill=INK)
    for image, x in ((left, _MARGIN_PX), (right, left.width + 2 * _MARGIN_PX)):
        sheet.paste(image, (x, _HEAD_PX))
        draw.rectangle((x - 1, _HEAD_PX - 1, x + image.width, _HEAD_PX + image.height), outline=LINE)
    top = _HEAD_PX + left.height + _MARGIN_PX // 2
    for number, (colour, filled, text) in enumerate(legend):
        x, y = _MARGIN_PX + number % columns * entry_px, top + number // columns * _ROW_PX
        draw.rectangle(
            (x, y + 6, x + 18, y + 24), fill=colour if filled else PAPER, outline=colour if filled else FAINT
        )
        draw.text((x + 28, y + 5), text, font=letters, fill=INK)
    return sheet


def _fitting(text: str, letters: object, width_px: int) -> str:
    while len(text) > 4 and letters.getlength(text) > width_px:  # type: ignore[attr-defined]
        text = text.removesuffix("…")[:-1] + "…"
    return text
