"""Which regions a data set has: one row a region, before any network is asked."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lamella.data.labelled_image import prepared
from lamella.errors import DatasetError, ImageError, LamellaError
from lamella.imaging.datasets.collection import Collection, Item
from lamella.imaging.datasets.mask_channels import channels_of
from lamella.models.regions import Region, RegionSettings, regions_of
from lamella.models.text_prompts import TextPrompts
from lamella.verbs.naming.settings import Config
from lamella.verbs.progress import progress


@dataclass(frozen=True)
class Found:
    """One region, without its pixels."""

    item: Item
    number: int
    """Among those of its image."""
    label: int
    """Class, in the order of the prompts."""
    box: tuple[int, int, int, int]
    """x0, y0, width, height in pixels of the image as it was read."""
    area_px: int

    @property
    def region_id(self) -> str:
        return f"{self.item.item_id}#{self.number}"


@dataclass(frozen=True)
class Survey:
    """The regions of a data set, image after image, and what was left out."""

    regions: tuple[Found, ...]
    classes: tuple[str, ...]
    small: dict[str, int]
    """Class -> regions that were too small."""
    dropped: int
    """Regions beyond max_regions."""
    failed: dict[str, str]
    """Item id -> why it cannot be read."""

    def rows(self) -> Iterator[dict[str, Any]]:
        """For regions.csv."""
        for found in self.regions:
            x0, y0, width, height = found.box
            yield {
                "region": found.region_id,
                "item_id": found.item.item_id,
                "group": found.item.group,
                "class": self.classes[found.label],
                "x0": x0,
                "y0": y0,
                "width": width,
                "height": height,
                "area_px": found.area_px,
            }


def prompts_for(collection: Collection, prompts: Sequence[TextPrompts]) -> tuple[TextPrompts, ...]:
    """The prompts with their classes in the order of the first file, checked against each other and the data.

    Raises:
        DatasetError: The data have no masks.
        LamellaError: A class of the prompts is not in the data, two files name different classes, or one stands twice.
    """
    if collection.read_mask is None or not any(item.mask is not None for item in collection.items):
        raise DatasetError(collection.name, "it has no masks, so no regions are given", "Give images with masks.")
    first, known = prompts[0], channels_of(collection)
    for one in prompts:
        unknown = [name for name in one.classes if name not in known]
        if unknown:
            raise LamellaError(
                f"prompts {one.name}",
                f"{', '.join(unknown)} is no class of {collection.name} (it has {', '.join(known)})",
                "Name the classes as the data do; dataset.mask_classes or dataset.class_map names them.",
            )
        if set(one.classes) != set(first.classes):
            raise LamellaError(
                f"prompts {one.name}",
                f"it names {', '.join(one.classes)}, and {first.name} names {', '.join(first.classes)}",
                "Wordings are compared on the same classes: give each file all of them.",
            )
    if len({one.name for one in prompts}) < len(prompts):
        raise LamellaError("prompts", "two files have one name", "Rename one: results are told apart by it.")
    return tuple(one.in_order(first.classes) for one in prompts)


def survey(collection: Collection, classes: tuple[str, ...], config: Config) -> Survey:
    """List the regions of every image that has a mask; an image that cannot be read is listed as failed."""
    regions: list[Found] = []
    small, dropped, failed = dict.fromkeys(classes, 0), 0, {}
    for item in progress([item for item in collection.items if item.mask is not None], "regions"):
        try:
            _, found, few, cut = read_regions(collection, item, classes, config)
        except ImageError as error:
            failed[item.item_id] = str(error)
            continue
        dropped += cut
        for name, count in few.items():
            small[name] += count
        regions += [_found(item, number, region) for number, region in enumerate(found)]
    return Survey(tuple(regions), classes, small, dropped, failed)


def read_regions(
    collection: Collection, item: Item, classes: tuple[str, ...], config: Config
) -> tuple[np.ndarray, list[Region], dict[str, int], int]:
    """An image and its regions, each time the same.

    Returns:
        The (Y, X, 3) uint8 pixels, read-only; the regions, their channel a number among `classes`; of each class how
        many were too small; and how many were left out beyond max_regions.

    Raises:
        ImageError: Image or mask cannot be read or do not belong together.
    """
    labelled = prepared(collection, item, config.mpp)
    known = channels_of(collection)
    asked = np.full(256, len(classes), np.uint8)  # every other channel, and what is not labelled, is of no class here
    for number, name in enumerate(classes):
        asked[known.index(name)] = number
    found, small = regions_of(asked[labelled.channels_YX], len(classes), config.region)
    kept = _drawn(found, len(classes), config.max_regions, (config.seed, zlib.crc32(item.item_id.encode())))
    return labelled.pixels_YXC, kept, dict(zip(classes, small, strict=True)), len(found) - len(kept)


def _drawn(found: list[Region], classes: int, most: int | None, seed: tuple[int, int]) -> list[Region]:
    """At most so many of each class, by chance, in their order."""
    if most is None:
        return found
    rng = np.random.default_rng(seed)
    rows = [[row for row, region in enumerate(found) if region.channel == number] for number in range(classes)]
    kept = sorted(row for own in rows for row in rng.permutation(own)[:most].astype(int).tolist())
    return [found[row] for row in kept]


def _found(item: Item, number: int, region: Region) -> Found:
    height, width = region.mask_YX.shape
    return Found(item, number, region.channel, (region.x0, region.y0, width, height), region.area_px)


def counts_text(found: Survey, group_noun: str, settings: RegionSettings) -> list[str]:
    """What there is, and what was left out."""
    counts = np.bincount([each.label for each in found.regions], minlength=len(found.classes))
    groups = len({each.item.group for each in found.regions})
    told = ", ".join(f"{name} {count}" for name, count in zip(found.classes, counts, strict=True))
    lines = [f"{len(found.regions)} regions of {groups} {group_noun}s: {told}"]
    if any(found.small.values()):
        few = ", ".join(f"{name} {count}" for name, count in found.small.items() if count)
        lines.append(f"Regions of fewer than {settings.min_px} pixels are left out: {few}")
    if found.dropped:
        lines.append(f"{found.dropped} regions beyond max_regions are left out, drawn by the seed")
    return lines
