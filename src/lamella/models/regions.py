"""Regions of an image, and how each is shown to a network by itself: gray mask, dim, tight crop, or with context.

A region is a mask on an image. The image it lies on is never changed: what is shown is a new array. Nothing is ever
squashed: a region keeps its aspect.

Shapes: Y, X pixels of an image, h, w pixels of what is shown of a region.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import Field
from scipy import ndimage

from lamella.config import Settings
from lamella.errors import ImageError

Mode = Literal["gray", "dim", "crop", "context"]
MODES: tuple[Mode, ...] = ("gray", "dim", "crop", "context")
_EIGHT = np.ones((3, 3), bool)  # pixels that touch at a corner belong together, as in `imaging` of objects


class RegionSettings(Settings):
    """What is shown of a region."""

    margin: Annotated[float, Field(ge=0)] = 0.5
    """Shown around the bounding box to each side, as a share of its longer side (modes dim and context)."""
    margin_um: Annotated[float, Field(ge=0)] | None = None
    """The same in micrometres, for images whose spacing is known; wins over margin."""
    dimmed: Annotated[float, Field(ge=0, le=1)] = 0.3
    """Share of the image that is left outside the region (mode dim); the rest is gray."""
    min_px: Annotated[int, Field(ge=1)] = 256
    """Smaller regions are left out and counted: 16 x 16 pixels are too few to see a tissue in."""
    pieces: Literal["components", "whole"] = "components"
    """components: each connected component of a class is a region. whole: all pixels of a class in an image are one."""


@dataclass(frozen=True)
class Region:
    """A piece of an image.

    Attributes:
        x0: Left column of its bounding box.
        y0: Upper row.
        mask_YX: bool, within the bounding box; True is the region.
        channel: Class by its channel; -1 where it is unknown.
    """

    x0: int
    y0: int
    mask_YX: np.ndarray
    channel: int = -1

    @property
    def area_px(self) -> int:
        return int(self.mask_YX.sum())


def regions_of(channels_YX: np.ndarray, channels: int, settings: RegionSettings) -> tuple[list[Region], list[int]]:
    """The regions of a label map: of each class, connected components (8 neighbours) from top to bottom.

    Args:
        channels_YX: Channel of each pixel (`imaging.datasets.mask_channels`); what is `channels` or more is of none.
        channels: How many classes there are.
        settings: What a region is.

    Returns:
        The regions, class by class, and of each class how many were too small.
    """
    found: list[Region] = []
    small = [0] * channels
    for channel in range(channels):
        mask = channels_YX == channel
        if settings.pieces == "whole":
            labels = mask.astype(np.int32)
        else:
            labels, _ = ndimage.label(mask, _EIGHT)
        for number, place in enumerate(ndimage.find_objects(labels), start=1):
            piece = labels[place] == number
            if piece.sum() < settings.min_px:
                small[channel] += 1
                continue
            found.append(Region(place[1].start, place[0].start, piece, channel))
    return found, small


def region_of_mask(mask_YX: np.ndarray, channel: int = -1, *, source: object = "mask") -> Region:
    """The region that a whole-image mask describes.

    Raises:
        ImageError: The mask is empty.
    """
    place = ndimage.find_objects(mask_YX.astype(np.uint8))
    if not place:
        raise ImageError(source, "the region is empty", "Leave it out, or draw it on the image.")
    rows, columns = place[0]
    return Region(columns.start, rows.start, mask_YX[rows, columns].astype(bool), channel)


def isolated(
    pixels_YXC: np.ndarray,
    region: Region,
    mode: Mode,
    settings: RegionSettings,
    gray: tuple[int, int, int],
    *,
    mpp: float | None = None,
    source: object = "region",
) -> np.ndarray:
    """A region as it is shown, as a new array; the image stays as it is.

    gray: the bounding box, all outside the region in gray. dim: with a margin, the outside mixed with gray. crop: the
    bounding box as it is. context: with a margin, as it is. A margin ends where the image ends.

    Args:
        pixels_YXC: uint8 (Y, X, 3).
        region: On this image.
        mode: How it is isolated.
        settings: Margin and dimming.
        gray: The colour that stands for "nothing".
        mpp: Micrometres per pixel of the image; needed for margin_um alone.
        source: Named in errors.

    Returns:
        uint8 (h, w, 3).

    Raises:
        ImageError: The region is empty, or not on the image, or margin_um is asked for without a spacing.
    """
    rows, columns = region.mask_YX.shape
    height, width = pixels_YXC.shape[:2]
    if not region.mask_YX.any():
        raise ImageError(source, "the region is empty", "Leave it out, or draw it on the image.")
    if region.x0 < 0 or region.y0 < 0 or region.x0 + columns > width or region.y0 + rows > height:
        raise ImageError(
            source,
            f"the region (x {region.x0} to {region.x0 + columns}, y {region.y0} to {region.y0 + rows}) lies outside "
            f"the image ({width} x {height} pixels)",
            "Give regions of this very image.",
        )
    margin = round(margin_px(max(rows, columns), settings, mpp, source)) if mode in ("dim", "context") else 0
    x0, y0 = max(0, region.x0 - margin), max(0, region.y0 - margin)
    x1, y1 = min(width, region.x0 + columns + margin), min(height, region.y0 + rows + margin)
    shown = pixels_YXC[y0:y1, x0:x1].copy()  # a view would write through to the image
    if mode in ("gray", "dim"):
        outside = np.ones(shown.shape[:2], bool)
        outside[region.y0 - y0 : region.y0 - y0 + rows, region.x0 - x0 : region.x0 - x0 + columns] = ~region.mask_YX
        share = settings.dimmed if mode == "dim" else 0.0
        mixed = share * shown[outside] + (1 - share) * np.asarray(gray, np.float64)
        shown[outside] = np.rint(mixed).astype(np.uint8)
    return shown


def margin_px(longer_px: float, settings: RegionSettings, mpp: float | None, source: object = "region") -> float:
    """Pixels around the bounding box of a region whose longer side is given.

    Raises:
        ImageError: It is asked for in micrometres, and the spacing is not known.
    """
    if settings.margin_um is None:
        return settings.margin * longer_px
    if mpp is None:
        raise ImageError(
            source,
            "the margin is asked for in micrometres, and the image has no stated spacing",
            "Set mpp=0.5, or give region.margin as a share of the region.",
        )
    return settings.margin_um / mpp
