"""Which tiles show one class and nothing else, as far as labels and truth of training slides can tell.

A label of a whole slide holds for few of its tiles. Where tiles have labels of their own, or a training slide has pixel
truth, tiles of one class alone are known; else slides that show one class alone are the purest there is.

Shapes: N tiles of a bag, n of them chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lamella.data.bag_truth import as_channels
from lamella.data.bags import Bag, WeakStudy
from lamella.data.labels import class_fractions
from lamella.geometry import mask_frame
from lamella.slides.grid import tile_boxes_um
from lamella.slides.masks import open_mask

Pure = Literal["auto", "masks", "labels", "none"]

TILE_LABELS = "labels of tiles"
MASKS = "pixel truth of training slides"
ONLY_CLASS = "slides labelled with this class alone"
ONE_OF_SEVERAL = "slides labelled with this class among others"
NO_CLASS = "slides without any class"
ANY_SLIDE = "slides labelled with this class"
# Best first. The last ones know of the slide only, not of the tile.
_RANKS = (TILE_LABELS, MASKS, ONLY_CLASS, NO_CLASS, ONE_OF_SEVERAL, ANY_SLIDE)
_ROUNDING = 1e-9  # of an area's share


@dataclass(frozen=True)
class Offer:
    """Tiles of a bag that may stand for a class.

    Attributes:
        bag: The slide.
        rows: (n,) which of its tiles.
        rule: By what they are known.
        cover: (n,) share of the tile that is of the class; None where nothing tells.
    """

    bag: Bag
    rows: np.ndarray
    rule: str
    cover: np.ndarray | None = None

    @property
    def rank(self) -> int:
        """0 is best."""
        return _RANKS.index(self.rule)


def best_offers(study: WeakStudy, bags: Sequence[Bag], channel: int, pure: Pure, min_cover: float) -> list[Offer]:
    """What bags offer for a channel, only of the best kind that any of them has; in the bags' order.

    Args:
        study: What the bags are of.
        bags: Of the training part.
        channel: A class, or the background, which follows them.
        pure: What may tell: `auto` all there is; `masks` pixel truth alone; `labels` not pixel truth; `none` the
            slides' own labels alone, with no preference for slides of one class.
        min_cover: Least share of a tile that its truth gives to the class.

    Raises:
        LamellaError: A mask cannot be read.
    """
    offers = [offer for bag in bags for offer in _offers(study, bag, channel, pure, min_cover)]
    best = min((offer.rank for offer in offers), default=0)
    return [offer for offer in offers if offer.rank == best]


def _offers(study: WeakStudy, bag: Bag, channel: int, pure: Pure, min_cover: float) -> list[Offer]:
    """The best a bag has, or nothing."""
    rows = _by_tile_labels(study, bag, channel) if pure in ("auto", "labels") else np.zeros(0, np.int64)
    if len(rows):
        return [Offer(bag, rows, TILE_LABELS)]
    if pure in ("auto", "masks") and bag.mask_path is not None and _may_show(study, bag, channel):
        cover = covers(study, bag, channel)
        rows = np.flatnonzero(cover >= min_cover - _ROUNDING)
        if len(rows):
            return [Offer(bag, rows, MASKS, cover[rows])]
    if pure == "masks" or bag.labels is None or not _may_show(study, bag, channel):
        return []
    everything = np.arange(len(bag))
    if channel == len(study.classes):
        return [] if any(bag.labels) else [Offer(bag, everything, NO_CLASS)]
    if pure == "none":
        return [Offer(bag, everything, ANY_SLIDE)]
    return [Offer(bag, everything, ONLY_CLASS if sum(bag.labels) == 1 else ONE_OF_SEVERAL)]


def _may_show(study: WeakStudy, bag: Bag, channel: int) -> bool:
    """Whether the slide's label allows it; nothing says that a slide is without background."""
    return channel == len(study.classes) or bag.labels is None or bool(bag.labels[channel])


def _by_tile_labels(study: WeakStudy, bag: Bag, channel: int) -> np.ndarray:
    if bag.tile_labels is None:
        return np.zeros(0, np.int64)
    classes_of_tile = bag.tile_labels.sum(axis=1)
    if channel == len(study.classes):
        return np.flatnonzero(classes_of_tile == 0)
    return np.flatnonzero((bag.tile_labels[:, channel] == 1) & (classes_of_tile == 1))


def covers(study: WeakStudy, bag: Bag, channel: int) -> np.ndarray:
    """(N,) float64: share of each tile that the bag's truth gives to a channel; what lies off the mask is of none.

    Raises:
        LamellaError: The mask cannot be read.
    """
    assert bag.mask_path is not None
    mask = open_mask(bag.mask_path)
    height_px, width_px = mask.values.shape
    frame = mask_frame(bag.frame, width_px, height_px, name=bag.mask_path)
    name = study.channels[channel]
    boxes_um = tile_boxes_um(study.table(bag), bag.frame)
    return class_fractions(as_channels(study, mask.values), frame, boxes_um, {name: channel})[name]
