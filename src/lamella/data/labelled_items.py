"""Which labelled images take part, and the classes that they must share."""

from __future__ import annotations

from collections.abc import Sequence

from lamella.data.training_items import DrawSettings, trained_items
from lamella.errors import DatasetError
from lamella.imaging.datasets.collection import Collection, Item
from lamella.imaging.datasets.mask_channels import channels_of
from lamella.imaging.datasets.requirements import masked


def owned_items(
    collections: Sequence[Collection], items: Sequence[Item] | None, settings: DrawSettings
) -> list[tuple[Collection, Item]]:
    """Each item with the collection that it belongs to.

    Args:
        collections: Of images.
        items: Which items; None: all with a mask that the settings do not exclude.
        settings: What is excluded.

    Raises:
        DatasetError: A collection holds no images, an item has no mask, or none is left.
        KeyError: An item is of no collection.
    """
    for collection in collections:
        if collection.kind != "image":
            raise DatasetError(collection.name, f"it holds {collection.kind}s", "Give a data set of images with masks.")
    if items is None:
        for collection in collections:
            masked(collection)
        # Of all items, so that a test image without a mask still keeps its patient's other images out.
        found = [
            (collection, item)
            for collection in collections
            for item in trained_items(collection, settings.excluded_splits, settings.exclude_groups)
            if item.mask is not None
        ]
    else:
        owners = {item: collection for collection in collections for item in collection.items}
        found = [(owners[item], item) for item in items]
        for collection, item in found:
            masked(collection.only([item]))
    if not found:
        names = ", ".join(collection.name for collection in collections)
        raise DatasetError(names, "no image is left to learn from", "Check data.exclude_split and data.exclude_groups.")
    return found


def same_classes(collections: Sequence[Collection]) -> tuple[str, ...]:
    """The channels that all collections share.

    Raises:
        DatasetError: They differ, or there is one only.
    """
    first = channels_of(collections[0])
    for other in collections[1:]:
        if channels_of(other) != first:
            raise DatasetError(
                other.name,
                f"its classes are {', '.join(channels_of(other))}, those of {collections[0].name} {', '.join(first)}",
                "Give both one class map: data.dataset.class_map=FILE.yaml.",
            )
    if len(first) < 2:
        raise DatasetError(
            collections[0].name,
            f"it has one class only ({', '.join(first)})",
            "Name its classes: mask_classes or class_map.",
        )
    return first
