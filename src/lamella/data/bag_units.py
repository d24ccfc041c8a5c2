"""What can be drawn from bags, how it is labelled, and where it lies: labelled tiles, or whole slides."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lamella.data.bags import Bag, LabelsAre, WeakStudy
from lamella.errors import DatasetError
from lamella.geometry import Box

Unit = tuple[int, int | None]
"""Number of a bag, and of a tile of it; None: the whole of it."""


def target_of(study: WeakStudy, labels_C: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """(C,) uint8 labels of all channels, and which are known.

    Background is unknown beside any class: how much of a tumour slide is something else, nobody has said. Only where
    nothing else is, it is certain.
    """
    label, known = np.array(labels_C, np.uint8), np.ones(len(labels_C), np.uint8)
    if study.background is None:
        return label, known
    certain = np.uint8(not label.any())
    return np.append(label, certain), np.append(known, certain)


def field_px0(bag: Bag, row: int, study: WeakStudy, mpp: float) -> Box:
    """The field of a tile in level-0 pixels; at another spacing it is wider or narrower around the same centre.

    A wider field is moved so that it lies on the slide: no made-up pixels are learned from.
    """
    frame = bag.frame
    x0, y0 = (float(value) for value in bag.corners_px0[row])
    own_x, own_y = study.fov_um / frame.mpp_x, study.fov_um / frame.mpp_y
    if mpp == study.mpp:
        return Box(x0, y0, x0 + own_x, y0 + own_y)
    side_um = mpp * study.tile_px
    side_x, side_y = side_um / frame.mpp_x, side_um / frame.mpp_y
    x0 = min(max(0.0, x0 + (own_x - side_x) / 2), frame.width_px - side_x)
    y0 = min(max(0.0, y0 + (own_y - side_y) / 2), frame.height_px - side_y)
    return Box(x0, y0, x0 + side_x, y0 + side_y)


def labels_of_unit(bag: Bag, row: int, labels_are: LabelsAre) -> tuple[int, ...]:
    """Of a tile: its own, or its bag's."""
    if labels_are == "patch" and bag.tile_labels is not None:
        return tuple(int(value) for value in bag.tile_labels[row])
    if bag.labels is None:
        raise ValueError(f"{bag.slide_id} has no label")
    return bag.labels


def units_of(bags: Sequence[Bag], labels_are: LabelsAre) -> list[Unit]:
    """What can be drawn: (bag, None) where slides are labelled, (bag, tile) where patches are."""
    if labels_are == "slide":
        unlabelled = [bag.slide_id for bag in bags if bag.labels is None]
        if unlabelled:
            raise DatasetError(
                "data.labels_are=slide",
                f"{len(unlabelled)} slide(s) have labels of tiles and none of their own: {', '.join(unlabelled[:5])}",
                "Set data.labels_are=patch.",
            )
        return [(number, None) for number in range(len(bags))]
    shared = [bag.slide_id for bag in bags if bag.tile_labels is None and len(bag) > 1]
    if shared:
        raise DatasetError(
            "data.labels_are=patch",
            f"{len(shared)} slide(s) have one label for several tiles: {', '.join(shared[:5])}",
            "Set data.labels_are=slide: then the label is the slide's, and its tiles are pooled.",
        )
    return [(number, row) for number, bag in enumerate(bags) for row in range(len(bag))]


def strata_of(bags: Sequence[Bag], units: Sequence[Unit], labels_are: LabelsAre) -> list[list[list[list[Unit]]]]:
    """Classes that occur (then "none of them", where it does) > groups > bags > what can be drawn."""
    found: dict[int, dict[str, dict[int, list[Unit]]]] = {}
    for unit in units:
        number, row = unit
        labels = labels_of_unit(bags[number], row or 0, labels_are)
        for stratum in [c for c, value in enumerate(labels) if value] or [len(labels)]:
            groups = found.setdefault(stratum, {})
            groups.setdefault(bags[number].group, {}).setdefault(number, []).append(unit)
    return [[list(of_bag.values()) for of_bag in found[stratum].values()] for stratum in sorted(found)]
