"""What a caller needs of a collection: labels of two classes, masks, the same groups together."""

from __future__ import annotations

from collections import Counter

from lamella.errors import DatasetError
from lamella.imaging.datasets.collection import Collection
from lamella.imaging.datasets.problems import named


def labelled(collection: Collection, *, least_classes: int = 2) -> Collection:
    """The labelled items of a collection.

    Raises:
        DatasetError: None is labelled, or fewer than `least_classes` classes occur (multi-label: fewer than one class
            that some items have and some have not).
    """
    items = [item for item in collection.items if item.labels is not None]
    if not items:
        raise DatasetError(
            collection.name, "no item is labelled", "Name the label column, or use a data set with labels."
        )
    counts = Counter(label for item in items for label in item.labels or ())
    if collection.multi_label:
        if not any(0 < count < len(items) for count in counts.values()):
            raise DatasetError(
                collection.name, "no class tells items apart: each is in all items or in none", "Check the labels."
            )
    elif len(counts) < least_classes:
        raise DatasetError(
            collection.name,
            f"one class only: {named(list(counts))} in all {len(items)} items"
            if len(counts) == 1
            else f"{len(counts)} classes, where {least_classes} are needed",
            "A classifier needs at least two classes.",
        )
    return collection.only(items)


def masked(collection: Collection) -> Collection:
    """The items of a collection that have a mask.

    Raises:
        DatasetError: There is none.
    """
    items = [item for item in collection.items if item.mask is not None]
    if not items or collection.read_mask is None:
        raise DatasetError(collection.name, "no item has a mask", "Name the mask column, or use a data set with masks.")
    return collection.only(items)
