"""Items scattered by the likeness of their features, coloured by label: t-SNE, or UMAP where it is installed.

Shapes: N items, D width of a feature.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from pydantic import Field
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from lamella.config import Settings
from lamella.errors import LamellaError, MissingExtraError
from lamella.view.maps import save_figure
from lamella.view.marks import FAINT, INK, LINE, PALETTE, colour, web

_LEAST_ITEMS = 10  # fewer are better read in a table
_COMPONENTS = 50  # t-SNE's usual first step (van der Maaten and Hinton 2008): noise goes, and time
_NEIGHBOURS_SHARE = 4  # a perplexity above a quarter of the items asks for neighbours that are not there
_SHAPES = ("o", "^", "s", "D", "v", "P")  # a second sign beside colour, from the eighth class on
_CAUTION = (
    "Only neighbourhoods mean something: distances between groups, their sizes and densities do not. "
    "Numbers are in the table of the evaluation."
)


class ScatterSettings(Settings):
    """How features are laid out in two dimensions."""

    name: Literal["tsne", "umap"] = "tsne"
    """tsne (scikit-learn) or umap (`pip install 'lamella[umap]'`)."""
    perplexity: Annotated[float, Field(gt=1)] = 30.0
    """Of t-SNE: about how many neighbours count; less for few items. UMAP takes it as its number of neighbours."""
    most_items: Annotated[int, Field(ge=_LEAST_ITEMS)] = 2000
    """Draw so many at most, chosen at random; t-SNE of more takes minutes, and dots hide each other."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the choice and of the layout."""


@dataclass(frozen=True)
class Places:
    """Where items lie.

    Attributes:
        rows: (M,) which of the items are shown.
        xy: (M, 2).
        method: How they were laid out, with its settings.
    """

    rows: np.ndarray
    xy: np.ndarray
    method: str


def lay_out(features: np.ndarray, settings: ScatterSettings) -> Places:
    """Two dimensions of standardised features, reduced to 50 components first.

    Args:
        features: (N, D) finite numbers.
        settings: Method, perplexity, seed.

    Raises:
        LamellaError: There are fewer than ten items, or all features are alike.
        MissingExtraError: UMAP is asked for and not installed.
    """
    features = np.asarray(features, np.float64)
    if len(features) < _LEAST_ITEMS:
        raise LamellaError(
            "the scatter of the features",
            f"{len(features)} items are too few, {_LEAST_ITEMS} are needed",
            "Embed more items.",
        )
    rows = np.sort(np.random.default_rng(settings.seed).permutation(len(features))[: settings.most_items])
    chosen = features[rows]
    spread = chosen.std(axis=0)
    if not (spread > 0).any():
        raise LamellaError("the scatter of the features", "all features are alike", "The encoder has collapsed.")
    scaled = (chosen - chosen.mean(axis=0)) / np.where(spread > 0, spread, 1)
    reduced = PCA(min(_COMPONENTS, *scaled.shape), svd_solver="full").fit_transform(scaled)
    near = min(settings.perplexity, len(rows) / _NEIGHBOURS_SHARE)
    if settings.name == "umap":
        xy, method = _umap(reduced, max(2, round(near)), settings.seed)
    else:
        xy = TSNE(2, perplexity=near, init="pca", random_state=settings.seed).fit_transform(reduced)
        method = f"t-SNE, perplexity {near:g}, seed {settings.seed}"
    return Places(rows, xy, method)


def draw_places(
    places: Places, labels: Sequence[str | None], path: Path, *, title: str, noun: str = "items", heading: str = "label"
) -> None:
    """Scatter items in the colours of their labels.

    Args:
        places: From `lay_out`.
        labels: (N,) of all items, None or empty where one has none.
        path: PNG to write.
        title: Above the figure.
        noun: What a dot is.
        heading: What the colours are, above the legend.
    """
    figure, axis = plt.subplots(figsize=(9.6, 6.6))
    shown = [labels[row] or "" for row in places.rows]
    _scatter(axis, places.xy, shown)
    axis.legend(
        title=heading, frameon=False, fontsize=9, title_fontsize=9, loc="center left", bbox_to_anchor=(1.01, 0.5),
        markerscale=1.5, alignment="left",
    )  # fmt: skip
    _bare(axis)
    drawn = f"{len(places.rows):,} {noun}"
    if len(places.rows) < len(labels):
        drawn = f"{len(places.rows):,} of {len(labels):,} {noun}, drawn at random"
    figure.suptitle(title, fontsize=13, fontweight="bold", x=0.02, ha="left", color=web(INK))
    figure.text(0.02, 0.925, f"{drawn}; {places.method}", fontsize=9.5, color=web(FAINT), va="top")
    figure.text(0.02, 0.015, _CAUTION, fontsize=8.5, color=web(FAINT))
    figure.tight_layout(rect=(0, 0.04, 1, 0.93))
    save_figure(figure, path)


def _scatter(axis: Axes, xy: np.ndarray, names: Sequence[str]) -> None:
    """Dots in random order, so that no class lies over the others; classes without a name last, in grey."""
    counts = Counter(names)
    classes = sorted(name for name in counts if name)
    order = np.random.default_rng(0).permutation(len(xy))
    size = float(np.clip(12_000 / len(xy), 9, 40))
    if counts[""]:
        here = np.array([name == "" for name in names])
        axis.scatter(*xy[here].T, s=size, color="#c3c8cd", linewidths=0, label=f"no label ({counts['']:,})")
    for number, name in enumerate(classes):
        rgb, shape = web(colour(number)), _SHAPES[number // len(PALETTE) % len(_SHAPES)]
        axis.scatter([], [], s=size, color=rgb, marker=shape, linewidths=0, label=f"{name} ({counts[name]:,})")
    shapes = {name: _SHAPES[number // len(PALETTE) % len(_SHAPES)] for number, name in enumerate(classes)}
    colours = {name: web(colour(number)) for number, name in enumerate(classes)}
    for shape in sorted(set(shapes.values())):
        rows = [row for row in order if names[row] and shapes[names[row]] == shape]
        axis.scatter(
            *xy[rows].T, s=size, c=[colours[names[row]] for row in rows], marker=shape, linewidths=0, alpha=0.85
        )  # fmt: skip


def _bare(axis: Axes) -> None:
    axis.set(xticks=[], yticks=[])
    for spine in axis.spines.values():
        spine.set_color(web(LINE))


def _umap(features: np.ndarray, neighbours: int, seed: int) -> tuple[np.ndarray, str]:
    try:
        import umap  # seconds: it compiles
    except ImportError:
        raise MissingExtraError("umap-learn", "umap") from None
    with warnings.catch_warnings():  # that one seed means one thread
        warnings.simplefilter("ignore")
        reducer: Any = umap.UMAP(n_neighbors=neighbours, random_state=seed)
        return reducer.fit_transform(features), f"UMAP, {neighbours} neighbours, seed {seed}"
