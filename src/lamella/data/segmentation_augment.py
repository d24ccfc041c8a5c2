"""Changes of a labelled image: pixels, masks, points and boxes go through one function, so that they stay together.

Orientation (the eight of a square) and an elastic warp move everything; stain, colour and focus change pixels only.
Nothing is changed in place. Places are pixels as in `lamella.models.prompts`: x to the right, y down, pixel (0, 0)
covers [0, 1) x [0, 1), boxes are half-open.

Shapes: Y rows, X columns, P points, M boxes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from scipy import ndimage

from lamella.config import Settings
from lamella.data.augment import StainChange, StainSettings, Turn
from lamella.data.image_augment import ColourSettings, PhotometricColour, Probability, Share, recoloured

PADDING = -1
"""Label of a point that only fills up a row of points; the same as `lamella.models.prompts.PADDING`."""
# A warp is undone for points by stepping back along it, four fifths of the way: a whole step swings to and fro where
# the warp changes by nearly a pixel from one to the next. Over 1,001 default warps of 20 points the largest error left
# was 0.001 px. Warps several times as strong fold the image over, and nothing undoes them.
_STEP, _INVERSIONS = 0.8, 40
_EDGE_POINTS = 16  # of each side of a box, warped to find what the box becomes


class SegmentationAugmentSettings(Settings):
    """How tiles are varied. All at 0 and `turn=false` leaves them as they are."""

    turn: bool = True
    """Show tiles in any of the eight orientations: tissue has no up."""
    elastic: Probability = 0.3
    """Share of the tiles that are warped; it costs more time than all else."""
    elastic_alpha_px: Annotated[float, Field(ge=0)] = 30.0
    """Strength of the warp: uniform noise from -1 to 1, smoothed, times this. 30 after a smoothing of 4 px moves a
    pixel by 1.2 px (root mean square)."""
    elastic_sigma_px: Annotated[float, Field(gt=0)] = 4.0
    """Width of the smoothing."""
    stain_scale: Share = 0.3
    """Relative change of the amount of haematoxylin, eosin and the residual stain (HED, not clipped)."""
    stain_shift: Annotated[float, Field(ge=0, le=1)] = 0.3
    """Amount (natural optical density) added to each stain, everywhere in the tile."""
    colour: ColourSettings = PhotometricColour(
        brightness=0.2, contrast=0.2, gamma=0, saturation=0.2, hue=0, blur=0.3, blur_px=(0.1, 2.0)
    )
    """Light, contrast, colour and focus, after the stain."""


NO_CHANGE = {"turn": False, "elastic": 0.0, "stain_scale": 0.0, "stain_shift": 0.0, "colour": {"name": "none"}}
"""Settings of `SegmentationAugmentSettings` that change nothing."""


@dataclass(frozen=True)
class Labelled:
    """An image and all that lies on it.

    Attributes:
        pixels_YXC: uint8 (Y, X, 3).
        masks: Any number of (Y, X) arrays of whole numbers.
        points_P2: float x, y; None where there is none.
        labels_P: Labels of the points; those of PADDING are not places and never move. None: all are places.
        boxes_M4: float x0, y0, x1, y1; None where there is none.
    """

    pixels_YXC: np.ndarray
    masks: tuple[np.ndarray, ...] = ()
    points_P2: np.ndarray | None = None
    labels_P: np.ndarray | None = None
    boxes_M4: np.ndarray | None = None


def augmented(labelled: Labelled, settings: SegmentationAugmentSettings, rng: np.random.Generator) -> Labelled:
    """Image, masks, points and boxes, all in one other orientation, warp, stain and light.

    Args:
        labelled: Not changed; its arrays may be read-only.
        settings: What is varied, and how far.
        rng: Of this sample. Draws come in one order, used or not: one setting does not change what another draws.
    """
    turn, is_warped = Turn.drawn(rng), bool(rng.random() < settings.elastic)
    warp_seed, stain_seed, colour_seed = (int(seed) for seed in rng.integers(0, 2**63, 3))
    if settings.turn:
        labelled = turned(labelled, turn)
    if is_warped and settings.elastic_alpha_px > 0:
        warp = drawn_warp(labelled.pixels_YXC.shape[:2], settings, np.random.default_rng(warp_seed))
        labelled = warped(labelled, warp)
    pixels = np.ascontiguousarray(labelled.pixels_YXC)
    if settings.stain_scale or settings.stain_shift:
        amounts = StainSettings(scale=settings.stain_scale, shift=settings.stain_shift, gamma=0, brightness=0)
        pixels = StainChange.drawn(amounts, np.random.default_rng(stain_seed)).apply(pixels)
    return replace(labelled, pixels_YXC=recoloured(pixels, settings.colour, np.random.default_rng(colour_seed)))


def turned(labelled: Labelled, turn: Turn) -> Labelled:
    """In another orientation: exact, also where the image is no square (a quarter turn then swaps its sides).

    Masks and pixels are views of those given.
    """
    height, width = labelled.pixels_YXC.shape[:2]
    boxes = labelled.boxes_M4
    if boxes is not None:
        corners = turned_points(boxes.reshape(-1, 2), turn, height, width).reshape(-1, 2, 2)
        boxes = np.concatenate([corners.min(1), corners.max(1)], axis=1)  # a mirror swaps left and right corners
    return Labelled(
        pixels_YXC=turn.image(labelled.pixels_YXC),
        masks=tuple(turn.image(mask[..., None])[..., 0] for mask in labelled.masks),
        points_P2=_moved(labelled, lambda points: turned_points(points, turn, height, width)),
        labels_P=labelled.labels_P,
        boxes_M4=boxes,
    )


def turned_points(points_P2: np.ndarray, turn: Turn, height: int, width: int) -> np.ndarray:
    """Where `turn` puts points of an image of this size: a new (P, 2) array."""
    x, y = points_P2[:, 0], points_P2[:, 1]
    if turn.mirror:
        x = width - x
    for _ in range(turn.quarters):  # counter-clockwise: what was at the right is at the top
        x, y = y, width - x
        height, width = width, height
    return np.stack([x, y], axis=1)


# ---- elastic --------------------------------------------------------------------------------------------------------


def drawn_warp(size_px: tuple[int, int], settings: SegmentationAugmentSettings, rng: np.random.Generator) -> np.ndarray:
    """(2, Y, X) float32: how far left or right, and up or down, the content of each pixel is fetched from.

    Simard, Steinkraus, Platt, "Best practices for convolutional neural networks", 2003.
    """
    noise = rng.uniform(-1, 1, (2, *size_px)).astype(np.float32)
    sigma = (0, settings.elastic_sigma_px, settings.elastic_sigma_px)
    return settings.elastic_alpha_px * ndimage.gaussian_filter(noise, sigma, mode="reflect")


def warped(labelled: Labelled, warp_2YX: np.ndarray) -> Labelled:
    """Everything moved along a warp: pixels between their neighbours, masks by the nearest.

    Beyond the edge the outermost pixels go on, in image and masks alike. Points are moved by the warp's inverse; a box
    becomes the smallest box around its warped outline.
    """
    height, width = labelled.pixels_YXC.shape[:2]
    x = (np.arange(width, dtype=np.float32) + 0.5 + warp_2YX[0]).clip(0.5, width - 0.5)
    y = (np.arange(height, dtype=np.float32)[:, None] + 0.5 + warp_2YX[1]).clip(0.5, height - 0.5)
    columns, rows = x.astype(np.int64), y.astype(np.int64)  # a place in [n, n + 1) is pixel n
    places = torch.from_numpy(np.stack([2 * x / width - 1, 2 * y / height - 1], axis=-1))[None]
    # A copy of its own, in the network's layout: torch refuses views that run backwards.
    planes = torch.from_numpy(np.moveaxis(labelled.pixels_YXC, -1, 0).astype(np.float32))[None]
    fetched = torch.nn.functional.grid_sample(planes, places, "bilinear", "border", align_corners=False)[0]
    boxes = labelled.boxes_M4
    return Labelled(
        pixels_YXC=fetched.add_(0.5).clamp_(0, 255).to(torch.uint8).permute(1, 2, 0).contiguous().numpy(),
        masks=tuple(mask[rows, columns] for mask in labelled.masks),
        points_P2=_moved(labelled, lambda points: warped_points(points, warp_2YX)),
        labels_P=labelled.labels_P,
        boxes_M4=None if boxes is None else np.stack([_warped_box(box, warp_2YX) for box in boxes]).reshape(-1, 4),
    )


def warped_points(points_P2: np.ndarray, warp_2YX: np.ndarray) -> np.ndarray:
    """Where the content at points comes to lie: q with q + warp(q) = p, by stepping back along the warp."""
    found = points_P2.astype(np.float64)
    for _ in range(_INVERSIONS):
        found += _STEP * (points_P2 - _warp_at(found, warp_2YX) - found)
    return found.clip(0, np.array(warp_2YX.shape[:0:-1])).astype(points_P2.dtype, copy=False)


def _warp_at(points_P2: np.ndarray, warp_2YX: np.ndarray) -> np.ndarray:
    """(P, 2) the warp between pixel centres."""
    places = (points_P2[:, 1] - 0.5, points_P2[:, 0] - 0.5)
    return np.stack([ndimage.map_coordinates(each, places, order=1, mode="nearest") for each in warp_2YX], axis=1)


def _warped_box(box: np.ndarray, warp_2YX: np.ndarray) -> np.ndarray:
    x0, y0, x1, y1 = box
    x, y = np.linspace(x0, x1, _EDGE_POINTS), np.linspace(y0, y1, _EDGE_POINTS)
    edges = [(x, y0), (x, y1), (x0, y), (x1, y)]
    outline = np.concatenate([np.stack(np.broadcast_arrays(*edge), axis=1) for edge in edges])
    moved = warped_points(outline, warp_2YX)
    return np.concatenate([moved.min(0), moved.max(0)]).astype(box.dtype, copy=False)


def _moved(labelled: Labelled, move) -> np.ndarray | None:
    """The points where `move` puts them; padding stays what it is."""
    points, labels = labelled.points_P2, labelled.labels_P
    if points is None or not len(points):
        return points
    moved = move(points).astype(points.dtype, copy=False)
    return moved if labels is None else np.where((labels == PADDING)[:, None], points, moved)
