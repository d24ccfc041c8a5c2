"""What is laid over a picture: heat, colours of components, classes of a mask. Each is a colour and an opacity a place.

Shapes: a grid over the picture is (Y, X), over a volume (Z, Y, X), over a video (T, Y, X); a colour adds a last axis.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import matplotlib
import numpy as np

from lamella.view.marks import colour

_HEAT = matplotlib.colormaps["inferno"]  # even steps of lightness, also to colour-blind readers
_HEAT_OPACITY = 0.62  # the picture below stays recognisable
_CLASS_OPACITY = 0.5


@dataclass(frozen=True)
class Layer:
    """Colours and opacities of a grid.

    Attributes:
        colours: (..., 3) float in 0..1.
        opacity: (...) float in 0..1; 0 shows the picture alone.
        fade: How much the picture under it is faded to white, 0 to 1.
        grey: Whether the picture under it loses its colours, so that none is taken for the layer's.
    """

    colours: np.ndarray
    opacity: np.ndarray
    fade: float = 0.0
    grey: bool = False


def heat(values: np.ndarray, low: float, high: float) -> Layer:
    """Dark at `low` to bright at `high`."""
    shares = np.clip((np.asarray(values, np.float64) - low) / (high - low), 0, 1)
    return Layer(_HEAT(shares)[..., :3], np.full(shares.shape, _HEAT_OPACITY), grey=True)


def even_shares(shares: np.ndarray) -> np.ndarray:
    """Shares of a whole as multiples of an even share: 1 is what each place would get if all got the same."""
    return np.asarray(shares, np.float64) * np.size(shares)


def solid(colours: np.ndarray, shown: np.ndarray | None = None) -> Layer:
    """Colours that hide the picture; where `shown` is False the picture stays, faded."""
    colours = np.asarray(colours, np.float64)
    opacity = np.ones(colours.shape[:-1]) if shown is None else np.asarray(shown, np.float64)
    return Layer(colours, opacity, fade=0.0 if shown is None else 0.6)


def classes(labels: np.ndarray, mask_classes: Mapping[str, int]) -> Layer:
    """Classes of a mask in the palette's colours, in the order of `mask_classes`; all other values stay bare."""
    colours = np.zeros((*labels.shape, 3))
    shown = np.zeros(labels.shape, bool)
    for number, value in enumerate(mask_classes.values()):
        here = labels == value
        colours[here] = np.array(colour(number)) / 255
        shown |= here
    return Layer(colours, _CLASS_OPACITY * shown)


def painted(pixels: np.ndarray, layer: Layer) -> np.ndarray:
    """Lay colours of any grid over a picture; a place of the grid stays a block, since nothing finer is known.

    Args:
        pixels: (Y, X, 3) uint8.
        layer: Of a grid of (rows, columns) that covers the picture.
    """
    height, width = pixels.shape[:2]
    rows = np.arange(height) * layer.opacity.shape[0] // height
    columns = np.arange(width) * layer.opacity.shape[1] // width
    opacity = layer.opacity[rows[:, None], columns][..., None]
    below = pixels.mean(axis=2, keepdims=True) if layer.grey else pixels
    below = below * (1 - layer.fade) + 255 * layer.fade
    return (below * (1 - opacity) + 255 * layer.colours[rows[:, None], columns] * opacity + 0.5).astype(np.uint8)
