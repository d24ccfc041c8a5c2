"""What an encoder tells apart inside images: the first three principal components of patch tokens as red, green, blue.

Shapes: N tokens of one image (of a grid of any number of axes), D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from skimage.filters import threshold_otsu

from lamella.errors import LamellaError
from lamella.view.maps import stretched

_LEAST_TOKENS = 4  # three components of fewer points are not directions of anything


@dataclass(frozen=True)
class PatchColours:
    """Colours of the tokens of several images, by one mapping.

    Attributes:
        colours: Of each image, (*grid, 3) float in 0..1.
        foreground: Of each image, (*grid) bool; all True unless the foreground was asked for.
        explained: Share of the variance that each of the three components holds.
        by_place: Share of the variance that is the same at a place in all images: what position alone explains. None
            for one image, or images of several sizes.
    """

    colours: tuple[np.ndarray, ...]
    foreground: tuple[np.ndarray, ...]
    explained: tuple[float, float, float]
    by_place: float | None

    @property
    def text(self) -> str:
        """What must be known to read the colours."""
        parts = ", ".join(f"{share:.0%}" for share in self.explained)
        text = f"red, green and blue are components 1 to 3 of all tokens shown together: {parts} of their variance"
        if self.by_place is not None:
            text += f"; {self.by_place:.0%} of the variance is the place of a token alone, whatever the image"
        return text


def patch_colours(tokens: Sequence[np.ndarray], *, foreground: bool = False) -> PatchColours:
    """Colour patch tokens by their first three principal components over all images together.

    The features are centred and not rescaled. The sign of a component makes its largest loading positive, so that the
    same model gives the same colours again. Each component is stretched between its 2nd and 98th percentile.

    Args:
        tokens: (*grid, D) of each image.
        foreground: First split the tokens by their first component (Otsu's threshold), then show the components of one
            part alone, as Oquab et al. (DINOv2, 2023) do. The foreground is the part that holds less of the images'
            edges.

    Raises:
        LamellaError: The tokens are all alike, or too few.
    """
    grids = [np.asarray(part).shape[:-1] for part in tokens]
    flat = [np.asarray(part, np.float64).reshape(-1, np.shape(part)[-1]) for part in tokens]
    stacked = np.concatenate(flat)
    kept = np.ones(len(stacked), bool)
    if foreground:
        kept = _foreground(stacked, np.concatenate([_edges(grid).ravel() for grid in grids]))
    scores, explained = components(stacked[kept])
    colours = np.zeros((len(stacked), 3))
    colours[kept] = stretched(scores)
    ends = np.cumsum([len(part) for part in flat])[:-1]
    return PatchColours(
        tuple(part.reshape(*grid, 3) for part, grid in zip(np.split(colours, ends), grids, strict=True)),
        tuple(part.reshape(grid) for part, grid in zip(np.split(kept, ends), grids, strict=True)),
        explained,
        variance_by_place(flat) if len(set(grids)) == 1 else None,
    )


def components(features: np.ndarray) -> tuple[np.ndarray, tuple[float, float, float]]:
    """Scores of the first three principal components, and the share of the variance of each.

    Args:
        features: (N, D).

    Returns:
        (N, 3) and three shares.

    Raises:
        LamellaError: There are fewer than four rows or three columns, or all rows are alike.
    """
    if len(features) < _LEAST_TOKENS or features.shape[1] < 3:
        raise LamellaError(
            "the components of the tokens",
            f"{len(features)} tokens of {features.shape[1]} numbers have no three components",
            "Show more images, or larger ones.",
        )
    centred = features - features.mean(axis=0)
    variance = float(np.square(centred).sum())
    # Rounding leaves 1e-7 of a number's size in 32 bits: less spread than that is none.
    if variance <= len(features) * (1e-6**2) * float(np.square(features).sum(axis=1).mean()):
        raise LamellaError(
            "the components of the tokens",
            "all tokens are alike, so there is nothing to colour",
            "The encoder has collapsed: look at the monitors of its training.",
        )
    values, vectors = np.linalg.eigh(centred.T @ centred)
    axes = vectors[:, ::-1][:, :3]
    largest = np.abs(axes).argmax(axis=0)
    axes = axes * np.sign(axes[largest, np.arange(3)])
    first, second, third = (float(max(value, 0.0)) / variance for value in values[::-1][:3])
    return centred @ axes, (first, second, third)


def variance_by_place(tokens: Sequence[np.ndarray]) -> float | None:
    """Share of the variance of tokens that their place explains, whatever the image; None for a single image.

    One-way analysis of variance with the places as groups; the noise of a mean over few images is taken off, so that
    tokens without any regard to their place give 0 on average.

    Args:
        tokens: (N, D) of each image, in the same order of places.
    """
    if len(tokens) < 2:
        return None
    stacked = np.stack([np.asarray(part, np.float64) for part in tokens])  # (images, N, D)
    images = len(stacked)
    place_means = stacked.mean(axis=0)
    within = np.square(stacked - place_means).sum(axis=-1).mean() * images / (images - 1)
    between = np.square(place_means - place_means.mean(axis=0)).sum(axis=-1).mean() - within / images
    between = max(0.0, float(between))
    return between / (between + float(within)) if between + within > 0 else None


def _foreground(stacked: np.ndarray, edge: np.ndarray) -> np.ndarray:
    scores = components(stacked)[0][:, 0]
    threshold = threshold_otsu(scores)
    # Between clear groups Otsu's criterion is flat, and its threshold lies at the rim of one: the middle is meant.
    upper = scores > (scores[scores > threshold].mean() + scores[scores <= threshold].mean()) / 2
    if edge.any() and not edge.all() and upper[edge].mean() > upper[~edge].mean():
        upper = ~upper
    # A part of fewer tokens than components is no foreground; then all are shown.
    return upper if upper.sum() >= _LEAST_TOKENS else np.ones(len(stacked), bool)


def _edges(grid: tuple[int, ...]) -> np.ndarray:
    """(*grid) bool: the rim of a grid, along every axis that is long enough to have an inside."""
    inner = tuple(slice(1, -1) if side > 2 else slice(None) for side in grid)
    edge = np.ones(grid, bool)
    edge[inner] = False
    return edge
