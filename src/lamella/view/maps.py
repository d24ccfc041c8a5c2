"""What features look like: principal components as colours over a slide, and tiles scattered by likeness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageDraw
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from lamella.formats.atomic import whole_file
from lamella.geometry import Box
from lamella.slides.index import IndexedSlide
from lamella.slides.resample import resample_mask
from lamella.view.marks import INK, LINE, PAPER, colour, draw_scale_bar, font, web

_PANEL_PX = 620  # two or three panels fit a page's width
_MOST_POINTS = 1200  # t-SNE of more takes minutes, and dots begin to hide each other


@dataclass(frozen=True)
class TileFeatures:
    """The features of one slide's tiles."""

    slide: IndexedSlide
    coords_px0: np.ndarray
    """(N, 2) top-left corners in level-0 pixels."""
    side_px0: float
    """Side of a tile in level-0 pixels."""
    features: np.ndarray
    """(N, D) float."""


def pca_colours(features: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Colours from the first three principal components, the same mapping for all slides.

    Each dimension is standardised first, so that no single one decides; each component is stretched between its 2nd and
    98th percentile, so that a few odd tiles do not grey out the rest.

    Args:
        features: (N_i, D) of each slide; three tiles in all at least.

    Returns:
        (N_i, 3) float in 0..1 of each slide.
    """
    stacked = np.concatenate([np.asarray(part, np.float64) for part in features])
    centred = stacked - stacked.mean(axis=0)
    spread = centred.std(axis=0)
    scores = PCA(3, svd_solver="full").fit_transform(centred / np.where(spread > 0, spread, 1))
    return np.split(stretched(scores), np.cumsum([len(part) for part in features])[:-1])


def stretched(scores: np.ndarray) -> np.ndarray:
    """(N, K) scores to 0..1, each column from its 2nd to its 98th percentile, so that a few odd rows grey out none."""
    low, high = np.percentile(scores, (2, 98), axis=0)
    return np.clip((scores - low) / np.where(high > low, high - low, 1), 0, 1)


def draw_feature_map(
    tiles: TileFeatures,
    colours: np.ndarray,
    path: Path,
    *,
    classes: tuple[np.ndarray, Mapping[str, int]] | None = None,
) -> None:
    """Draw the slide, the tiles in the colours of their features and, where known, the true classes, side by side.

    Args:
        tiles: Where the tiles are.
        colours: (N, 3) float in 0..1.
        path: PNG to write.
        classes: A label mask over the whole slide (H, W), and class name -> value.

    Raises:
        SlideError: The slide cannot be read.
    """
    slide = tiles.slide
    with slide.open() as opened:
        pixels = opened.thumbnail(_PANEL_PX).pixels
    frame = slide.frame.resized(pixels.shape[1], pixels.shape[0])
    thumbnail = Image.fromarray(pixels)
    draw_scale_bar(thumbnail, frame.mpp_x, 13)
    panels = [(slide.slide_id, thumbnail)]
    faded = Image.fromarray((255 - (255 - pixels.astype(np.float32)) * 0.18).astype(np.uint8))
    draw = ImageDraw.Draw(faded)
    for (x, y), rgb in zip(tiles.coords_px0, colours, strict=True):
        box = slide.frame.box_in(frame, Box(x, y, x + tiles.side_px0, y + tiles.side_px0))
        fill = tuple(int(value) for value in rgb * 255)
        draw.rectangle((round(box.x0), round(box.y0), round(box.x1) - 1, round(box.y1) - 1), fill=fill)
    panels.append(("first three components of the features", faded))
    if classes is not None:
        panels.append(("true classes", _class_panel(classes, pixels.shape[1], pixels.shape[0])))
    with whole_file(path) as part:
        _side_by_side(panels).save(part)


def draw_scatter(
    features: np.ndarray, groupings: Mapping[str, Sequence[str]], path: Path, *, title: str, seed: int = 0
) -> None:
    """Scatter tiles by likeness, once for each way of colouring them.

    Args:
        features: (N, D) float; at most 1,200 rows are drawn, at random.
        groupings: Heading -> (N,) the group of each tile, such as its tissue class or its scanner.
        path: PNG to write.
        title: Above the figure.
        seed: Of the draw and of t-SNE.
    """
    rows = np.sort(np.random.default_rng(seed).permutation(len(features))[:_MOST_POINTS])
    places, method = _places(np.asarray(features, np.float64)[rows], seed)
    figure, axes = plt.subplots(1, len(groupings), figsize=(5.2 * len(groupings), 5.4), squeeze=False)
    for axis, (heading, groups) in zip(axes[0], groupings.items(), strict=True):
        names = np.asarray(groups)[rows]
        for number, name in enumerate(sorted(set(groups))):
            here = names == name
            axis.scatter(*places[here].T, s=11, color=web(colour(number)), label=name, linewidths=0, alpha=0.85)
        axis.set_title(f"by {heading}", fontsize=11, color=web(INK), loc="left")
        axis.legend(
            frameon=False, fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.01), ncols=4, markerscale=1.6
        )
        axis.set(xticks=[], yticks=[])
        for spine in axis.spines.values():
            spine.set_color(web(LINE))
    figure.suptitle(f"{title}: {len(rows):,} tiles, {method}", fontsize=12, fontweight="bold", x=0.02, ha="left")
    figure.tight_layout()
    save_figure(figure, path)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, whole or not at all, and let go of it."""
    with whole_file(path) as part:
        figure.savefig(part, dpi=140, facecolor="white", metadata={"Software": None})
    plt.close(figure)


def _places(features: np.ndarray, seed: int) -> tuple[np.ndarray, str]:
    """(N, 2) places of standardised features, and how: t-SNE, or for few tiles their first two components."""
    spread = features.std(axis=0)
    scaled = (features - features.mean(axis=0)) / np.where(spread > 0, spread, 1)
    reduced = PCA(min(30, *scaled.shape), svd_solver="full").fit_transform(scaled)  # 30: t-SNE's usual first step
    if len(features) < 20:
        return reduced[:, :2], "first two components"
    perplexity = min(30.0, len(features) / 4)
    return TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(reduced), "t-SNE"


def _class_panel(classes: tuple[np.ndarray, Mapping[str, int]], width_px: int, height_px: int) -> Image.Image:
    mask, names = classes
    whole = Box(0, 0, mask.shape[1], mask.shape[0])
    labels = resample_mask(mask, whole, width_px, height_px)
    pixels = np.full((height_px, width_px, 3), 255, np.uint8)
    for number, name in enumerate(sorted(names)):
        pixels[labels == names[name]] = colour(number)
    image = Image.fromarray(pixels)
    draw, letters = ImageDraw.Draw(image), font(13)
    for number, name in enumerate(sorted(names)):
        top = height_px - 22 * (len(names) - number)
        draw.rectangle((10, top, 22, top + 12), fill=colour(number))
        draw.text((28, top - 2), name, font=letters, fill=INK)
    return image


def _side_by_side(panels: Sequence[tuple[str, Image.Image]]) -> Image.Image:
    gap, head, letters = 20, 34, font(15, bold=True)
    width = sum(image.width for _, image in panels) + gap * (len(panels) + 1)
    height = max(image.height for _, image in panels) + head + gap
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    left = gap
    for text, image in panels:
        draw.text((left, 9), _fitting(draw, text, image.width), font=letters, fill=INK)
        sheet.paste(image, (left, head))
        draw.rectangle((left - 1, head - 1, left + image.width, head + image.height), outline=LINE)
        left += image.width + gap
    return sheet


def _fitting(draw: ImageDraw.ImageDraw, text: str, width_px: int) -> str:
    letters = font(15, bold=True)
    while len(text) > 4 and draw.textlength(text, font=letters) > width_px:
        text = text.removesuffix("…")[:-1] + "…"
    return text
