"""Maps of genes: tissue, truth, prediction and error beside each other, truth and prediction on one fixed range.

Shapes: N places (bins or spots), Y rows and X columns of a picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw
from scipy.spatial import KDTree

from lamella.view.marks import FAINT, INK, PAPER, draw_scale_bar, font
from lamella.view.panels import Cell, panel_px, sheet, write_sheet

_COLUMNS = ("tissue", "truth", "prediction", "prediction - truth")
_VALUES, _ERRORS = "viridis", "RdBu_r"  # both are told apart by colour-blind readers
_NOWHERE = (241, 243, 245)  # no place is judged there
_RANGE = (0.01, 0.99)  # quantiles of the truth: a few odd places leave the rest its colours
_BAR_PX, _LETTERS_PX = 10, 12
_TURNED = 1.03  # cos + sin of 1.7 degrees


@dataclass(frozen=True)
class Tissue:
    """The image under the places.

    Attributes:
        pixels: (Y, X, 3) uint8.
        corner_um: x and y of its upper left corner, on the scale of the places.
        um_per_px: Of its pixels.
    """

    pixels: np.ndarray
    corner_um: tuple[float, float]
    um_per_px: float


@dataclass(frozen=True)
class GeneMap:
    """One gene on one slide: (N,) truth and (N,) prediction, on the same scale, and what is said of it."""

    gene: str
    truth: np.ndarray
    predicted: np.ndarray
    said: str


def draw_gene_maps(
    maps: Sequence[GeneMap],
    places_um: np.ndarray,
    size_um: float,
    tissue: Tissue,
    path: Path,
    *,
    heading: str,
    facts: Sequence[str] = (),
    square: bool = False,
) -> None:
    """Write a page with a row for each gene.

    Args:
        maps: The genes.
        places_um: (N, 2) x and y of the centres.
        size_um: Side of a bin, or diameter of a spot. Places smaller than a pixel of the page are averaged.
        tissue: The image there.
        path: PNG to write, whole or not at all.
        heading: Of the page.
        facts: Sentences under it.
        square: The places are bins, not disks.
    """
    side_px = panel_px(len(_COLUMNS))
    height, width = tissue.pixels.shape[:2]
    scale = side_px / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    um_per_px = tissue.um_per_px * width / size[0]
    painter = Painter(places_um, size_um, tissue.corner_um, um_per_px, (size[1], size[0]), square=square)
    shown = Image.fromarray(tissue.pixels).resize(size, Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC)
    draw_scale_bar(shown, um_per_px, _LETTERS_PX)
    rows = [_row(gene, painter, shown) for gene in maps]
    page = sheet(
        heading, [*facts, _explained()], rows, columns=_COLUMNS, names=[f"{gene.gene}: {gene.said}" for gene in maps]
    )
    write_sheet(page, path)


class Painter:
    """From values of places to a raster over the tissue.

    Args:
        places_um: (N, 2) x and y of the centres.
        size_um: Side or diameter of a place.
        corner_um: Of the raster's upper left corner.
        um_per_px: Of the raster.
        shape: (Y, X) of the raster.
        square: The places are squares, drawn upright (chips lie within about a degree of the image).
    """

    def __init__(
        self,
        places_um: np.ndarray,
        size_um: float,
        corner_um: tuple[float, float],
        um_per_px: float,
        shape: tuple[int, int],
        *,
        square: bool = False,
    ) -> None:
        self._shape = shape
        if size_um < um_per_px:
            at = np.floor((np.asarray(places_um, np.float64) - corner_um) / um_per_px).astype(np.int64)
            inside = ((at >= 0) & (at < (shape[1], shape[0]))).all(1)
            self._places = np.flatnonzero(inside)
            self._pixels = at[inside, 1] * shape[1] + at[inside, 0]
            return
        y, x = np.indices(shape).reshape(2, -1)
        centres = np.stack([x + 0.5, y + 0.5], 1) * um_per_px + corner_um
        # A little more than half a side: a chip that is turned by a degree leaves no gaps between its bins.
        reach = size_um / 2 * (_TURNED if square else 1 + 1e-6)
        away, nearest = KDTree(places_um).query(centres, p=np.inf if square else 2, distance_upper_bound=reach)
        self._pixels = np.flatnonzero(np.isfinite(away))
        self._places = nearest[self._pixels]

    def paint(self, values_N: np.ndarray) -> np.ndarray:
        """(Y, X) float64: the mean of the places of a pixel, or the place that it lies in; NaN where there is none."""
        count = self._shape[0] * self._shape[1]
        values = np.asarray(values_N, np.float64)[self._places]
        many = np.bincount(self._pixels, minlength=count)
        total = np.bincount(self._pixels, values, minlength=count)
        return np.where(many > 0, total / np.maximum(many, 1), np.nan).reshape(self._shape)


def fixed_range(truth_N: np.ndarray) -> tuple[float, float]:
    """The range of colours of a gene: of its truth alone, so that a prediction without contrast looks like one."""
    low, high = (float(value) for value in np.quantile(truth_N, _RANGE))
    if high <= low:  # more than 98 % of the places are alike
        low, high = float(truth_N.min()), float(truth_N.max())
    return (low, high) if high > low else (low, low + 1)


def _row(gene: GeneMap, painter: Painter, tissue: Image.Image) -> list[Cell]:
    truth, predicted = painter.paint(gene.truth), painter.paint(gene.predicted)
    seen = truth[np.isfinite(truth)]
    low, high = fixed_range(seen if len(seen) else np.zeros(1))
    span = high - low
    return [
        Cell(tissue),
        Cell(coloured(truth, low, high, _VALUES), _ranged(gene.truth)),
        Cell(coloured(predicted, low, high, _VALUES), _ranged(gene.predicted)),
        Cell(coloured(predicted - truth, -span, span, _ERRORS), _ranged(gene.predicted - gene.truth)),
    ]


def coloured(values_YX: np.ndarray, low: float, high: float, colours: str) -> Image.Image:
    """An RGB picture of values with a bar of its range below; grey where a value is NaN."""
    share = np.clip((values_YX - low) / (high - low), 0, 1)
    table = matplotlib.colormaps[colours]
    pixels = (np.asarray(table(np.nan_to_num(share)))[..., :3] * 255).round().astype(np.uint8)
    pixels[~np.isfinite(values_YX)] = _NOWHERE
    height, width = values_YX.shape
    picture = Image.new("RGB", (width, height + 2 * _BAR_PX + _LETTERS_PX), PAPER)
    picture.paste(Image.fromarray(pixels), (0, 0))
    bar = (np.asarray(table(np.linspace(0, 1, max(1, width - 2 * _BAR_PX))))[None, :, :3] * 255).astype(np.uint8)
    picture.paste(Image.fromarray(np.repeat(bar, _BAR_PX // 2, 0)), (_BAR_PX, height + _BAR_PX // 2))
    draw, letters, top = ImageDraw.Draw(picture), font(_LETTERS_PX), height + _BAR_PX
    draw.text((_BAR_PX, top), f"{low:.3g}", font=letters, fill=INK)
    draw.text((width - _BAR_PX, top), f"{high:.3g}", font=letters, fill=INK, anchor="ra")
    if low < 0 < high:
        draw.text((width * -low / (high - low), top), "0", font=letters, fill=FAINT, anchor="ma")
    return picture


def _ranged(values: np.ndarray) -> str:
    return f"{float(values.min()):.3g} to {float(values.max()):.3g}, mean {float(values.mean()):.3g}"


def _explained() -> str:
    low, high = (f"{share:.0%}" for share in _RANGE)
    return (
        f"Truth and prediction share one range of colours: {low} to {high} of the truth as it is drawn; values beyond "
        "have the last colour. Grey: no judged place."
    )
